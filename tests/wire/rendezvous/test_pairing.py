"""Who serves whom: pools and events against a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.rendezvous.event import Waiting
from wire.rendezvous.pool import Pool, Queued

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["member", "user", "member_left", "user_left", "over", "wait"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_pool_serves_in_order_and_nobody_waits_beside_a_free_member(
    steps: list[tuple[str, int]],
) -> None:
    now = 0.0
    pool: Pool[str, str] = Pool(most_members=3, most_users=2, wait=10.0, grace=30.0, now=now)
    members: list[str] = []
    users: list[tuple[str, float]] = []
    pairs = 0
    for serial, (step, number) in enumerate(steps):
        if step == "member":
            name = f"m{serial}"
            came = pool.member_came(name)
            if users:
                assert came == users.pop(0)[0]
                pairs += 1
            elif len(members) >= 3:
                assert came is Queued.REFUSED
            else:
                assert came is Queued.WAITS
                members.append(name)
        elif step == "user":
            name = f"u{serial}"
            served = pool.user_came(name, now)
            if members:
                assert served == members.pop(0)
                pairs += 1
            elif len(users) >= 2:
                assert served is Queued.REFUSED
            else:
                assert served is Queued.WAITS
                users.append((name, now + 10.0))
        elif step == "member_left":
            gone = members.pop(number % len(members)) if members else "nobody"
            assert pool.member_left(gone, now) == (gone != "nobody")
        elif step == "user_left":
            left = users.pop(number % len(users))[0] if users else "nobody"
            assert pool.user_left(left) == (left != "nobody")
        elif step == "over" and pairs:
            pairs -= 1
            pool.pair_over(now)
        else:
            now += number * 3.0
            over = [name for name, until in users if until <= now]
            assert pool.expire(now) == over
            users = [(name, until) for name, until in users if until > now]
        assert (pool.members, pool.users) == (len(members), len(users))
        assert not (members and users)
        if members or pairs:
            assert not pool.gone(now + 1e9)


def test_a_pool_without_anybody_is_gone_after_its_grace() -> None:
    pool: Pool[str, str] = Pool(most_members=3, most_users=2, wait=10.0, grace=30.0, now=0.0)
    assert pool.member_came("m") is Queued.WAITS
    assert pool.next_timer() is None
    assert pool.user_came("u", 1.0) == "m"
    assert not pool.gone(1e9)
    pool.pair_over(50.0)
    assert pool.next_timer() == 80.0
    assert not pool.gone(79.0)
    assert pool.gone(80.0)
    # A user that waits keeps nobody alive, and a late member does.
    assert pool.user_came("v", 60.0) is Queued.WAITS
    assert pool.next_timer() == 70.0
    assert pool.member_came("late") == "v"
    assert not pool.gone(1e9)


def test_an_id_is_answered_once_and_in_time() -> None:
    waiting: Waiting[str] = Waiting(most=2, wait=10.0)
    assert waiting.user_came("A", "u1", 0.0)
    assert waiting.user_came("B", "u2", 5.0)
    assert not waiting.user_came("C", "u3", 5.0)
    with pytest.raises(KeyError):
        waiting.user_came("A", "again", 5.0)
    assert waiting.answered("A") == "u1"
    assert waiting.answered("A") is None
    assert waiting.next_timer() == 15.0
    assert waiting.expire(14.0) == []
    assert waiting.expire(15.0) == [("B", "u2")]
    assert waiting.answered("B") is None
    assert waiting.next_timer() is None
