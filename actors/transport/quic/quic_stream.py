"""A QUIC stream as doors see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.transport.delivery import DeliveredStream
from actors.transport.stream import BacklogExceeded, StreamClosed

if TYPE_CHECKING:
    from actors.transport.quic.quic_connection import QuicConnectionHandle


class QuicStreamHandle(DeliveredStream):
    """One bidirectional stream of a connection."""

    def __init__(self, connection: QuicConnectionHandle, stream_id: int) -> None:
        super().__init__()
        self.connection = connection
        self._handle = connection
        self.stream_id = stream_id
        self._over = False  # both halves, on the wire
        self._forgotten = False  # by the connection and its engine: everything was read, too

    def _unwanted(self) -> None:
        self._handle.engine.release_credit(self.stream_id)
        # Also when it came with what the engine said behind its own transmission.
        self._handle.schedule_transmit()

    def start(self) -> None:
        super().start()
        self._look()

    def _look(self) -> None:
        """Let the connection see whether it can forget this stream."""
        if self._over:
            self._handle.reap_if_done(self)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self._write_closed or self._lost is not None:
            raise StreamClosed(f"stream {self.stream_id} is finished for writing")
        handle, stream_id, size = self._handle, self.stream_id, len(data)
        limit = handle.settings.max_backlog
        room: int = limit - handle.engine.backlog(stream_id)
        if room < -limit:
            raise BacklogExceeded(f"stream {stream_id}: {limit - room} bytes unacknowledged")
        self.bytes_out += size
        handle.engine.write(stream_id, data, end=False)
        handle.schedule_transmit()
        return room - size

    def write_eof(self) -> None:
        if self._write_closed or self._lost is not None or self._forgotten:
            return
        self._write_closed = True
        self._handle.engine.write(self.stream_id, b"", end=True)
        self._handle.schedule_transmit()

    def reset(self, code: int) -> None:
        if self._lost is not None or self._forgotten:
            return
        self._write_closed = True
        self._handle.engine.reset(self.stream_id, code)
        self._handle.schedule_transmit()

    def stop_sending(self, code: int) -> None:
        if self._stopped or self._lost is not None:
            return
        self._stop()
        if self._forgotten:
            return
        if not self._read_closed:
            self._handle.engine.stop_sending(self.stream_id, code)
        self._handle.engine.release_credit(self.stream_id)
        self._handle.schedule_transmit()
        self._look()

    def consume(self, count: int) -> None:
        if self._stopped or self._lost is not None or self._forgotten:
            return  # the whole credit was given back already
        self._consumed += count
        if self._handle.engine.consume(self.stream_id, count):
            self._handle.schedule_transmit()
        self._look()

    @property
    def backlog(self) -> int:
        return 0 if self._lost is not None else self._handle.engine.backlog(self.stream_id)

    @property
    def room(self) -> int:
        return self._handle.settings.max_backlog - self.backlog

    # Called by the connection.

    def take_stop_sending(self, code: int) -> None:
        """The peer wants no more; our half was reset by the engine."""
        self._write_closed = True
        self.on_stop_sending(code)

    def take_finished(self) -> None:
        """Both halves are over, ours acknowledged."""
        self._over = True
        self._look()

    def forget(self) -> None:
        """The connection forgot it: nothing can be said about it any more."""
        self._forgotten = True

    @property
    def done(self) -> bool:
        """True when neither half can carry anything any more and everything was consumed.

        What is not consumed still counts against the connection's window: a peer that ends its
        streams must not get credit for bytes that the relay holds.
        """
        return self._over and not self._held_end and not self.unconsumed
