"""Sockets as resources: a bridge's until the pump has it, and those of listeners."""

from __future__ import annotations

import socket

from actors.runtime import Actor


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


class WatchedSocket:
    """A socket the loop watches for its actor, until the actor ends."""

    __slots__ = ("_loop", "sock")

    def __init__(self, actor: Actor, sock: socket.socket) -> None:
        self._loop = actor.system.loop
        self.sock = sock

    def abort(self) -> None:
        """Watch no more, and close; idempotent."""
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock)
            self.sock.close()
