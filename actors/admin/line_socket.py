"""A stream socket that carries control lines: an owned resource, no task, bounded both ways.

Reading: at most `READ_BYTES` per turn of the event loop, handed to `on_data` at once. Reading
pauses while the other side does not take what was written, so that requests of a client that does
not read its answers pile up in that client.

Writing: what the socket does not take is kept here. Writers that produce much wait in `room()`
until less than `ROOM_BYTES` are kept; a write that would go over `MOST_BYTES` closes the socket
(`reader too slow`), which only a peer that breaks the protocol can cause.

It knows nothing of JSON; framing is wire/admin.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from actors.runtime import Actor

READ_BYTES = 64 * 1024
ROOM_BYTES = 256 * 1024
MOST_BYTES = 4 * 1024 * 1024


class AdminSocket:
    """A stream socket that carries control lines: an owned resource, no task, bounded both ways.

    Args:
        actor: the owner; the socket ends with its incarnation, and a fault in a callback is the
            owner's exit.
        sock: a connected stream socket; taken over.
        on_data: called with what arrived.
        on_end: called once when the peer will send no more, or the connection broke, with the
            reason; never after `abort`.
    """

    def __init__(
        self,
        actor: Actor,
        sock: socket.socket,
        *,
        on_data: Callable[[bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_data = on_data
        self._on_end: Callable[[str], None] | None = on_end
        self._unsent = bytearray()
        self._room: set[asyncio.Future[None]] = set()
        self._reading = False
        self._ended = False
        self.closed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._readable = actor.guard("control socket", self._read)
        self._writable = actor.guard("control socket", self._flush)
        sock.setblocking(False)
        actor.own(self, "control socket")
        self._read_if_wanted()

    @property
    def unsent(self) -> int:
        """Bytes kept because the peer has not taken them yet."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Send, or keep for later. Does nothing once closed."""
        if self.closed:
            return
        idle = not self._unsent
        self._unsent += data
        if idle:
            self._flush()
        if len(self._unsent) > MOST_BYTES:
            self._finish("reader too slow")

    async def room(self) -> bool:
        """Wait until less than `ROOM_BYTES` are kept. False when the socket is closed.

        No deadline of its own: the caller's request has one, and the end of the connection ends
        the wait.
        """
        while len(self._unsent) >= ROOM_BYTES and not self.closed:
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.add(future)
            try:
                await future
            finally:
                self._room.discard(future)
        return not self.closed

    def abort(self) -> None:
        """Close at once; what was not sent is lost. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._on_end = None
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._unsent.clear()
        self._wake_writers()

    # Inside.

    def _read(self) -> None:
        if self.closed:
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(errno.errorcode.get(error.errno or 0, "read error"))
            return
        if not data:
            self._end_of_stream()
            return
        self.bytes_in += len(data)
        self._on_data(data)
        self._read_if_wanted()

    def _end_of_stream(self) -> None:
        self._ended = True
        self._read_if_wanted()
        self._report("end of stream")

    def _report(self, reason: str) -> None:
        callback, self._on_end = self._on_end, None
        if callback is not None:
            callback(reason)

    def _finish(self, reason: str) -> None:
        callback = self._on_end
        self.abort()
        if callback is not None:
            callback(reason)

    def _read_if_wanted(self) -> None:
        wanted = not self.closed and not self._ended and len(self._unsent) < ROOM_BYTES
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._sock, self._readable)
            elif not self.closed:
                self._loop.remove_reader(self._sock)

    def _flush(self) -> None:
        if self.closed:
            return
        unsent = self._unsent
        try:
            while unsent:
                with memoryview(unsent) as view:
                    sent = self._sock.send(view)
                self.bytes_out += sent
                del unsent[:sent]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock, self._writable)
        except OSError as error:
            self._finish(errno.errorcode.get(error.errno or 0, "write error"))
            return
        else:
            self._loop.remove_writer(self._sock)
        self._read_if_wanted()
        if len(unsent) < ROOM_BYTES:
            self._wake_writers()

    def _wake_writers(self) -> None:
        waiting, self._room = self._room, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)
