"""Tests of the WebSocket parser."""
