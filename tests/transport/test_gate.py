"""Who waits at the gate, who is refused, and who gives way."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.transport.gate import NOBODY, Gate, Place, source_of


def entered(gate: Gate, source: str, now: float, gone: list[str], name: str = "") -> Place:
    place = gate.enter(source, now)
    assert place is not None
    place.give_way = lambda: gone.append(name or source)
    return place


def test_a_source_that_fills_its_share_is_refused_and_others_get_in() -> None:
    counters: Counter[str] = Counter()
    gate = Gate(10, 3, counters)
    gone: list[str] = []
    places = [entered(gate, "attacker", 0.0, gone) for _ in range(3)]
    assert gate.enter("attacker", 1.0) is None
    assert counters == {"refused_pending_per_source_limit": 1}
    entered(gate, "agent", 1.0, gone)
    assert not gone
    places[0].leave()
    places[0].leave()
    entered(gate, "attacker", 2.0, gone)
    assert len(gate) == 4


def test_the_longest_silent_gives_way_before_anybody_who_spoke() -> None:
    counters: Counter[str] = Counter()
    gate = Gate(4, 4, counters)
    gone: list[str] = []
    entered(gate, "a", 0.0, gone, "proved").proved()
    entered(gate, "a", 1.0, gone, "heard").heard()
    entered(gate, "b", 2.0, gone, "silent")
    entered(gate, "c", 3.0, gone, "younger")
    for number, expected in enumerate(("silent", "younger")):
        entered(gate, "d", 4.0 + number, gone, f"new{number}").heard()
        assert gone[-1] == expected
    entered(gate, "e", 9.0, gone, "last")
    assert gone[-1] == "heard"
    assert counters["gave_way"] == 3
    assert len(gate) == 4


def test_the_deadline_is_for_those_who_proved_nothing() -> None:
    gate = Gate(10, 10, counters := Counter())  # type: ignore[var-annotated]
    gone: list[str] = []
    entered(gate, "a", 0.0, gone, "proved").proved()
    entered(gate, "a", 1.0, gone, "heard").heard()
    entered(gate, "a", 2.0, gone, "silent")
    entered(gate, "a", 8.0, gone, "young")
    assert gate.dismiss_since(5.0) == 8.0
    assert sorted(gone) == ["heard", "silent"]
    assert counters == {"handshake_failed_timeout": 2}


def test_where_nobody_gives_way_newcomers_are_refused() -> None:
    gate = Gate(1, 1, counters := Counter(), yields=NOBODY)  # type: ignore[var-annotated]
    entered(gate, "a", 0.0, [])
    assert gate.enter("b", 0.0) is None
    assert counters == {"refused_pending_limit": 1}


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_source_is_an_address_or_the_network_of_a_host(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "heard", "proved", "leave", "late", "room"]),
            st.sampled_from("abc"),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_places_are_counted_right_whatever_happens(steps: list[tuple[str, str, int]]) -> None:
    gate = Gate(4, 2, Counter())
    live: list[Place] = []
    for now, (step, source, which) in enumerate(steps):
        if step == "enter":
            place = gate.enter(source, float(now))
            if place is not None:
                place.give_way = lambda place=place: live.remove(place)  # type: ignore[misc]
                live.append(place)
        elif step == "late":
            gate.dismiss_since(now - 5.0)
        elif step == "room":
            gate.make_room(1)
        elif live:
            place = live[which % len(live)]
            if step == "leave":
                live.remove(place)
            getattr(place, step)()
        assert len(gate) == len(live) <= 4
        assert all(place.taken for place in live)
        for name in "abc":
            held = sum(place.source == name for place in live)
            assert held <= 2
            assert bool(gate.refusal(name)) == (held == 2)
