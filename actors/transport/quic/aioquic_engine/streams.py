"""The aioquic engine's stream tables: what a packet costs does not grow with the streams.

The library (1.7) asks every stream of a connection for a frame, for every packet, and for its
limits as well. Here only those are asked that may have something to say: a stream is marked when
its user wrote, reset or stopped it, when a frame for it arrived (which may have given it credit or
finished it), and when the network lost something of it. Asking ends when the packet is full.

Uses the library's private parts; `tests/transport/test_aioquic_shape.py` fails when they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, ValuesView

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream, QuicStreamReceiver

from actors.transport.quic.aioquic_engine.marks import Marks
from actors.transport.quic.aioquic_engine.send_half import SendHalf

#: Bytes below which a packet is full: less than a STREAM frame's header and a few bytes.
FULL = 24
#: Most pieces of one stream that wait for what is before them; quic-go allows 1000.
MAX_PIECES = 512


class StreamTable(dict[int, QuicStream]):
    """The library's stream table; `values()` yields only streams whose limit has to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty: dict[int, QuicStream] = {}

    def values(self) -> ValuesView[QuicStream]:  # type: ignore[override]  # iterated only
        # The library iterates this while sending limits, and nowhere else.
        return dict(self.dirty).values()


class BoundedRanges(RangeSet):
    """Pieces of a stream that arrived out of order; too many end the connection.

    The library looks through all of them for every further one, so without a limit a peer that
    sends single bytes with gaps buys much time for little. Loss alone makes a few hundred.
    """

    def __init__(self, code: int = QuicErrorCode.INTERNAL_ERROR) -> None:
        super().__init__()
        self._code = code

    def add(self, start: int, stop: int | None = None) -> None:
        """Add a range, unless there are too many pieces.

        Raises:
            QuicConnectionError: there are MAX_PIECES already.
        """
        super().add(start, stop)
        if len(self) > MAX_PIECES:
            raise QuicConnectionError(
                error_code=self._code,
                frame_type=QuicFrameType.PADDING,  # none in particular
                reason_phrase="too many gaps",
            )


class _Receiver(QuicStreamReceiver):
    """A receiving half that says when STOP_SENDING was lost."""

    def __init__(self, stream_id: int, readable: bool, marks: Marks) -> None:
        super().__init__(stream_id, readable)
        self._ranges = BoundedRanges()
        self._id = stream_id
        self._marks = marks

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        """The library's callback for a STOP_SENDING frame's fate."""
        super().on_stop_sending_delivery(delivery)
        self._marks.ready[self._id] = None


class SendQueue:
    """Stands in for the library's list of streams in the order of service.

    Per packet the library iterates it twice, first to fill the packet and then to put the list
    into its next order, which it assigns; `__iter__`, `reordered` and `extend` are those steps.
    """

    def __init__(self, table: StreamTable, marks: Marks) -> None:
        self._table = table
        self._marks = marks
        #: Streams asked for the packet under way; None between the library's two iterations.
        self._asked: list[QuicStream] | None = None
        self._gone: list[int] = []
        #: The packet under way; None: unknown, and every marked stream is asked.
        self.builder: QuicPacketBuilder | None = None

    def append(self, stream: QuicStream) -> None:
        """A new stream."""
        assert stream.stream_id is not None
        writable, readable = not stream.sender.is_finished, not stream.receiver.is_finished
        stream.sender = SendHalf(stream.stream_id, writable, self._marks)
        stream.receiver = _Receiver(stream.stream_id, readable, self._marks)

    def __iter__(self) -> Iterator[QuicStream]:
        if self._asked is not None:
            return iter(())  # the new order: kept here, see `reordered`
        self._asked = []
        return self._fill(self._asked)

    def _fill(self, asked: list[QuicStream]) -> Iterator[QuicStream]:
        """Marked streams in order, until the packet or the flight is full."""
        builder = self.builder
        # Nothing is marked while a packet is filled.
        for stream_id in self._marks.ready:
            if builder is not None and builder.remaining_flight_space < FULL:
                return
            stream = self._table.get(stream_id)
            if stream is None:
                self._gone.append(stream_id)
            else:
                asked.append(stream)
                yield stream

    def reordered(self) -> None:
        """The packet is filled: those that were asked go to the end, or out of the queue."""
        ready = self._marks.ready
        for stream in self._asked or ():
            assert stream.stream_id is not None
            ready.pop(stream.stream_id, None)
            if _has_more(stream):
                ready[stream.stream_id] = None
        for stream_id in self._gone:
            ready.pop(stream_id, None)
        self._gone.clear()
        self._asked = None

    def extend(self, streams: Iterable[QuicStream]) -> None:
        """Those that were served: `reordered` has put them where they belong."""


def _has_more(stream: QuicStream) -> bool:
    """True when asking again may yield a frame before anything else happens to the stream."""
    if stream.is_finished:
        return False
    sender = stream.sender
    if sender.reset_pending or stream.receiver.stop_pending:
        return True
    if sender.buffer_is_empty:
        return False
    # Without credit it is marked again by the frame that brings some.
    assert isinstance(sender, SendHalf)
    return not sender.has_pending or sender.next_offset < stream.max_stream_data_remote
