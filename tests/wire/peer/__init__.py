"""Tests of the peer relay protocol."""
