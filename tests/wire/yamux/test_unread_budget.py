"""Unread bytes of one session and of many: credit is withheld, and given when there is room."""

from __future__ import annotations

from tests.wire.yamux.peer import DATA, FIN, INITIAL, RST, SYN, WINDOW, Frame
from tests.wire.yamux.rig import Ours
from wire.yamux.limits import NARROW_WINDOW, Limits
from wire.yamux.unread_budget import UnreadBudget

KIB = 1024


def _sends(ours: Ours, stream_id: int, count: int = INITIAL) -> None:
    """A stream of the peer with so many bytes; nobody reads them."""
    ours.feed(Frame(WINDOW, SYN, stream_id))
    ours.session.accept(stream_id)
    for _ in range(count // (32 * KIB)):
        ours.feed(Frame(DATA, 0, stream_id, payload=bytes(32 * KIB)))


def _credit(ours: Ours) -> dict[int, int]:
    """What was granted since the last call, by stream."""
    granted: dict[int, int] = {}
    for frame in ours.frames():
        if frame.kind == WINDOW and not frame.flags & RST and frame.length:
            granted[frame.stream_id] = granted.get(frame.stream_id, 0) + frame.length
    return granted


def test_a_session_that_holds_much_gets_no_credit_until_it_holds_less() -> None:
    limits = Limits(window=INITIAL, credit_until=2 * INITIAL)
    ours = Ours(client=False, limits=limits, eager=False)
    for stream_id in (1, 3, 5, 7):
        _sends(ours, stream_id)
    _credit(ours)
    ours.session.consume(1, INITIAL // 2)  # 3.5 windows are unread
    assert _credit(ours) == {}
    ours.session.consume(3, INITIAL // 2)  # 3
    assert _credit(ours) == {}
    ours.session.consume(5, INITIAL)  # 2: no more than may be
    assert _credit(ours) == {1: INITIAL // 2, 3: INITIAL // 2, 5: INITIAL}
    assert ours.session.overruns == 0


def test_a_stream_that_is_read_goes_on_while_others_are_not() -> None:
    limits = Limits(window=INITIAL, credit_until=INITIAL)
    ours = Ours(client=False, limits=limits, eager=False)
    for stream_id in (1, 3):
        _sends(ours, stream_id)
    _sends(ours, 5)
    ours.session.consume(5, INITIAL)
    _credit(ours)
    passed = 0
    for _ in range(50):
        ours.feed(Frame(DATA, 0, 5, payload=bytes(NARROW_WINDOW)))
        ours.session.consume(5, NARROW_WINDOW)
        passed += _credit(ours).get(5, 0)
    assert passed == 50 * NARROW_WINDOW
    assert ours.session.unconsumed == 2 * INITIAL


def test_what_ends_makes_room() -> None:
    limits = Limits(window=INITIAL, credit_until=INITIAL)
    ours = Ours(client=False, limits=limits, eager=False)
    for stream_id in (1, 3, 5):
        _sends(ours, stream_id)
    _credit(ours)
    ours.session.consume(1, INITIAL)
    assert _credit(ours) == {1: NARROW_WINDOW}
    ours.session.reset(3)
    assert _credit(ours) == {1: INITIAL - NARROW_WINDOW}


def test_one_session_fills_the_budget_and_others_notice_nothing() -> None:
    budget = UnreadBudget(16 * INITIAL)
    limits = Limits(window=INITIAL)
    hog = Ours(client=False, limits=limits, eager=False, budget=budget)
    other = Ours(client=False, limits=limits, eager=False, budget=budget)
    for n in range(40):
        _sends(hog, 2 * n + 1)
    _sends(other, 1, INITIAL // 2)
    assert budget.held == hog.session.unconsumed + other.session.unconsumed
    assert budget.held < 18 * INITIAL
    _credit(other)
    other.session.consume(1, INITIAL // 2)
    assert _credit(other) == {1: INITIAL // 2}
    _sends(other, 3)
    assert other.session.unconsumed == INITIAL
    hog.frames()
    hog.feed(Frame(WINDOW, SYN, 101))
    assert Frame(WINDOW, RST, 101) in hog.frames()


def test_credit_withheld_for_the_sake_of_others_comes_when_they_hold_less() -> None:
    told: list[str] = []
    budget = UnreadBudget(16 * INITIAL)
    limits = Limits(window=INITIAL)
    hog = Ours(client=False, limits=limits, eager=False, budget=budget)
    also = Ours(
        client=False,
        limits=limits,
        eager=False,
        budget=budget,
        on_relief=lambda: told.append("credit"),
    )
    for n in range(8):
        _sends(hog, 2 * n + 1)
    for n in range(6):
        _sends(also, 2 * n + 1)
    _credit(also)
    also.session.consume(1, INITIAL)
    assert _credit(also) == {1: NARROW_WINDOW}
    assert not told
    for n in range(8):
        hog.session.consume(2 * n + 1, INITIAL)
    assert told == ["credit"]
    assert _credit(also) == {1: INITIAL - NARROW_WINDOW}
    # A session that ends leaves nothing behind.
    for ours in (hog, also):
        ours.session.close(0)
    assert (budget.held, budget.holders) == (0, 0)


def test_streams_that_are_over_hold_their_share_of_the_budget() -> None:
    budget = UnreadBudget(16 * INITIAL)
    ours = Ours(client=False, limits=Limits(window=INITIAL), eager=False, budget=budget)
    _sends(ours, 1)
    ours.session.finish(1)
    ours.feed(Frame(DATA, FIN, 1))
    ours.frames()
    assert budget.held == INITIAL
    ours.session.consume(1, INITIAL)
    assert budget.held == 0
