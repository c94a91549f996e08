"""The replay ring, against the plain bytes it stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.orp.replay import ReplayPositions, ReplayRing, RingBudget


def test_a_shared_budget_makes_rings_forget_earlier() -> None:
    budget = RingBudget(100)
    first, second = ReplayRing(80, budget), ReplayRing(80, budget)
    first.append(b"a" * 60)
    second.append(b"b" * 60)
    assert budget.used <= 100
    assert second.since(0) is None
    assert first.since(0) == [b"a" * 60]
    first.clear()
    assert budget.used == 0
    assert first.end == 60
    assert first.since(60) == []
    assert first.since(59) is None


@given(
    st.integers(1, 200),
    st.integers(0, 50),
    st.lists(st.one_of(st.binary(min_size=1, max_size=60), st.integers(0, 400)), max_size=40),
)
def test_what_it_replays_is_what_was_sent(limit: int, start: int, steps: list[bytes | int]) -> None:
    budget = RingBudget(1 << 20)
    ring = ReplayRing(limit, budget, start)
    sent = bytes(start)
    trimmed = 0
    for step in steps:
        if isinstance(step, bytes):
            ring.append(step)
            sent += step
        else:
            trimmed = max(trimmed, min(step, len(sent)))
            ring.trim(trimmed)
        assert ring.end == len(sent)
        assert budget.used == ring.end - ring.start <= limit
        for position in {ring.start, ring.end, (ring.start + ring.end) // 2}:
            pieces = ring.since(position)
            assert pieces is not None
            assert b"".join(bytes(piece) for piece in pieces) == sent[position:]
        if ring.start > start:
            assert ring.since(ring.start - 1) is None
        assert ring.since(ring.end + 1) is None


@given(
    ours=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    theirs=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    kept=st.integers(0, 60),
    told=st.booleans(),
)
def test_positions_fit_when_nothing_is_missing_on_either_side(
    ours: tuple[int, int], theirs: tuple[int, int], kept: int, told: bool
) -> None:
    sent, received = ours
    ring = ReplayRing(kept, RingBudget(1 << 20))
    for _ in range(sent):
        ring.append(b"x")
    here = ReplayPositions(ring, received)
    their_sent, their_received = theirs
    we_can_replay = sent - min(kept, sent) <= their_received <= sent
    they_can_replay = their_sent >= received if told else their_sent == received
    assert here.fits(their_sent, their_received, told=told) == (we_can_replay and they_can_replay)
    assert (ring.since(their_received) is not None) == we_can_replay


@given(words=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=12))
def test_what_was_confirmed_only_grows_and_never_beyond_what_was_sent(
    words: list[tuple[int, bool]],
) -> None:
    ring = ReplayRing(100, RingBudget(100))
    here = ReplayPositions(ring)
    for _ in range(10):
        ring.append(b"x")
    for position, ended in words:
        before = here.confirmed
        here.confirm(position, ended=ended)
        assert before <= here.confirmed <= here.sent
        assert ring.start == here.confirmed
    assert here.has_everything(fin=False) == any(position == 10 for position, _ in words)
    said = any(ended for _, ended in words)
    assert here.has_everything(fin=True) == (here.has_everything(fin=False) and said)
