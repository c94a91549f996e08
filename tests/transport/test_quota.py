"""Counts and rates by key: nobody's share is everybody's, and nothing is left behind."""

from __future__ import annotations

import gc
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from actors.transport import quota
from actors.transport.quota import Quota, Rate, Ticket

keys = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.lists(st.tuples(keys, st.booleans()), max_size=120), st.integers(1, 12))
def test_no_bound_is_ever_passed(steps: list[tuple[tuple[str, str], bool]], total: int) -> None:
    """In all and of one identity; and of a tenant, whose others find something free."""
    refused: Counter[str] = Counter()
    one = Quota("things", total, 4, refused, share=0.75)
    held: list[tuple[tuple[str, str], Ticket]] = []
    for key, give_back in steps:
        if give_back and held:
            held.pop(0)[1].abort()
            continue
        before = sum(refused.values())
        ticket = one.take(*key)
        if ticket is None:
            assert sum(refused.values()) == before + 1
        else:
            held.append((key, ticket))
        assert one.used == len(held) <= total
        assert max(Counter(key for key, _ in held).values(), default=0) <= 4
    for _, ticket in held:
        ticket.abort()
        ticket.abort()
    assert one.used == 0
    assert one.take("new", "comer") is not None


def test_one_tenant_leaves_something_to_another() -> None:
    refused: Counter[str] = Counter()
    one = Quota("things", 100, 100, refused)
    greedy = [one.take("greedy", str(number)) for number in range(200)]
    assert sum(ticket is not None for ticket in greedy) == 90
    assert refused == {"things_tenant": 110}
    modest = [one.take("modest", "one") for _ in range(9)]
    assert all(modest)


def test_many_greedy_tenants_share() -> None:
    """Whoever comes last still gets something, however many came before."""
    one = Quota("things", 10_000, 10_000, Counter())
    held = []
    for tenant in range(3):
        while (ticket := one.take(str(tenant), "agent")) is not None:
            held.append(ticket)
    assert one.take("last", "agent") is not None


def test_a_ticket_that_nobody_keeps_is_given_back() -> None:
    one = Quota("things", 1, 1, Counter())
    one.take("a", "x")
    gc.collect()
    assert one.used == 0
    assert one.take("a", "x") is not None


def test_rates_of_identities_and_of_their_tenant() -> None:
    refused: Counter[str] = Counter()
    one = Rate("opens", 20.0, 10.0, refused)
    done = Counter(
        agent for agent in ("x", "y", "z") for _ in range(15) if one.take("a", agent, 100.0)
    )
    assert done == {"x": 10, "y": 10}
    assert refused == {"opens_identity": 15, "opens_tenant": 10}
    assert one.take("b", "w", 100.0)
    assert sum(one.take("a", "x", 101.5) for _ in range(15)) == 10


def test_what_is_remembered_is_bounded() -> None:
    one = Rate("opens", 1e6, 1.0, Counter())
    for number in range(quota.MAX_RATED + 10):
        assert one.take("a", str(number), 1.0)
    assert len(one._identities) == quota.MAX_RATED
    assert not one.take("a", str(quota.MAX_RATED), 1.0)
