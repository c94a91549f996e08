"""The replay ring, against the plain bytes it stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.transport.replay_ring import ReplayRing, RingBudget


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
