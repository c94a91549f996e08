"""Certificates of a relay network: made, kept in files, and given out against tokens."""
