"""Tests of wire.proxy_protocol."""
