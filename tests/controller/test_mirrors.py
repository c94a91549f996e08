"""What a link keeps of a controller: providers and rules, against plain models."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from actors.control.backend import ServiceRecord
from actors.control.policy.rule_mirror import RuleMirror, TooManyRules
from actors.control.registry.provider_cache import ProviderCache
from actors.control.remote.codec import audit_of, record_of, rule_of, tenant_of
from tests.controller.rig import allow
from wire.orp import control_pb2 as pb

NAME = ("acme", "web")


def row(agent: str, relay: str = "r1", *, region: str = "", endpoint: str = "h:1") -> ServiceRecord:
    return ServiceRecord("acme", "web", agent, relay, region, endpoint, "", 1)


def agents(rows: tuple[ServiceRecord, ...] | None) -> set[str] | None:
    return None if rows is None else {one.agent_uri for one in rows}


def resolved(cache: ProviderCache, *rows: ServiceRecord) -> None:
    cache.answered(NAME, cache.asking(NAME), rows)


def test_nothing_is_confirmed_without_a_watch() -> None:
    cache = ProviderCache(10)
    resolved(cache, row("u1"))
    assert cache.confirmed_rows(NAME) is None
    assert agents(cache.known_rows(NAME)) == {"u1"}
    cache.watch(True)
    assert cache.confirmed_rows(NAME) is None  # it may have changed before the watch began
    resolved(cache, row("u1"))
    assert agents(cache.confirmed_rows(NAME)) == {"u1"}
    cache.watch(False)
    assert cache.confirmed_rows(NAME) is None
    assert agents(cache.known_rows(NAME)) == {"u1"}


def test_an_answer_older_than_an_event_does_not_undo_it() -> None:
    cache = ProviderCache(10)
    cache.watch(True)
    ticket = cache.asking(NAME)
    cache.registered(row("u2"))
    cache.answered(NAME, ticket, (row("u1"),))
    assert cache.confirmed_rows(NAME) is None
    assert agents(cache.known_rows(NAME)) == {"u2"}


def test_an_answer_that_began_before_the_watch_is_not_confirmed() -> None:
    cache = ProviderCache(10)
    ticket = cache.asking(NAME)
    cache.watch(True)
    cache.answered(NAME, ticket, (row("u1"),))
    assert cache.confirmed_rows(NAME) is None


def test_an_agent_that_moves_is_at_one_relay() -> None:
    cache = ProviderCache(10)
    cache.watch(True)
    resolved(cache, row("u1", "r1", region="eu"), row("u2", "r2", region="us", endpoint="h:2"))
    cache.registered(row("u1", "r2", endpoint="h:2"))
    rows = cache.confirmed_rows(NAME)
    assert rows is not None
    assert {(one.agent_uri, one.relay_id, one.relay_region) for one in rows} == {
        ("u1", "r2", "us"),
        ("u2", "r2", "us"),
    }
    cache.deregistered(NAME, "u1", "r1")  # late news of the old place
    assert agents(cache.confirmed_rows(NAME)) == {"u1", "u2"}


def test_names_are_bounded_and_the_unused_go_first() -> None:
    cache = ProviderCache(3)
    cache.watch(True)
    for number in range(3):
        name = ("acme", f"s{number}")
        cache.answered(name, cache.asking(name), ())
    assert cache.confirmed_rows(("acme", "s0")) == ()
    cache.registered(ServiceRecord("acme", "s3", "u", "r1", "", "h:1", "", 1))
    assert len(cache) == 3
    assert cache.evicted == 1
    assert cache.confirmed_rows(("acme", "s1")) is None
    assert cache.confirmed_rows(("acme", "s0")) == ()


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.sampled_from("abc"), st.sampled_from(("r1", "r2"))),
        st.tuples(st.just("down"), st.sampled_from("abc"), st.sampled_from(("r1", "r2"))),
        st.tuples(st.just("resolve"), st.just(""), st.just("")),
        st.tuples(st.just("watch"), st.sampled_from(("on", "off")), st.just("")),
    ),
    max_size=40,
)


@given(EVENTS)
def test_what_is_confirmed_is_what_the_controller_has(events: list[tuple[str, str, str]]) -> None:
    cache = ProviderCache(10)
    truth: dict[str, str] = {}  # agent: relay, as the controller keeps it
    watching = False
    for kind, what, relay in events:
        if kind == "up":
            truth[what] = relay
            if watching:
                cache.registered(row(what, relay))
        elif kind == "down":
            if truth.get(what) == relay:
                del truth[what]
                if watching:
                    cache.deregistered(NAME, what, relay)
        elif kind == "resolve":
            resolved(cache, *(row(agent, place) for agent, place in truth.items()))
        else:
            watching = what == "on"
            cache.watch(watching)
        confirmed = cache.confirmed_rows(NAME)
        if confirmed is not None:
            assert {one.agent_uri: one.relay_id for one in confirmed} == truth


def test_a_snapshot_is_taken_whole_or_not_at_all() -> None:
    mirror = RuleMirror(("acme", "b"), 10)
    assert set(mirror.missing) == {"acme", "b"}
    mirror.begin("acme")
    assert not mirror.added("acme", allow("old"))
    assert mirror.rules() == ()
    assert mirror.complete("acme")
    assert set(mirror.missing) == {"b"}
    mirror.begin("acme")
    mirror.added("acme", allow("half"))
    mirror.end("acme")
    assert [rule.id for rule in mirror.rules()] == ["old"]
    mirror.begin("acme")
    mirror.added("acme", allow("new"))
    assert [rule.id for rule in mirror.rules()] == ["old"]
    assert mirror.complete("acme")
    assert [rule.id for rule in mirror.rules()] == ["new"]
    mirror.begin("acme")
    mirror.added("acme", allow("new"))
    assert not mirror.complete("acme")  # nothing changed


def test_too_many_rules_leave_those_in_force() -> None:
    mirror = RuleMirror(("a", "b"), 3)
    for name in ("a", "b"):
        mirror.begin(name)
        mirror.added(name, allow(f"{name}1"))
        mirror.complete(name)
    mirror.added("a", allow("a2"))
    with pytest.raises(TooManyRules):
        mirror.added("b", allow("b2"))
    mirror.begin("b")
    for number in range(3):
        mirror.added("b", allow(f"n{number}"))
    with pytest.raises(TooManyRules):
        mirror.complete("b")
    assert [rule.id for rule in mirror.rules()] == ["a1", "a2", "b1"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_changes_keep_the_order_of_a_dictionary(changes: list[tuple[bool, int]]) -> None:
    mirror = RuleMirror(("",), 100)
    mirror.begin("")
    mirror.complete("")
    model: dict[str, Any] = {}
    for add, number in changes:
        rule = allow(f"r{number}")
        if add:
            assert mirror.added("", rule) == (rule.id not in model)
            model[rule.id] = rule
        else:
            assert mirror.removed("", rule.id) == (model.pop(rule.id, None) is not None)
    assert mirror.rules() == tuple(model.values())


@given(st.binary(max_size=200))
def test_whatever_a_controller_sends_is_read_or_refused_by_protobuf(data: bytes) -> None:
    for message, read in (
        (pb.PolicyRule, rule_of),
        (pb.AuditEvent, audit_of),
        (pb.WatchEvent, tenant_of),
        (pb.Provider, lambda provider: record_of(provider, "t", "n", "")),
    ):
        try:
            parsed: Any = message.FromString(data)
        except DecodeError:
            continue
        read(parsed)
