"""Tests of wire.orp, one module per module."""
