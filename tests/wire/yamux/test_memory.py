"""What a session may hold, and who pays when it is more."""

from __future__ import annotations

import tracemalloc

from tests.wire.yamux.peer import DATA, FIN, INITIAL, RST, SYN, WINDOW, Frame
from tests.wire.yamux.rig import Ours
from tests.wire.yamux.test_races import opened
from tests.wire.yamux.test_session import bytes_of
from wire.yamux.events import DataReceived, StreamReset
from wire.yamux.limits import Limits


def test_what_all_streams_hold_is_bounded_and_hogs_pay() -> None:
    limits = Limits(window=INITIAL, max_unconsumed=8 * INITIAL)
    ours = Ours(client=False, limits=limits, eager=False)
    ids = [1 + 2 * n for n in range(20)]
    for stream_id in ids:
        ours.feed(Frame(WINDOW, SYN, stream_id))
        ours.session.accept(stream_id)
    modest = ids[-1]
    ours.feed(Frame(DATA, 0, modest, payload=bytes(1000)))
    for stream_id in ids[:-1]:
        ours.feed(Frame(DATA, 0, stream_id, payload=bytes(INITIAL)))
    gone = {event.stream_id for event in ours.events if isinstance(event, StreamReset)}
    assert len(gone) == ours.session.overruns == 12
    assert modest not in gone
    ours.feed(Frame(DATA, 0, modest, payload=b"still heard"))
    assert ours.events[-1] == DataReceived(modest, b"still heard")
    resets = {frame.stream_id for frame in ours.frames() if frame.flags & RST}
    assert resets == gone
    # Nobody is reset for what was consumed.
    for stream_id in set(ids) - gone - {modest}:
        ours.session.consume(stream_id, INITIAL)
    assert ours.session.unconsumed == 1000 + len(b"still heard")


def test_what_streams_hold_that_are_over_counts_until_it_is_read() -> None:
    limits = Limits(window=INITIAL, max_unconsumed=4 * INITIAL, max_inbound=50)
    ours = Ours(client=False, limits=limits, eager=False)
    ids = range(1, 81, 2)
    held = 0
    for stream_id in ids:
        ours.feed(Frame(WINDOW, SYN, stream_id))
        ours.session.accept(stream_id)
        ours.session.finish(stream_id)
    ours.frames()
    for stream_id in ids:
        before = ours.session.overruns
        ours.feed(Frame(DATA, FIN, stream_id, payload=bytes(INITIAL // 2)))
        held += INITIAL // 2 if ours.session.overruns == before else 0
    assert ours.session.streams == 0
    assert held == ours.session.unconsumed == limits.max_unconsumed * 5 // 4
    # While so much is held, nobody may bring more.
    ours.frames()
    ours.feed(Frame(DATA, SYN, 101, payload=b"x"))
    assert Frame(WINDOW, RST, 101) in ours.frames()
    assert ours.session.unconsumed == held
    ours.session.consume(1, 1000)
    assert ours.session.unconsumed == held - 1000
    ours.session.consume(1, INITIAL)
    ours.session.discard(3, ours.now)
    assert ours.session.unconsumed == held - INITIAL


def test_an_id_whose_bytes_wait_may_be_another_streams() -> None:
    ours = Ours(client=False, limits=Limits(max_inbound=2), eager=False)
    ours.feed(Frame(DATA, SYN | FIN, 1, payload=b"first"))
    ours.session.finish(1)
    ours.frames()
    ours.feed(Frame(DATA, SYN, 1, payload=b"second"))
    again = ours.events[-1]
    assert isinstance(again, DataReceived)
    assert again.stream_id & 0xFFFF_FFFF == 1 != again.stream_id
    assert ours.session.unconsumed == 11
    ours.session.consume(1, 5)
    assert ours.session.unconsumed == 6
    ours.session.write(1, b"to nobody")
    assert all(frame.kind != DATA for frame in ours.frames())
    ours.session.consume(again.stream_id, 6)
    assert ours.session.unconsumed == 0


def test_large_windows_leave_most_of_the_memory_to_the_first_ones() -> None:
    limits = Limits(window=1 << 20, max_unconsumed=16 << 20)
    ours = Ours(client=True, limits=limits)
    ids = [ours.session.open() for _ in range(6)]
    deltas = [frame.length for frame in ours.frames()]
    assert deltas == [(1 << 20) - INITIAL] * 2 + [0] * 4
    ours.session.reset(ids[0] or 0)
    ours.session.open()
    assert ours.frames()[-1].length == (1 << 20) - INITIAL


def test_whatever_448_streams_send_is_held() -> None:
    ours = Ours(client=False, eager=False)
    for n in range(448):
        ours.feed(Frame(WINDOW, SYN, 2 * n + 1))
        ours.session.accept(2 * n + 1)
    data = bytes_of(65_536)
    granted = [INITIAL + frame.length for frame in ours.frames()]
    for n, window in enumerate(granted):
        for _ in range(window // len(data)):
            ours.feed(Frame(DATA, 0, 2 * n + 1, payload=data))
    assert ours.session.overruns == 0
    assert ours.session.unconsumed == sum(granted) > 448 * INITIAL


def test_written_crumbs_cost_no_more_than_bytes() -> None:
    ours = Ours(client=True)
    stream_id = opened(ours)
    ours.frames()
    data = bytes_of(65_536)
    tracemalloc.start()
    try:
        for start in range(65_536):
            ours.session.write(stream_id, data[start : start + 1])
        assert tracemalloc.get_traced_memory()[0] < 3 * 65_536
    finally:
        tracemalloc.stop()
    sent = b"".join(frame.payload for frame in ours.frames())
    assert sent == data
