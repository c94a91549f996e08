"""Floods of small frames: a call of `receive` looks at so many of them, the next at the rest."""

from __future__ import annotations

from tests.wire.yamux.peer import DATA, RST, SYN, WINDOW, Frame
from tests.wire.yamux.rig import Ours
from wire.yamux.events import DataReceived, Event, StreamOpened
from wire.yamux.limits import Limits

TURN = Limits().frames_per_turn


def _turns(ours: Ours, data: bytes) -> list[list[Event]]:
    turns = [ours.session.receive(data, ours.now)]
    while ours.session.more:
        turns.append(ours.session.receive(b"", ours.now))
    return turns


def test_streams_that_begin_and_end_are_looked_at_in_turns_and_in_order() -> None:
    ours = Ours(client=False)
    ids = range(1, 2 * 1000, 2)
    flood = b"".join(
        Frame(WINDOW, SYN, each).encode() + Frame(WINDOW, RST, each).encode() for each in ids
    )
    turns = _turns(ours, flood)
    assert len(turns) == 2 * len(ids) // TURN + 1
    assert all(len(events) <= TURN for events in turns)
    opened = [one.stream_id for turn in turns for one in turn if isinstance(one, StreamOpened)]
    assert [each & 0xFFFF_FFFF for each in opened] == list(ids)


def _data(events: list[Event]) -> bytes:
    return b"".join(one.data for one in events if isinstance(one, DataReceived))


def test_bytes_that_come_while_others_wait_stay_behind_them() -> None:
    ours = Ours(client=False)
    crumbs = [bytes([n % 251]) for n in range(2 * TURN)]
    frames = [Frame(DATA, SYN if not n else 0, 1, payload=one) for n, one in enumerate(crumbs)]
    data = b"".join(frame.encode() for frame in frames)
    first, rest = data[:-7], data[-7:]
    events = ours.session.receive(first, ours.now)
    assert len(_data(events)) < len(crumbs)  # it looks at the others when it is called again
    for turn in _turns(ours, rest):
        events += turn
    got = [one.data for one in events if isinstance(one, DataReceived)]
    assert _data(events) == b"".join(crumbs)
    assert len(got) <= 4  # crumbs come together


def test_large_frames_are_one_turn() -> None:
    ours = Ours(client=False)
    ours.feed(Frame(WINDOW, SYN, 1))
    payload = bytes(32 * 1024)
    data = b"".join(Frame(DATA, 0, 1, payload=payload).encode() for _ in range(8))
    assert len(_turns(ours, data)) == 1
    assert len(ours.session.receive(b"", ours.now)) == 0
