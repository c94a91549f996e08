"""Two sessions of ours that do what comes to mind, cut anywhere; sessions that hear nonsense."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.yamux.peer import Frame
from tests.wire.yamux.rig import Ours
from wire.yamux.events import (
    DataReceived,
    FinReceived,
    SessionDead,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.limits import INITIAL_WINDOW, Limits

#: Small enough that a run comes to all of them.
TIGHT = Limits(
    window=INITIAL_WINDOW,
    max_unconsumed=4 * INITIAL_WINDOW,
    max_inbound=6,
    max_unaccepted=3,
    max_unacknowledged=3,
    max_unconfirmed=4,
    max_frame=1000,
    ping_interval=0.1,
    keepalive=1.0,
    ping_timeout=1e9,  # nobody is silent who is not asked to speak
    linger=1.0,
)

CALLS = ("open", "write", "finish", "reset", "discard", "cancel", "accept", "consume", "away")
OPERATIONS = st.tuples(
    st.integers(0, 1),
    st.sampled_from((*CALLS, "open", "write", "write", "consume", "move", "move", "move", "wait")),
    st.integers(0, 7),
    st.integers(0, 300_000),
)


class Side:
    """An owner of a session that knows what it wrote and heard, and checks what it is told."""

    def __init__(self, *, client: bool) -> None:
        self.ours = Ours(client=client, limits=TIGHT, eager=False)
        self.session = self.ours.session
        self.known: list[int] = []  # streams, in order
        self.writing: set[int] = set()
        self.held: dict[int, int] = {}
        self.over: set[int] = set()
        self.wire: deque[bytes] = deque()

    def note(self) -> None:
        for event in self.ours.events:
            assert not isinstance(event, SessionDead), event
            if isinstance(event, StreamOpened):
                assert event.stream_id not in self.known
                self.known.append(event.stream_id)
                self.writing.add(event.stream_id)
            elif isinstance(event, DataReceived):
                assert event.stream_id not in self.over
                assert event.data
                self.held[event.stream_id] = self.held.get(event.stream_id, 0) + len(event.data)
            elif isinstance(event, FinReceived):
                assert event.stream_id not in self.over
            elif isinstance(event, StreamReset):
                self.over.add(event.stream_id)
                self.held.pop(event.stream_id, None)
            elif isinstance(event, StreamFinished):
                self.over.add(event.stream_id)
        self.ours.events.clear()
        self.ours.received.clear()

    def do(self, operation: str, which: int, size: int) -> None:
        session, now = self.session, self.ours.now
        if operation == "open":
            opened = session.open()
            if opened is not None:
                self.known.append(opened)
                self.writing.add(opened)
        elif operation == "away" and size < 3000:
            session.go_away()
        elif operation == "wait":
            self.ours.now += size / 100_000
            self.ours.take(session.handle_timer(self.ours.now))
        elif operation == "move":
            data = self.ours.output(size)
            cut = 1 + size % 5000
            self.wire.extend(data[start : start + cut] for start in range(0, len(data), cut))
        elif self.known:
            stream_id = self.known[-1 - which % len(self.known)]
            if operation == "write" and stream_id in self.writing:
                session.write(stream_id, bytes(size % 70_000))
            elif operation in ("finish", "cancel"):
                getattr(session, operation)(stream_id)
                if operation == "finish":
                    self.writing.discard(stream_id)
            elif operation == "reset":
                session.reset(stream_id, which)
                self.held.pop(stream_id, None)
                self.writing.discard(stream_id)
                self.over.add(stream_id)
            elif operation == "discard":
                session.discard(stream_id, now)
                self.held.pop(stream_id, None)
            elif operation == "accept":
                session.accept(stream_id)
            elif operation == "consume":
                count = min(size, self.held.get(stream_id, 0))
                if count:
                    self.held[stream_id] -= count
                session.consume(stream_id, count)


@settings(max_examples=300)
@given(st.lists(OPERATIONS, max_size=120))
def test_two_of_ours_do_not_kill_each_other(
    operations: list[tuple[int, str, int, int]],
) -> None:
    sides = Side(client=True), Side(client=False)
    for who, operation, which, size in operations:
        mine, other = sides[who], sides[1 - who]
        mine.do(operation, which, size)
        mine.note()
        for _ in range(which + 1):
            if mine.wire:
                other.ours.feed(mine.wire.popleft())
                other.note()
        for side in sides:
            # What is in memory is what the owner was given, and never more than twice the budget.
            assert side.session.unconsumed <= 2 * TIGHT.max_unconsumed
            assert side.session.inbound <= TIGHT.max_inbound
    # In the end everybody takes what comes, and nothing is left.
    for _ in range(100):
        for mine, other in (sides, sides[::-1]):
            for stream_id in mine.known:
                mine.session.accept(stream_id)
                mine.session.finish(stream_id)
                mine.session.consume(stream_id, mine.held.pop(stream_id, 0))
            mine.wire.append(mine.ours.output())
            while mine.wire:
                other.ours.feed(mine.wire.popleft())
            mine.ours.now += 1.0
            mine.ours.take(mine.session.handle_timer(mine.ours.now))
            mine.note()
            other.note()
    assert [side.session.streams for side in sides] == [0, 0]
    assert [side.session.unconsumed for side in sides] == [0, 0]


FRAMES = st.builds(
    Frame,
    st.integers(0, 4),
    st.integers(0, 0xF) | st.integers(0, 0xFFFF),
    st.integers(0, 9) | st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 300_000) | st.integers(0, 0xFFFF_FFFF),
    st.binary(max_size=64),
)


@given(st.lists(FRAMES, max_size=30), st.integers(1, 40), st.booleans())
def test_random_frames_end_the_session_or_are_survived(
    frames: list[Frame], cut: int, client: bool
) -> None:
    ours = Ours(client=client)
    data = b"".join(frame.encode() for frame in frames)
    for start in range(0, len(data), cut):
        ours.feed(data[start : start + cut])
        ours.output()
        ours.now += 0.01
        ours.take(ours.session.handle_timer(ours.now))
    assert sum(isinstance(event, SessionDead) for event in ours.events) == ours.session.dead


@given(st.binary(max_size=400))
def test_random_bytes_end_the_session_or_are_survived(data: bytes) -> None:
    ours = Ours(client=False)
    ours.feed(data)
    ours.output()
