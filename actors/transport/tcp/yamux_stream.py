"""A yamux stream as doors see it.

yamux ends a stream as a whole (RST) or one direction well (FIN); it has no words for RESET_STREAM
of one direction and STOP_SENDING. So what is reset while the peer may still send is dropped, and
the RST follows when the other direction is over; what is not wanted any more is read and thrown
away. An error never becomes FIN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.transport.delivery import DeliveredStream
from actors.transport.stream import BacklogExceeded, StreamClosed

if TYPE_CHECKING:
    from actors.transport.tcp.yamux_connection import YamuxConnection


class YamuxStream(DeliveredStream):
    """One stream of a session.

    Args:
        inbound: the peer opened it.
    """

    def __init__(
        self, connection: YamuxConnection, stream_id: int, *, inbound: bool = False
    ) -> None:
        super().__init__()
        self.inbound = inbound
        self.connection = connection
        self._owner = connection
        self._session = connection.session
        self.stream_id = stream_id
        self._reset_code: int | None = None
        self._over = False  # for the session
        self._finished = False  # for the owner

    def _unwanted(self) -> None:
        self._end_reset()

    def start(self) -> None:
        super().start()
        self._report_finished()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self._write_closed or self._lost is not None:
            raise StreamClosed(f"stream {self.stream_id} is finished for writing")
        room = self.room
        if room < -self._owner.settings.max_backlog:
            raise BacklogExceeded(f"stream {self.stream_id}: {self.backlog} bytes not sent")
        self.bytes_out += len(data)
        self._session.write(self.stream_id, data)
        self._owner.schedule_transmit()
        return room - len(data)

    def write_eof(self) -> None:
        if not self.write_closed:
            self._write_closed = True
            self._session.finish(self.stream_id)
            self._owner.schedule_transmit()

    def reset(self, code: int) -> None:
        if self._lost is not None or self._over or self._reset_code is not None:
            return
        self._write_closed = True
        self._reset_code = code
        self._session.cancel(self.stream_id)
        self._end_reset()

    def stop_sending(self, code: int) -> None:
        if self._stopped or self._lost is not None:
            return
        self._stop()
        self._session.discard(self.stream_id, self._owner.now())
        self._end_reset()
        self._report_finished()
        self._owner.schedule_transmit()
        self._owner.set_timer()  # the peer's bytes are dropped for a while only

    def _end_reset(self) -> None:
        """RST, once the peer's direction is over as well."""
        if self._reset_code is not None and not self._over and (self._read_closed or self._stopped):
            self._session.reset(self.stream_id, self._reset_code)
            self._owner.schedule_transmit()
            self._owner.settled(self)

    def consume(self, count: int) -> None:
        if not self._stopped and self._lost is None:
            self._consumed += count
            self._session.consume(self.stream_id, count)
            self._owner.schedule_transmit()

    @property
    def backlog(self) -> int:
        """See `Stream.backlog`: TCP does not tell what was acknowledged; what it took counts."""
        return 0 if self._lost is not None else self._session.backlog(self.stream_id)

    @property
    def room(self) -> int:
        return self._owner.settings.max_backlog - self.backlog

    # Called by the connection.

    def take_end(self) -> None:
        """The peer's FIN."""
        self.data_received(b"", end=True)
        self._end_reset()

    def take_rst(self, code: int) -> None:
        """The peer dropped the stream, both directions."""
        ended = self.read_closed
        self._write_closed = True
        self._over = True
        if not ended:
            self.take_reset(code)
        elif self._reset_code is None:  # also behind our FIN: the peer did not confirm it
            self.on_stop_sending(code)
        self._report_finished()

    def take_finished(self) -> None:
        """Nothing follows, and the peer has read everything."""
        self._over = True
        self._report_finished()

    def _report_finished(self) -> None:
        if self._over and not self._finished and not self._held and not self._held_end:
            self._finished = True
            self.on_finished()
            self.forget_callbacks()
