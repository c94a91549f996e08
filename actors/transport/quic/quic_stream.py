"""A QUIC stream as doors see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.transport.stream import BacklogExceeded, CloseReason, Stream, StreamClosed

if TYPE_CHECKING:
    from actors.transport.quic.quic_connection import QuicConnectionHandle


class QuicStreamHandle(Stream):
    """One bidirectional stream of a connection.

    What arrives before `start()` (or while paused) is held; flow control bounds it to the stream
    window, because credit is given only by `consume`.
    """

    def __init__(self, connection: QuicConnectionHandle, stream_id: int) -> None:
        super().__init__()
        self.connection = connection
        self._handle = connection
        self.stream_id = stream_id
        self._running = False
        self._held: list[bytes] = []
        self._held_end: str = ""  # "", "eof" or "reset"
        self._held_code = 0
        self._consumed = 0
        self._read_closed = False
        self._write_closed = False
        self._stopped = False
        self._lost: CloseReason | None = None

    def start(self) -> None:
        """Deliver what was held, then whatever comes."""
        self._running = True
        if self._lost is not None:
            lost, callback = self._lost, self.on_lost
            self.forget_callbacks()
            callback(lost)
            return
        while self._running and self._held:
            self.on_data(self._held.pop(0))
        if self._running and not self._held and self._held_end:
            end, self._held_end = self._held_end, ""
            if end == "eof":
                self.on_eof()
            else:
                self.on_reset(self._held_code)

    def pause(self) -> None:
        """Hold from now on."""
        self._running = False

    def unread(self) -> tuple[list[bytes], bool]:
        """See `Stream.unread`."""
        held, self._held = self._held, []
        return held, self._held_end == "eof"

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """See `Stream.write`."""
        if self._write_closed or self._lost is not None:
            raise StreamClosed(f"stream {self.stream_id} is finished for writing")
        room = self.room
        if room < -self._handle.settings.max_backlog:
            raise BacklogExceeded(f"stream {self.stream_id}: {self.backlog} bytes unacknowledged")
        self.bytes_out += len(data)
        self._handle.engine.write(self.stream_id, data, end=False)
        self._handle.touch()
        return room - len(data)

    def write_eof(self) -> None:
        """See `Stream.write_eof`."""
        if self._write_closed or self._lost is not None:
            return
        self._write_closed = True
        self._handle.engine.write(self.stream_id, b"", end=True)
        self._handle.finishing(self)
        self._handle.touch()

    def reset(self, code: int) -> None:
        """See `Stream.reset`."""
        if self._lost is not None:
            return
        self._write_closed = True
        self._handle.engine.reset(self.stream_id, code)
        self._handle.finishing(self)
        self._handle.touch()

    def stop_sending(self, code: int) -> None:
        """See `Stream.stop_sending`."""
        if self._stopped or self._lost is not None:
            return
        self._stopped = True
        self._held.clear()
        self._held_end = ""
        if not self._read_closed:
            self._handle.engine.stop_sending(self.stream_id, code)
        self._handle.engine.settle(self.stream_id)
        self._handle.touch()

    def consume(self, count: int) -> None:
        """See `Stream.consume`."""
        if self._stopped or self._lost is not None:
            return  # the whole credit was given back already
        self._consumed += count
        self._handle.engine.consume(self.stream_id, count)
        self._handle.touch()

    @property
    def backlog(self) -> int:
        """See `Stream.backlog`."""
        return 0 if self._lost is not None else self._handle.engine.backlog(self.stream_id)

    @property
    def unconsumed(self) -> int:
        """See `Stream.unconsumed`."""
        return 0 if self._stopped else self.bytes_in - self._consumed

    @property
    def room(self) -> int:
        """See `Stream.room`."""
        return self._handle.settings.max_backlog - self.backlog

    @property
    def read_closed(self) -> bool:
        """See `Stream.read_closed`."""
        return self._read_closed or self._stopped or self._lost is not None

    @property
    def write_closed(self) -> bool:
        """See `Stream.write_closed`."""
        return self._write_closed or self._lost is not None

    # Called by the connection.

    def take_data(self, data: bytes, *, end: bool) -> None:
        """In-order bytes arrived."""
        self.bytes_in += len(data)
        if end:
            self._read_closed = True
        if self._stopped:
            self._handle.engine.settle(self.stream_id)
            return
        if not self._running or self._held:
            if data:
                self._held.append(data)
            if end:
                self._held_end = "eof"
            return
        if data:
            self.on_data(data)
        if end:
            self._deliver_eof()

    def _deliver_eof(self) -> None:
        """EOF now, or held when the callback for the last bytes paused the stream."""
        if self._running:
            self.on_eof()
        else:
            self._held_end = "eof"

    def take_reset(self, code: int) -> None:
        """The peer reset its half: what was held is void."""
        self._read_closed = True
        self._held.clear()
        self._handle.engine.settle(self.stream_id)
        if self._stopped:
            return
        if self._running:
            self.on_reset(code)
        else:
            self._held_end, self._held_code = "reset", code

    def take_stop_sending(self, code: int) -> None:
        """The peer wants no more; our half was reset by the engine."""
        self._write_closed = True
        self._handle.finishing(self)
        self.on_stop_sending(code)

    def take_lost(self, reason: CloseReason) -> None:
        """The connection ended."""
        if self._lost is not None:
            return
        self._lost = reason
        callback = self.on_lost
        if self._running:
            self.forget_callbacks()
            callback(reason)
        else:
            self._running = False

    @property
    def both_finished(self) -> bool:
        """True when neither half can carry anything any more and everything was delivered."""
        return (
            (self._read_closed or self._stopped)
            and self._write_closed
            and not self._held
            and not self._held_end
            and self._handle.engine.finished(self.stream_id)
        )
