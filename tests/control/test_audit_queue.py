"""Records that wait for the store: bounded, fair to tenants and callers, none lost silently."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from actors.control.audit_queue import AuditQueue
from actors.control.messages import AuditRecord


def record(n: int, tenant: str = "acme", caller: str = "u1") -> AuditRecord:
    return AuditRecord(n, tenant, caller, "web", "", True, "rule", str(n))


def test_a_flood_of_one_agent_costs_nobody_else_a_record() -> None:
    queue = AuditQueue(1000)
    kept = [record(n, "small", "quiet") for n in range(10)]
    mates = [record(n, "acme", "mate") for n in range(10)]
    lost: Counter[str] = Counter()
    for n in range(26_000):
        if n % 2600 == 0:  # before, during and at the end of it
            for one in (kept[n // 2600], mates[n // 2600]):
                assert queue.put(one) is None or len(queue) == 1000
        dropped = queue.put(record(n, "acme", "flood"))
        lost[dropped.caller if dropped else ""] += 1
    assert set(lost) == {"", "flood"}
    assert len(queue) == 1000
    everything = list(queue.drain())
    assert [one for one in everything if one.tenant == "small"] == kept
    assert [one for one in everything if one.caller == "mate"] == mates


def test_a_provider_does_not_pay_for_what_consumers_ask_about_it() -> None:
    queue = AuditQueue(100)
    own = [record(n, caller="provider") for n in range(10)]
    for one in own:
        queue.put(one)
    for n in range(5000):
        queue.put(record(n, caller="flood"))
        queue.put(AuditRecord(n, "acme", "provider", "flood", "", True, "", "", "flood"))
    left = list(queue.drain())
    assert [one for one in left if one.caller == "provider" and not one.asker] == own


def test_many_identities_of_one_tenant_cost_no_other_tenant_a_record() -> None:
    queue = AuditQueue(1000)
    victims = [record(n, f"tenant {n}") for n in range(100)]
    for n in range(5000):
        queue.put(record(n, "flood", f"u{n}"))
        if n % 50 == 0:
            lost = queue.put(victims[n // 50])
            assert lost is None or lost.tenant == "flood"
    left = list(queue.drain())
    assert [one for one in left if one.tenant != "flood"] == victims


def test_one_record_among_thousands_is_in_the_next_batch() -> None:
    queue = AuditQueue(10_000)
    for n in range(5000):
        queue.put(record(n, "flood", f"u{n % 300}"))
    queue.put(record(1, "small"))
    assert record(1, "small") in queue.batch(256)


def test_a_batch_stays_until_it_is_stored() -> None:
    queue = AuditQueue(10)
    for n in range(10):
        queue.put(record(n))
    batch = queue.batch(4)
    assert len(queue) == 10
    for n in range(50):
        dropped = queue.put(record(n, "other"))
        assert dropped is None or dropped not in batch
    assert queue.batch(4) == batch
    queue.stored()
    assert len(queue) == 6
    assert queue.put(record(99)) is None


@given(
    st.integers(1, 12),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 3), st.integers(0, 2)),
            st.sampled_from(["batch", "stored"]),
        ),
        max_size=80,
    ),
)
def test_nothing_appears_or_vanishes(most: int, steps: list[tuple[int, int] | str]) -> None:
    queue = AuditQueue(most)
    there: Counter[int] = Counter()
    for number, step in enumerate(steps):
        if step == "batch":
            assert len(queue.batch(3)) <= 3
        elif step == "stored":
            for done in queue.batch(3):
                there[done.at] -= 1
            queue.stored()
        else:
            one = record(number, f"t{step[0]}", f"u{step[1]}")
            there[number] += 1
            lost = queue.put(one)
            if lost is not None:
                there[lost.at] -= 1
        assert len(queue) == sum(there.values()) <= most
    assert sorted(one.at for one in queue.drain()) == sorted(there.elements())
