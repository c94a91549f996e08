"""A stream's sending half that keeps what it was given instead of copying it.

The library (1.7) copies every write into one growing buffer per stream. A relay that holds a
window's worth for each of many streams then moves that window every time the buffer grows, and
holds every byte twice, here and in the replay ring: 16 streams cost an eighth more CPU than one.
Here the chunks themselves wait, in order, until they are acknowledged; a frame is a slice of one,
or two slices joined.

Ranges are needed only for what was lost: new bytes are always those behind `highest_offset`.

Uses the library's private parts; `tests/transport/test_aioquic_shape.py` fails when they change.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Final, cast

from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStreamSender

from actors.transport.quic.aioquic_engine.marks import Marks

#: Writes that wait and have at most this many bytes together become one chunk, so that crumbs cost
#: no more than a sixth of their bytes in addition.
CRUMB: Final = 512
#: Stands for the queues of an idle stream: two empty deques would be more than a kilobyte. What is
#: done with an empty queue works on a tuple, and a stray append fails.
NOTHING: Final = cast("deque[bytes]", ())
#: Likewise for its ranges; nobody adds to it.
NO_RANGES: Final = RangeSet()


class SendHalf(QuicStreamSender):
    """A stream's sending half that keeps what it was given instead of copying it.

    It also tells `marks` when it has something to repeat, less to keep, or is finished. Holds what
    is not acknowledged, and of the oldest chunk also what is; `Stream.room` bounds it.
    """

    def __init__(self, stream_id: int, writable: bool, marks: Marks) -> None:
        super().__init__(stream_id, writable)
        self._pending = self._acked = NO_RANGES
        self._id = stream_id
        self._marks = marks
        #: Chunks of which every byte was sent, consecutive; the first begins at `_sent_start`.
        self._sent: deque[bytes] = NOTHING
        self._sent_start = 0
        #: The chunk behind them, and how much of it was sent.
        self._current = b""
        self._current_sent = 0
        #: Those behind that.
        self._unsent: deque[bytes] = NOTHING
        #: `_pending` is not empty. Unlike the library's it has lost ranges only.
        self._lost = False
        #: `_acked` is not empty: something behind `_buffer_start` is acknowledged.
        self._gaps = False

    @property
    def next_offset(self) -> int:
        """See the library: where the next frame begins."""
        return self._pending[0].start if self._lost else self.highest_offset

    @property
    def has_pending(self) -> bool:
        """True when there are bytes to send for the first time, or again."""
        return self.highest_offset < self._buffer_stop or self._lost

    def write(self, data: bytes | bytearray | memoryview, end_stream: bool = False) -> None:
        """See the library; `bytes` are kept as they are."""
        if self._buffer_fin is not None:
            raise RuntimeError("Cannot send data after FIN")
        if self._reset_error_code is not None:
            raise RuntimeError("Cannot send data after the stream was reset")
        size = len(data)
        if size:
            self.buffer_is_empty = False
            self._buffer_stop += size
            chunk = data if type(data) is bytes else bytes(data)
            unsent = self._unsent
            if not unsent:
                self._unsent = deque((chunk,))
            elif size < CRUMB and len(unsent[-1]) + size <= CRUMB:
                unsent[-1] += chunk
            else:
                unsent.append(chunk)
        if end_stream:
            self.buffer_is_empty = False
            self._buffer_fin = self._buffer_stop
            self._pending_eof = True

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        """See the library: the next frame, or None when there is nothing or no room."""
        assert self._reset_error_code is None, "cannot call get_frame() after reset()"
        if max_size < 0:
            return None
        again = self._lost
        if again:
            lost = self._pending[0]
            start, stop = lost.start, lost.stop
        else:
            start, stop = self.highest_offset, self._buffer_stop
            if start == stop:
                if self._pending_eof:
                    self._pending_eof = False
                    return QuicStreamFrame(fin=True, offset=stop)
                self.buffer_is_empty = True
                return None
        if stop > start + max_size:
            stop = start + max_size
        if max_offset is not None and stop > max_offset:
            stop = max_offset
        if stop <= start:
            return None
        if again:
            data = self._copy(start, stop)
            self._pending.subtract(start, stop)
            if not len(self._pending):
                self._lost = False
                self._pending = NO_RANGES
        else:
            data = self._take(stop - start)
            self.highest_offset = stop
        end = stop == self._buffer_fin
        if end:
            self._pending_eof = False
        return QuicStreamFrame(data, end, start)

    def _take(self, size: int) -> bytes:
        """The next `size` bytes that were not sent yet."""
        chunk, begin = self._current, self._current_sent
        end = begin + size
        if end < len(chunk):
            self._current_sent = end
            return chunk[begin:end]
        parts = []
        sent, unsent = self._sent, self._unsent
        if not sent:
            sent = self._sent = deque()
        if chunk:
            parts.append(chunk[begin:])
            sent.append(chunk)
            size -= len(chunk) - begin
        while size:
            chunk = unsent.popleft()
            have = len(chunk)
            if have > size:
                parts.append(chunk[:size])
                break
            parts.append(chunk)
            sent.append(chunk)
            size -= have
        if not unsent:
            self._unsent = NOTHING
        self._current = chunk if size else b""
        self._current_sent = size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _copy(self, start: int, stop: int) -> bytes:
        """Bytes that were sent before; `start` is not acknowledged."""
        parts = []
        begin = self._sent_start
        for chunk in chain(self._sent, (self._current,)):
            end = begin + len(chunk)
            if end > start:
                parts.append(chunk[max(0, start - begin) : stop - begin])
                if end >= stop:
                    break
            begin = end
        return b"".join(parts)

    def on_data_delivery(
        self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool
    ) -> None:
        """See the library: the fate of a STREAM frame."""
        assert not fin or stop == self._buffer_fin, "a FIN that is not the end"
        marks = self._marks
        marks.acknowledged[self._id] = None
        if self._reset_error_code is not None:
            return
        if delivery is QuicDeliveryState.ACKED:
            if stop > start:
                self._acknowledged(start, stop)
            if fin:
                self._acked_fin = True
            if self._acked_fin and self._buffer_start == self._buffer_fin:
                self.is_finished = True
                marks.finished[self._id] = None
                marks.ready[self._id] = None
            return
        self.buffer_is_empty = False
        if stop > start:
            if not self._lost:
                self._lost = True
                self._pending = RangeSet()
            self._pending.add(start, stop)
        if fin:
            self._pending_eof = True
        marks.ready[self._id] = None

    def _acknowledged(self, start: int, stop: int) -> None:
        if start != self._buffer_start or self._gaps:
            if not self._gaps:
                self._gaps = True
                self._acked = RangeSet()
            self._acked.add(start, stop)
            if self._acked[0].start != self._buffer_start:
                return
            stop = self._acked.shift().stop
            if not len(self._acked):
                self._gaps = False
                self._acked = NO_RANGES
        self._buffer_start = stop
        sent, begin = self._sent, self._sent_start
        while sent and (end := begin + len(sent[0])) <= stop:
            sent.popleft()
            begin = end
        if not sent:
            self._sent = NOTHING
        self._sent_start = begin

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        """See the library: the fate of a RESET_STREAM frame."""
        super().on_reset_delivery(delivery)
        self._marks.ready[self._id] = None
        if self.is_finished:
            self._marks.finished[self._id] = None
