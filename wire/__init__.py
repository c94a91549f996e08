"""Wire protocols without I/O: bytes and `now` in, events and bytes out.

Nothing below this package opens a socket, reads a clock, draws random numbers, logs or knows the
configuration. One sub-package per protocol; they do not know each other.
"""
