"""Tests of the peer door."""
