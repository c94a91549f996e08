"""Receive windows of the native engine, against a model of a sender that hears only some of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.transport.quic.native_engine.flow import MAX_REPEATS, ReceiveFlow

WINDOW = 1000


def parse(frames: bytes) -> dict[int, int]:
    """Stream ids and limits."""
    found = {}
    at = 0

    def varint() -> int:
        nonlocal at
        size = 1 << (frames[at] >> 6)
        value = int.from_bytes(frames[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
        at += size
        return value

    while at < len(frames):
        assert frames[at] == 0x11
        at += 1
        stream_id = varint()
        found[stream_id] = varint()
    return found


def test_a_limit_moves_in_quarter_windows() -> None:
    flow = ReceiveFlow(WINDOW, 1 << 20)
    assert flow.received(4, 600)
    flow.consumed(4, 249)
    assert flow.frames(0.0, 0.01, 100) == b""
    flow.consumed(4, 1)
    assert parse(flow.frames(0.0, 0.01, 100)) == {4: 1250}
    assert flow.frames(0.0, 0.01, 100) == b""
    assert flow.received(4, 650)
    assert not flow.received(4, 1)


def test_a_sender_that_stands_at_an_old_limit_is_told_again() -> None:
    flow = ReceiveFlow(WINDOW, 1 << 20)
    assert flow.received(4, WINDOW)
    flow.consumed(4, WINDOW)
    assert parse(flow.frames(0.0, 0.0, 100)) == {4: 2000}
    now = 0.0
    for _ in range(MAX_REPEATS):
        when = flow.next_timer()
        assert when is not None
        assert when > now
        now = when
        flow.handle_timer(now)
        assert parse(flow.frames(now, 0.0, 100)) == {4: 2000}
    when = flow.next_timer()
    assert when is not None
    flow.handle_timer(when)
    assert not flow.due
    assert flow.received(4, 1)
    assert flow.next_timer() is None


def test_a_finished_stream_gets_no_more_limits() -> None:
    for finish in (ReceiveFlow.release_credit, ReceiveFlow.ended):
        flow = ReceiveFlow(WINDOW, 1 << 20)
        assert flow.received(4, WINDOW)
        finish(flow, 4)
        flow.consumed(4, WINDOW)
        assert not flow.due
        assert flow.next_timer() is None
        assert flow.unconsumed == 0


def test_many_limits_take_several_packets() -> None:
    flow = ReceiveFlow(WINDOW, 1 << 30)
    for stream_id in range(0, 4000, 4):
        assert flow.received(stream_id, 500)
        flow.consumed(stream_id, 500)
    seen: dict[int, int] = {}
    while flow.due:
        frames = flow.frames(0.0, 0.0, 200)
        assert len(frames) <= 200
        seen |= parse(frames)
    assert seen == dict.fromkeys(range(0, 4000, 4), 1500)


def test_the_connection_window_holds() -> None:
    flow = ReceiveFlow(WINDOW, 1600)
    assert flow.received(0, 1000)
    assert flow.received(4, 700)
    assert flow.held is False
    assert flow.room == 0
    assert flow.received(8, 1)
    assert ReceiveFlow.held.fget(flow) is True  # type: ignore[attr-defined]  # a property
    assert flow.room < 0
    flow.consumed(8, 1)
    flow.consumed(4, 99)
    assert ReceiveFlow.held.fget(flow) is True  # type: ignore[attr-defined]  # a property
    flow.consumed(4, 1)
    assert ReceiveFlow.held.fget(flow) is False  # type: ignore[attr-defined]  # a property
    assert flow.room == 100
    flow.forget(0)
    assert flow.unconsumed == 600


def test_readers_that_stall_with_a_whole_connection_window_stop_nobody_else() -> None:
    flow = ReceiveFlow(WINDOW, 4 * WINDOW)
    for stalled in range(0, 16, 4):
        assert flow.received(stalled, WINDOW)
    for _ in range(100):
        assert not flow.held
        count = flow.room + 1
        assert flow.received(16, count)
        flow.consumed(16, count)
        flow.frames(0.0, 0.0, 100)


def test_what_a_hold_lets_through_comes_in_batches() -> None:
    flow = ReceiveFlow(1 << 20, 1 << 20)
    assert flow.received(0, 1 << 20)
    assert flow.received(4, (1 << 16) + 1)
    rooms = []
    for _ in range(500):
        flow.consumed(0, 1000)
        if not flow.held:
            rooms.append(flow.room)
            assert flow.received(4, flow.room + 1)
    assert rooms
    assert min(rooms) >= 1 << 16


def test_a_sender_that_comes_to_an_old_limit_later_is_told_again() -> None:
    flow = ReceiveFlow(WINDOW, 1 << 20)
    assert flow.received(4, 600)
    flow.consumed(4, 600)
    assert parse(flow.frames(5.0, 0.0, 100)) == {4: 1600}
    assert flow.next_timer() is None
    assert flow.received(4, 400)
    when = flow.next_timer()
    assert when is not None
    assert when > 5.0
    flow.handle_timer(when)
    assert parse(flow.frames(when, 0.0, 100)) == {4: 1600}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 700), st.integers(0, 1500), st.booleans()), max_size=60))
def test_no_sender_stays_stopped_and_none_exceeds_its_window(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Announcements get lost at random; the repeats alone always bring the sender on."""
    flow = ReceiveFlow(WINDOW, 1 << 30)
    now, sent, consumed, known = 0.0, 0, 0, WINDOW
    for want, read, heard in steps:
        size = min(want, known - sent)
        if size:
            assert flow.received(0, size)
            sent += size
        read = min(read, sent - consumed)
        flow.consumed(0, read)
        consumed += read
        now += 0.01
        limits = parse(flow.frames(now, 0.0, 100))
        if heard and limits:
            known = max(known, limits[0])
        assert sent - consumed <= WINDOW
    # Now everything is read, and the sender wants to send for ever.
    flow.consumed(0, sent - consumed)
    consumed = sent
    for _ in range(20):
        limits = parse(flow.frames(now, 0.0, 100))
        known = max(known, limits.get(0, 0))
        size = known - sent
        if size:
            assert flow.received(0, size)
            sent += size
            flow.consumed(0, size)
        when = flow.next_timer()
        if when is not None:
            now = when
            flow.handle_timer(now)
    assert sent >= 5 * WINDOW
