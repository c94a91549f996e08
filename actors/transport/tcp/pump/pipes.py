"""Pipes that bulk data passes through inside the kernel (splice(2)), lent while they hold bytes.

An unprivileged user may have 64 pipes of 1 MiB (pipe-user-pages-soft); with more, new pipes have
two pages and are of no use. So there are few, whoever has bytes in one keeps it until they left,
and who gets none copies.

Source: protocol sheet rendezvous 3.4; pipe(7).
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

#: Bytes of a pipe; smaller ones gain nothing over copying.
PIPE_BYTES: Final = 1024 * 1024
#: Pipes at a time, lent ones included.
MAX_PIPES: Final = 32
#: Of those, kept while nobody needs them.
MAX_IDLE: Final = 4


class Pipe:
    """One pipe. Whoever borrowed it knows how many bytes are in it."""

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """What is in it is lost."""
        os.close(self.read)
        os.close(self.write)


class PipePool:
    """Pipes that bulk data passes through inside the kernel (splice(2)), lent while they hold
    bytes. A resource: `abort` closes what is not lent.

    Attributes:
        dry: how often nobody could be given one.
    """

    def __init__(self, most: int = MAX_PIPES) -> None:
        self.dry = 0
        self._most = most
        self._lent = 0
        self._idle: list[Pipe] = []
        self._closed = False

    @property
    def open(self) -> int:
        """Pipes that exist."""
        return self._lent + len(self._idle)

    def borrow(self) -> Pipe | None:
        """An empty pipe, to be given back; None: there is none, copy instead."""
        if self._idle:
            self._lent += 1
            return self._idle.pop()
        if self._lent < self._most:
            try:
                pipe = Pipe()
            except OSError:  # over a limit of the user or of the process
                pass
            else:
                self._lent += 1
                return pipe
        self.dry += 1
        return None

    def give_back(self, pipe: Pipe, *, empty: bool = True) -> None:
        """The borrower is done; a pipe that still holds bytes is closed."""
        self._lent -= 1
        if empty and not self._closed and len(self._idle) < MAX_IDLE:
            self._idle.append(pipe)
        else:
            pipe.close()

    def abort(self) -> None:
        """Close what is here, and later what comes back; idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
