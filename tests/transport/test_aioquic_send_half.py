"""The sending half that keeps chunks: what is written, sent, lost and acknowledged, and when."""

from __future__ import annotations

import pytest
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStreamReceiver
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from actors.transport.quic.aioquic_engine.marks import Marks
from actors.transport.quic.aioquic_engine.send_half import CRUMB, NO_RANGES, SendHalf

STREAM = 4
sizes = st.one_of(st.integers(1, 8), st.integers(1, 3000))


def _bytes(start: int, size: int) -> bytes:
    """Every position of the stream has its byte."""
    return bytes((at * 7 + at // 251) & 0xFF for at in range(start, start + size))


class Delivery(RuleBasedStateMachine):
    """One stream between `SendHalf` and the library's receiver, over a network that loses."""

    frames: Bundle[QuicStreamFrame] = Bundle("frames")

    @initialize()
    def begin(self) -> None:
        self.marks = Marks()
        self.half = SendHalf(STREAM, True, self.marks)
        self.receiver = QuicStreamReceiver(STREAM, True)
        self.written = 0
        self.ended = False
        self.received = b""
        self.finished = False
        self.largest = 0

    @precondition(lambda self: not self.ended)
    @rule(size=sizes, kind=st.sampled_from([bytes, bytearray, memoryview]), end=st.booleans())
    def write(self, size: int, kind: type, end: bool) -> None:
        self.half.write(kind(_bytes(self.written, size)), end_stream=end)
        self.written += size
        self.largest = max(self.largest, size, CRUMB)
        self.ended = end

    @precondition(lambda self: not self.ended)
    @rule()
    def write_eof(self) -> None:
        self.half.write(b"", end_stream=True)
        self.ended = True

    @rule(target=frames, room=st.integers(-2, 2000), credit=st.integers(0, 5000))
    def send(self, room: int, credit: int) -> QuicStreamFrame:
        begins, highest = self.half.next_offset, self.half.highest_offset
        frame = self.half.get_frame(room, highest + credit)
        if frame is None:
            # Only for want of room or credit, or because there is nothing.
            assert (
                room <= 0
                or begins >= highest + credit
                or not self.half.has_pending
                or self.half.buffer_is_empty
            )
            return QuicStreamFrame(offset=-1)
        assert frame.offset == begins
        assert len(frame.data) <= room
        assert frame.data == _bytes(frame.offset, len(frame.data))
        assert frame.fin == (self.ended and frame.offset + len(frame.data) == self.written)
        return frame

    @rule(frame=consumes(frames))
    def arrive(self, frame: QuicStreamFrame) -> None:
        if frame.offset < 0:
            return
        event = self.receiver.handle_frame(frame)
        if event is not None:
            self.received += event.data
            self.finished = self.finished or event.end_stream
        self._deliver(QuicDeliveryState.ACKED, frame)

    @rule(frame=consumes(frames))
    def lose(self, frame: QuicStreamFrame) -> None:
        if frame.offset >= 0:
            self._deliver(QuicDeliveryState.LOST, frame)
            assert STREAM in self.marks.ready
            assert not self.half.buffer_is_empty

    def _deliver(self, fate: QuicDeliveryState, frame: QuicStreamFrame) -> None:
        self.marks.ready.clear()
        stop = frame.offset + len(frame.data)
        self.half.on_data_delivery(fate, frame.offset, stop, frame.fin)
        assert STREAM in self.marks.acknowledged

    @invariant()
    def what_arrived_is_what_was_written(self) -> None:
        assert self.received == _bytes(0, len(self.received))
        assert self.half._buffer_stop == self.written

    @invariant()
    def no_more_is_kept_than_is_owed(self) -> None:
        half = self.half
        kept = sum(map(len, [*half._sent, half._current, *half._unsent]))
        assert not len(NO_RANGES)
        assert half._buffer_stop - half._buffer_start <= kept
        assert kept < half._buffer_stop - half._buffer_start + max(self.largest, 1)

    def teardown(self) -> None:
        if not hasattr(self, "half"):
            return
        # A network that loses nothing any more brings everything, and then the half is empty.
        if not self.ended:
            self.write_eof()
        # What is still under way was lost.
        missing = self.half.highest_offset
        for start in range(self.half._buffer_start, missing):
            if not any(start in kept for kept in (*self.half._acked, *self.half._pending)):
                self.half.on_data_delivery(QuicDeliveryState.LOST, start, start + 1, False)
        if not self.half._acked_fin and not self.half._pending_eof:
            stop = self.written
            self.half.on_data_delivery(QuicDeliveryState.LOST, stop, stop, True)
        while (frame := self.half.get_frame(1000)) is not None:
            self.arrive(frame)
        assert self.received == _bytes(0, self.written)
        assert self.finished
        assert self.half.is_finished
        assert STREAM in self.marks.finished
        assert not self.half._sent
        assert not self.half._unsent


TestDelivery = Delivery.TestCase


@given(st.lists(st.integers(1, CRUMB), min_size=1, max_size=300))
def test_crumbs_that_wait_become_chunks(crumbs: list[int]) -> None:
    half = SendHalf(STREAM, True, Marks())
    for size in crumbs:
        half.write(bytes(size))
    assert len(half._unsent) <= 1 + 2 * sum(crumbs) // CRUMB


def test_a_chunk_that_fits_a_frame_is_not_copied() -> None:
    half = SendHalf(STREAM, True, Marks())
    chunk = bytes(1200)
    half.write(chunk)
    frame = half.get_frame(1200)
    assert frame is not None
    assert frame.data is chunk


def test_after_a_reset_nothing_is_written_and_the_fate_of_frames_does_not_matter() -> None:
    marks = Marks()
    half = SendHalf(STREAM, True, marks)
    half.write(b"abc")
    assert half.get_frame(100) is not None
    half.reset(7)
    with pytest.raises(RuntimeError):
        half.write(b"d")
    half.on_data_delivery(QuicDeliveryState.LOST, 0, 3, False)
    assert half.buffer_is_empty
    half.on_reset_delivery(QuicDeliveryState.LOST)
    assert half.reset_pending
    half.on_reset_delivery(QuicDeliveryState.ACKED)
    assert half.is_finished
    assert STREAM in marks.finished
