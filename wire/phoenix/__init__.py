"""Phoenix channels as a Firezone relay speaks them to its portal, without I/O.

Source: protocol sheet TURN 1.8.
"""
