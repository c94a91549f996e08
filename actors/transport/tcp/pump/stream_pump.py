"""Couples a TCP socket with a stream: bytes both ways, half-close, errors, back-pressure.

No task and no StreamReader: the socket's readiness callbacks move bytes. Reading the socket stops
while the stream has no room; credit goes back to the stream's peer only for bytes the kernel took.
Bound: one stream window towards the socket, the stream's backlog limit towards the stream.

EOF becomes FIN and FIN becomes EOF. Any error resets the other side: RESET_STREAM there, RST here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from itertools import islice

from actors.runtime import Guard
from actors.transport.stream import ABORT_CODE, CloseReason, Stream
from actors.transport.tcp.pump.quiet import QuietLimits, QuietWatch
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.pump.throttle import Throttle, pause_of

READ_BYTES = 64 * 1024
#: Pieces of a stream from this size on wait for those that come with them.
GATHER_BYTES = 16 * 1024
#: Of them, handed to the kernel in one call.
VECTORS = 64
#: Reads per wake-up before other sockets get a turn.
READS = 4
#: Whole, or half closed, for as long as it takes.
_FOR_EVER = QuietLimits(half_closed=0.0)


class StreamPump:
    """Couples a TCP socket with a stream: bytes both ways, half-close, errors, back-pressure.

    Args:
        sock: connected, non-blocking; taken over.
        stream: started by the pump; taken over.
        on_end: called once: "" when both directions ended cleanly, else what failed.
        guard: wraps every callback (`Actor.guard`).
        first: sees the first bytes of the stream, all that came so far, until it says that they are
            the application's; bound: the stream's window. What it never says so of is delivered
            when the stream ends.
        code: of the stream's reset.
        limits: when a quiet pair is given up.
        throttles: limits of bytes per second, of both directions together.
    """

    __slots__ = (
        "_code", "_ended", "_first", "_gathering", "_guard", "_held", "_limits", "_loop",
        "_on_end", "_paused", "_quiet", "_read_ready", "_reading", "_shut", "_sock",
        "_socket_eof", "_stream", "_stream_eof", "_throttles", "_unsent", "_withheld",
        "_write_ready", "_writing", "bytes_in", "bytes_out"
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        stream: Stream,
        *,
        on_end: Callable[[str], object],
        guard: Guard,
        first: Callable[[bytes], bool] | None = None,
        code: int = ABORT_CODE,
        limits: QuietLimits = _FOR_EVER,
        throttles: Sequence[Throttle] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._stream = stream
        self._on_end = on_end
        self._guard = guard
        self._first = first
        self._code = code
        self._limits = limits
        self._throttles = tuple(throttles)
        self._quiet = QuietWatch(
            lambda: self.bytes_in + self.bytes_out, guard("pump", self._too_quiet)
        )
        #: Credit that a limit withholds from the stream's peer.
        self._withheld = 0
        self._paused: asyncio.TimerHandle | None = None
        self._held = bytearray()  # until `first` decided
        #: A list: an empty deque takes half a kilobyte of every idle user.
        self._unsent: list[memoryview] = []
        self._reading = False
        self._writing = False
        self._gathering = False
        self._socket_eof = False  # the local side sent EOF
        self._stream_eof = False  # the remote side sent FIN
        self._shut = False
        self._ended = False
        self.bytes_in = 0
        self.bytes_out = 0

    def start(self, early: bytes = b"", *, ended: bool = False) -> None:
        """Begin.

        Args:
            early: bytes of the stream that were delivered already and not consumed.
            ended: its FIN was delivered already, too.
        """
        stream = self._stream
        take = self._from_stream if self._first is None else self._look_first
        stream.on_data = self._guard("pump", take)
        stream.on_eof = self._guard("pump", self._stream_ended)
        stream.on_reset = self._guard("pump", lambda code: self._fail("stream reset"))
        stream.on_stop_sending = self._guard("pump", lambda code: self._unwanted())
        stream.on_drain = self._guard("pump", self._drained)
        stream.on_lost = self._guard("pump", self._lost)
        self._read_ready = self._guard("pump", self._from_socket)
        self._write_ready = self._guard("pump", self._to_socket)
        self._quiet.within(self._limits.idle)
        if early:
            take(early)
        if ended:
            self._stream_ended()
        stream.start()
        if stream.write_closed:
            self._unwanted()  # it was told before the pump listened
        self._watch_reading()

    def abort(self) -> None:
        """Reset both sides; idempotent."""
        if not self._ended:
            self._ended = True
            self._close_socket(reset=True)
            self._stream.abort(self._code)

    # From the socket to the stream.

    def _watch_reading(self) -> None:
        if self._ended:
            return  # the socket is closed and out of the loop already
        wanted = not self._socket_eof and self._stream.room > 0 and self._paused is None
        if wanted and not self._reading:
            self._loop.add_reader(self._sock.fileno(), self._read_ready)
        elif not wanted and self._reading:
            self._loop.remove_reader(self._sock.fileno())
        self._reading = wanted

    def _from_socket(self) -> None:
        before = self.bytes_in
        self._read_some()
        if self._throttles and self.bytes_in != before:
            self._pay(self.bytes_in - before)
        self._watch_reading()

    def _pay(self, count: int) -> None:
        """What passed is above the limit: neither side may send for a while."""
        pause = pause_of(self._throttles, count, self._loop.time())
        if pause and not self._ended:
            if self._paused is not None:
                self._paused.cancel()
            self._paused = self._loop.call_later(pause, self._guard("pump", self._paid))

    def _paid(self) -> None:
        self._paused = None
        if self._withheld:
            withheld, self._withheld = self._withheld, 0
            self._stream.consume(withheld)
        self._watch_reading()

    def _read_some(self) -> None:
        for _ in range(READS):
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._fail(f"local connection: {error.strerror}")
                return
            if not data:
                self._socket_eof = True
                self._stream.write_eof()
                self._half_closed()
                break
            self.bytes_in += len(data)
            if self._stream.write_closed:
                continue  # the peer wants no more: drain the local side without sending
            if self._stream.write(data) <= 0 or len(data) < READ_BYTES:
                break

    def _half_closed(self) -> None:
        self._quiet.within(self._limits.half_closed)
        self._finish_if_done()

    def _drained(self, count: int) -> None:
        if self._ended:
            return
        self._watch_reading()
        self._finish_if_done()

    def _unwanted(self) -> None:
        """The peer reads no more; the local writer is told by closing that direction."""
        if not self._ended and not self._socket_eof:
            self._socket_eof = True
            try:
                self._sock.shutdown(socket.SHUT_RD)
            except OSError:
                pass
            self._watch_reading()
            self._finish_if_done()

    # From the stream to the socket.

    def _look_first(self, data: bytes) -> None:
        self._held += data
        assert self._first is not None
        if self._first(bytes(self._held)):
            self._release()

    def _release(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        self._stream.on_data = self._guard("pump", self._from_stream)
        self._from_stream(held)

    def _from_stream(self, data: bytes) -> None:
        if self._ended:
            return
        self._unsent.append(memoryview(data))
        if self._writing or self._gathering:
            return
        if len(data) < GATHER_BYTES:
            self._to_socket()
        else:  # more of it comes in this loop iteration: one call of the kernel for all
            self._gathering = True
            self._loop.call_soon(self._write_ready)

    def _to_socket(self) -> None:
        self._gathering = False
        unsent = self._unsent
        while unsent and not self._ended:
            try:
                if len(unsent) == 1:
                    sent = self._sock.send(unsent[0])
                else:
                    sent = self._sock.sendmsg(list(islice(unsent, VECTORS)))
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock.fileno(), self._write_ready)
                return
            except OSError as error:
                self._fail(f"local connection: {error.strerror}")
                return
            self._took(sent)
        if self._ended:
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())
        if self._stream_eof:
            self._shut_socket()

    def _took(self, sent: int) -> None:
        """The kernel took so many bytes."""
        self.bytes_out += sent
        if self._throttles:
            self._pay(sent)
        if self._paused is None:
            self._stream.consume(sent)
        else:
            self._withheld += sent
        unsent, whole = self._unsent, 0
        while whole < len(unsent) and sent >= len(unsent[whole]):
            sent -= len(unsent[whole])
            whole += 1
        del unsent[:whole]
        if sent:
            unsent[0] = unsent[0][sent:]

    def _stream_ended(self) -> None:
        if self._held:
            self._release()
        self._stream_eof = True
        if not self._unsent:
            self._shut_socket()

    def _shut_socket(self) -> None:
        if self._shut or self._ended:
            return
        self._shut = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the local side is gone already: its read side tells
        self._half_closed()

    # The end.

    def _too_quiet(self) -> None:
        self._fail("quiet for too long")

    def _lost(self, reason: CloseReason) -> None:
        self._fail(f"connection {reason.kind}")

    def _fail(self, why: str) -> None:
        if self._ended:
            return
        self.abort()
        self._on_end(why)

    def _finish_if_done(self) -> None:
        if self._ended or not (self._socket_eof and self._shut) or self._stream.backlog:
            return
        self._ended = True
        self._close_socket(reset=False)
        self._stream.forget_callbacks()
        self._on_end("")

    def _close_socket(self, *, reset: bool) -> None:
        self._quiet.stop()
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if reset:
            close_with_reset(self._sock)
        else:
            self._sock.close()
        self._unsent.clear()
