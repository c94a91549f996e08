"""A socket that waits for its other half: what it says is kept, its end is noticed.

Idle members of a pool may speak before there is a user (a banner), users before there is a service.
Both may leave. So they are read into a small buffer; one that fills it is not read any more, and
its end is then noticed by whoever gets it.

Source: protocol sheet rendezvous 1.7 rows 6 and 9.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from actors.runtime import Guard

#: Bytes kept of one socket.
MOST: Final = 64 * 1024


class HeldSocket:
    """A socket that waits for its other half: what it says is kept, its end is noticed.

    Args:
        sock: non-blocking; taken over until `take` or `abort`.
        early: what was read before.
        on_end: called once: True when it ended in order, False for an error. It is read no more.
        guard: wraps the callback.

    Attributes:
        early: what it said.
        ended: it sent its end.
    """

    __slots__ = ("_loop", "_on_end", "_reading", "early", "ended", "sock")

    def __init__(
        self,
        sock: socket.socket,
        early: bytes,
        on_end: Callable[[HeldSocket, bool], object],
        guard: Guard,
    ) -> None:
        self.sock = sock
        self.early = early
        self.ended = False
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._reading = len(early) < MOST
        if self._reading:
            self._loop.add_reader(sock.fileno(), guard("held", self._readable))

    def take(self) -> tuple[socket.socket, bytes, bool]:
        """The socket, what it said, and whether it ended; it is somebody else's now."""
        self._stop()
        early, self.early = self.early, b""
        return self.sock, early, self.ended

    def abort(self) -> None:
        """Stop, and leave the socket to be closed by its owner; idempotent."""
        self._stop()

    def _stop(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.sock.fileno())

    def _readable(self) -> None:
        try:
            data = self.sock.recv(MOST - len(self.early))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._stop()
            self._on_end(self, False)
            return
        if not data:
            self.ended = True
            self._stop()
            self._on_end(self, True)
            return
        self.early += data
        if len(self.early) >= MOST:
            self._stop()
