"""Streams between relays: links we dial, connections we accept, halves handed across."""
