"""Couples two sockets: bulk through pipes inside the kernel, chatter by copying.

Each direction reads, and writes at once what it read. What the kernel does not take stays where it
is (a piece in memory, or a pipe), and reading stops until it left: so a direction holds at most
`READ_BYTES`, or one pipe. A direction that fills its reads goes over to splice(2), one that comes
in small pieces comes back: a segment costs a slot of a pipe, however small it is.

The loop is given descriptors, not sockets: asyncio writes the text of one for every registration.

Source: protocol sheet rendezvous 3.2 to 3.4.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from actors.runtime import Guard
from actors.transport.tcp.pump.pipes import PIPE_BYTES, Pipe, PipePool
from actors.transport.tcp.pump.quiet import QuietLimits, QuietWatch
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.pump.throttle import Throttle, pause_of

READ_BYTES: Final = 64 * 1024
#: Reads per wake-up before other sockets get a turn.
READS: Final = 4
#: Full reads in a row that make a bulk transfer.
BULK_READS: Final = 4
#: Pieces smaller than a read, in a row, that make it chatter again.
SMALL_PIECES: Final = 16
#: SPLICE_F_MOVE and SPLICE_F_NONBLOCK; never SPLICE_F_MORE, which holds back the last bytes.
_SPLICE_FLAGS: Final = 3


class SocketPair:
    """Couples two sockets: bulk through pipes inside the kernel, chatter by copying. A resource:
    `abort` resets both sockets.

    Args:
        first, second: connected, non-blocking; taken over.
        pipes: lends pipes.
        on_end: called once: "" when both directions ended cleanly, else what failed.
        guard: `Actor.guard`.
        limits: when a quiet pair is given up.
        throttles: limits of bytes per second, of both directions together.
    """

    __slots__ = ("_ended", "_first", "_guard", "_limits", "_on_end", "_quiet", "_second", "loop",
                 "pipes", "throttles")  # fmt: skip

    def __init__(
        self,
        first: socket.socket,
        second: socket.socket,
        *,
        pipes: PipePool,
        on_end: Callable[[str], object],
        guard: Guard,
        limits: QuietLimits = QuietLimits(),  # noqa: B008  # frozen value
        throttles: Sequence[Throttle] = (),
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pipes = pipes
        self.throttles = tuple(throttles)
        self._on_end = on_end
        self._guard = guard
        self._limits = limits
        self._ended = False
        self._first = _Direction(self, first, second)
        self._second = _Direction(self, second, first)
        self._quiet = QuietWatch(
            lambda: self._first.bytes + self._second.bytes, guard("pump", self._too_quiet)
        )

    @property
    def bytes_in(self) -> int:
        """Bytes the second socket's kernel took from the first."""
        return self._first.bytes

    @property
    def bytes_out(self) -> int:
        """Bytes the first socket's kernel took from the second."""
        return self._second.bytes

    def start(self, *, first: bytes = b"", second: bytes = b"", first_ended: bool = False) -> None:
        """Begin.

        Args:
            first, second: bytes that go in front of those of each socket: what was read already.
            first_ended: the end of the first was read already, too.
        """
        self._quiet.within(self._limits.idle)
        self._first.start(self._guard, first, ended=first_ended)
        if not self._ended:
            self._second.start(self._guard, second)

    def abort(self) -> None:
        """Reset both sides; idempotent."""
        if not self._ended:
            self._stop()
            close_with_reset(self._first.source)
            close_with_reset(self._second.source)

    def _stop(self) -> None:
        self._ended = True
        self._quiet.stop()
        self._first.stop()
        self._second.stop()

    def _too_quiet(self) -> None:
        self.fail("quiet for too long")

    # Called by the directions.

    def fail(self, why: str) -> None:
        """Both sides see an error."""
        if not self._ended:
            self.abort()
            self._on_end(why)

    def direction_over(self) -> None:
        """One side sent everything it had, and the other was told."""
        if self._ended:
            return
        if not (self._first.over and self._second.over):
            self._quiet.within(self._limits.half_closed)
            return
        self._stop()
        self._first.source.close()
        self._second.source.close()
        self._on_end("")


class _Direction:
    """Everything from one socket to the other."""

    __slots__ = ("_bulk", "_eof", "_in_pipe", "_pair", "_paused", "_pipe", "_read_ready",
                 "_reading", "_run", "_unsent", "_write_ready", "_writing", "bytes", "over",
                 "sink", "source")  # fmt: skip

    def __init__(self, pair: SocketPair, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.bytes = 0
        #: The source's end was passed on.
        self.over = False
        self._pair = pair
        self._unsent: bytes | memoryview = b""
        self._pipe: Pipe | None = None  # while bytes are in it
        self._in_pipe = 0
        self._eof = False
        self._reading = self._writing = self._bulk = False
        self._paused: asyncio.TimerHandle | None = None
        self._run = 0  # full reads, or small pieces, in a row

    def start(self, guard: Guard, early: bytes, *, ended: bool = False) -> None:
        """Begin; see `SocketPair.start`."""
        self._read_ready = guard("pump", self._readable)
        self._write_ready = guard("pump", self._writable)
        self._eof = ended
        self._unsent = early
        if early:
            self._writable()
        elif ended:
            self._end()
        else:
            self._watch_reading()

    def stop(self) -> None:
        """Out of the loop; what it held is dropped."""
        if self._reading:
            self._pair.loop.remove_reader(self.source.fileno())
        if self._writing:
            self._pair.loop.remove_writer(self.sink.fileno())
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        self._reading = self._writing = False
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            self._pair.pipes.give_back(pipe, empty=False)
        self._unsent = b""
        self.over = True

    def _watch_reading(self) -> None:
        if not self._reading and self._paused is None and not self.over:
            self._reading = True
            self._pair.loop.add_reader(self.source.fileno(), self._read_ready)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._pair.loop.remove_reader(self.source.fileno())

    def _readable(self) -> None:
        self._move(self._splice_in if self._bulk else self._copy)

    def _writable(self) -> None:
        self._move(self._drain)

    def _move(self, step: Callable[[], object]) -> None:
        before = self.bytes
        try:
            step()
        except (BlockingIOError, InterruptedError):
            pass  # nothing to read
        except OSError as error:
            self._pair.fail(f"connection: {error.strerror}")
            return
        if self._pair.throttles and self.bytes != before:
            self._pay(self.bytes - before)

    def _pay(self, count: int) -> None:
        now = self._pair.loop.time()
        pause = pause_of(self._pair.throttles, count, now)
        if pause and not self.over:
            self._stop_reading()
            self._paused = self._pair.loop.call_later(pause, self._paid)

    def _paid(self) -> None:
        self._paused = None
        if not self._writing and not self._eof:
            self._watch_reading()

    # Copying.

    def _copy(self) -> None:
        for _ in range(READS):
            data = self.source.recv(READ_BYTES)
            if not data:
                self._ended()
                return
            size = len(data)
            sent = self._send(data)
            self.bytes += sent
            if sent < size:
                self._unsent = memoryview(data)[sent:]
                self._wait_for_room()
            if size < READ_BYTES:
                self._run = 0
                return
            self._run += 1
            if self._run >= BULK_READS and not self._pair.throttles:
                self._bulk, self._run = True, 0
                return
            if sent < size:
                return

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.sink.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    # Bulk.

    def _splice_in(self) -> None:
        pipes = self._pair.pipes
        pipe = pipes.borrow()
        if pipe is None:
            self._bulk = False
            self._copy()
            return
        count = 0
        try:
            count = os.splice(self.source.fileno(), pipe.write, PIPE_BYTES, flags=_SPLICE_FLAGS)
        finally:
            if not count:
                pipes.give_back(pipe)
        if not count:
            self._ended()
            return
        self._run = self._run + 1 if count < READ_BYTES else 0
        if self._run >= SMALL_PIECES:
            self._bulk, self._run = False, 0
        self._pipe, self._in_pipe = pipe, count
        if not self._splice_out(pipe):
            self._wait_for_room()

    def _splice_out(self, pipe: Pipe) -> bool:
        """Out of the pipe what the sink takes; True: all of it."""
        sink = self.sink.fileno()
        try:
            while self._in_pipe:
                sent = os.splice(pipe.read, sink, self._in_pipe, flags=_SPLICE_FLAGS)
                self._in_pipe -= sent
                self.bytes += sent
        except (BlockingIOError, InterruptedError):
            return False
        self._pipe = None
        self._pair.pipes.give_back(pipe)
        return True

    # To the sink.

    def _wait_for_room(self) -> None:
        self._stop_reading()
        if not self._writing:
            self._writing = True
            self._pair.loop.add_writer(self.sink.fileno(), self._write_ready)

    def _drain(self) -> None:
        """What was read before goes first; then reading, or the end, goes on."""
        if self._pipe is not None:
            if not self._splice_out(self._pipe):
                return
        elif self._unsent:
            sent = self._send(self._unsent)
            self.bytes += sent
            self._unsent = self._unsent[sent:]
            if self._unsent:
                self._wait_for_room()
                return
        if self._writing:
            self._writing = False
            self._pair.loop.remove_writer(self.sink.fileno())
        if self._eof:
            self._end()
        else:
            self._watch_reading()

    # The end.

    def _ended(self) -> None:
        self._eof = True
        self._stop_reading()
        if not self._writing:
            self._end()

    def _end(self) -> None:
        """Nothing is left of what the source sent: its end is the sink's."""
        self.over = True
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._pair.fail(f"connection: {error.strerror}")
            return
        self._pair.direction_over()
