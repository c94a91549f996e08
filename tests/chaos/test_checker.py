"""The checks can fail: histories in which one invariant is broken on purpose."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tools.chaos import checker
from tools.chaos.groups import Tree
from tools.chaos.history import Action, History, Overfull


def _row(path: str, incarnation: int = 1, **more: object) -> dict[str, object]:
    base: dict[str, object] = {"path": path, "incarnation": incarnation, "state": "running"}
    return {**base, "restart": "permanent", "strategy": "", **more}


def _tree(registry: int = 3, *, state: str = "running") -> Tree:
    return Tree.of(
        [
            _row("/", strategy="one_for_one", restart="temporary"),
            _row("/control", 2, strategy="rest_for_one"),
            _row("/control/store", 2),
            _row("/control/registry", registry, state=state),
            _row("/control/policy", 4),
            _row("/edge", 5, strategy="dynamic"),
            _row("/edge/one", 6, restart="temporary"),
        ]
    )


def _event(kind: str, path: str, /, at: float = 100.0, **fields: object) -> Mapping[str, object]:
    return {"kind": kind, "path": path, "incarnation": 1, "at": at, "fields": fields}


def _killed(path: str, at: float = 100.0) -> Action:
    return Action(at, "kill", path, 1, frozenset(_tree().group(path)), done=True)


def test_groups_follow_the_strategy() -> None:
    tree = _tree()
    assert tree.group("/control/store") == {
        "/control/store",
        "/control/registry",
        "/control/policy",
    }
    assert tree.group("/control/policy") == {"/control/policy"}
    assert "/edge/one" not in tree.permanent()


def test_a_second_exit_of_one_incarnation_is_seen() -> None:
    event = _event("exited", "/control/store")
    assert not checker.exits_are_unique(History(events=[event]))
    assert checker.exits_are_unique(History(events=[event, event]))


def test_an_exit_outside_every_group_is_seen() -> None:
    crash = _event("exited", "/control/store", kind="crash", reason="crash(X)")
    near = History(events=[crash], actions=[_killed("/control/store")])
    elsewhere = History(events=[crash], actions=[_killed("/control/policy")])
    long_ago = History(events=[crash], actions=[_killed("/control/store", at=10.0)])
    assert not checker.exits_are_explained(near)
    assert checker.exits_are_explained(elsewhere)
    assert checker.exits_are_explained(long_ago)


def test_a_bystander_with_a_new_incarnation_is_seen() -> None:
    after = _tree(registry=9)
    assert not checker.bystanders_live(_tree(), after, [_killed("/control/store")])
    assert checker.bystanders_live(_tree(), after, [_killed("/control/policy")])


def test_a_permanent_actor_that_stays_away_is_seen() -> None:
    assert not checker.permanent_came_back(_tree(), _tree())
    assert checker.permanent_came_back(_tree(), _tree(state="restarting"))


def test_too_many_restarts_in_a_window_are_seen() -> None:
    events = [
        _event("exited", "/control/store", at, supervisor="/control", decision="restart")
        for at in (1.0, 2.0, 3.0)
    ]
    assert not checker.windows_hold(History(events=events), {"/control": (3, 30.0)})
    assert checker.windows_hold(History(events=events), {"/control": (2, 30.0)})


def test_leaks_and_unowned_exceptions_are_seen() -> None:
    before: dict[str, object] = {"tasks": 10, "descriptors": 20, "rss_bytes": 1 << 26}
    assert not checker.back_to_baseline(before, dict(before))
    assert checker.back_to_baseline(before, {**before, "tasks": 20})
    assert checker.back_to_baseline(before, {**before, "descriptors": 30})
    assert checker.nothing_unowned({"undead": 0}, {"undead": 1})


def test_what_actors_own_must_be_given_back() -> None:
    before: dict[str, object] = {"resources": {"stream": 2}}
    assert not checker.back_to_baseline(before, {"resources": {"stream": 2}})
    assert checker.back_to_baseline(before, {"resources": {"stream": 3}})
    assert checker.back_to_baseline(before, {"resources": {"stream": 2, "socket": 1}})


@pytest.mark.parametrize("key", sorted(checker.COUNTED))
def test_every_counted_figure_is_compared(key: str) -> None:
    assert not checker.back_to_baseline({key: 10}, {key: 10 + checker.COUNTED[key]})
    assert checker.back_to_baseline({key: 10}, {key: 11 + checker.COUNTED[key]})


def test_memory_beyond_its_tolerance_is_seen() -> None:
    before: dict[str, object] = {"rss_bytes": 100 << 20}
    within: dict[str, object] = {"rss_bytes": (100 << 20) + checker.MEMORY_SLACK_BYTES}
    beyond: dict[str, object] = {"rss_bytes": (101 << 20) + checker.MEMORY_SLACK_BYTES}
    assert not checker.back_to_baseline(before, within)
    assert checker.back_to_baseline(before, beyond)


def test_a_mailbox_above_its_bound_is_seen() -> None:
    assert not checker.mailboxes_are_bounded(History())
    assert checker.mailboxes_are_bounded(History(overfull=[Overfull(1.0, "/edge", 65, 64)]))


def test_an_escalation_nobody_paid_for_is_seen() -> None:
    deaths = [
        _event("exited", "/control/store", at, supervisor="/control") for at in (1.0, 2.0, 3.0)
    ]
    gave_up = _event("escalated", "/control", 3.0)
    history = History(events=[*deaths, gave_up])
    assert not checker.escalations_are_paid_for(history, {"/control": (2, 30.0)})
    assert checker.escalations_are_paid_for(history, {"/control": (3, 30.0)})
    assert checker.escalations_are_paid_for(history, {"/control": (2, 1.5)})


def test_a_child_started_before_what_it_depends_on_is_seen() -> None:
    def events(*steps: str) -> History:
        kinds = {"-": "exited", "+": "started"}
        return History(events=[_event(kinds[s[0]], f"/control/{s[1:]}") for s in steps])

    whole = ("-store", "-policy", "-registry")
    assert not checker.order_holds(events(*whole, "+store", "+registry", "+policy"), _tree())
    assert checker.order_holds(events(*whole, "+store", "+policy", "+registry"), _tree())
    # A dependent that runs on over the restart of what it depends on.
    assert checker.order_holds(events("-store", "+store"), _tree())
