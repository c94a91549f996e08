"""The local socket of a bridge as a resource, until the pump has it."""

from __future__ import annotations

import socket


class SocketGuard:
    """Until the pump takes over: the socket as a resource; closing it resets the local side."""

    __slots__ = ("sock",)

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def abort(self) -> None:
        """Close with RST."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0" + b"\0\0\0\0")
            self.sock.close()
