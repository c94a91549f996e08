"""Policy evaluation: the sheet's globs, buckets and order, expiry, tenants, the cache."""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control.messages import P2PMode, RelayMode, combine_p2p
from actors.control.policy import match as policy_match
from actors.control.policy.match import NO_MATCH, RuleSet, glob_match
from actors.control.policy.rule import Effect, Rule

CALLER = "outrelay://acme/agent/00000000-0000-0000-0000-000000000002"
NOW = 1_000_000


def rule(rule_id: str, target: str = "*", effect: Effect = Effect.ALLOW, **more: object) -> Rule:
    made = Rule(rule_id, "acme", "*", target, effect=effect)
    return replace(made, **more)  # type: ignore[arg-type]  # field names and types of Rule


def decide(rules: RuleSet, target: str = "web", method: str = "", now_ms: int = NOW) -> str:
    decision = rules.decide("acme", CALLER, target, method, now_ms)
    return f"{'allow' if decision.allow else 'deny'} {decision.reason}"


@pytest.mark.parametrize(
    "pattern, text, matches",
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "anything", True),
        ("web", "web", True),
        ("web", "web2", False),
        ("web", "Web", False),
        ("web*", "web", True),
        ("web*", "web2", True),
        ("web*", "wea", False),
        ("*web", "myweb", True),
        ("*web", "webs", False),
        ("*we*b*", "a-we-b-c", True),
        ("*we*b*", "b-we", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*bc", "abc", False),
        ("a*b*c", "axbyc", True),
        ("a*b*c", "acb", False),
        ("a**c", "abc", True),
        ("a*b*b", "ab", False),
        ("a*b*b", "abb", True),
        ("a.c", "abc", False),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        ("a\n*", "a\nb", True),
        ("outrelay://acme/agent/*", CALLER, True),
        ("outrelay://other/agent/*", CALLER, False),
        ("*/agent/*-0002", CALLER, False),
        ("*/agent/*-*0002", CALLER, True),
    ],
)
def test_globs(pattern: str, text: str, *, matches: bool) -> None:
    assert glob_match(pattern, text) is matches


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_globs_are_what_the_regular_expression_says(pattern: str, text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL)
    assert glob_match(pattern, text) is (expected is not None)


def test_hostile_pattern_and_text_take_linear_time() -> None:
    began = time.thread_time()
    assert not glob_match("*a" * 500 + "b", "a" * 60_000)
    assert time.thread_time() - began < 1.0


def test_nothing_matches_nothing() -> None:
    assert decide(RuleSet(())) == f"deny {NO_MATCH}"
    assert decide(RuleSet([rule("a", "other")])) == f"deny {NO_MATCH}"


def test_the_first_of_a_bucket_wins_and_deny_has_no_priority() -> None:
    assert decide(RuleSet([rule("a"), rule("d", effect=Effect.DENY)])) == "allow a"
    assert decide(RuleSet([rule("d", effect=Effect.DENY), rule("a")])) == "deny d"


def test_an_exact_target_beats_a_wildcard_wherever_it_stands() -> None:
    rules = [rule("wild", "*", Effect.DENY), rule("wild2", "w*"), rule("exact", "web")]
    for order in (rules, rules[::-1]):
        assert decide(RuleSet(order)) == "allow exact"


def test_an_exact_rule_of_another_caller_falls_through_to_the_wildcards() -> None:
    exact = rule("exact", "web", Effect.DENY, caller="outrelay://acme/agent/nobody")
    assert decide(RuleSet([exact, rule("wild")])) == "allow wild"


def test_methods() -> None:
    rules = RuleSet([rule("get", method="get*"), rule("none", method="*x", effect=Effect.DENY)])
    assert decide(rules, method="getall") == "allow get"
    assert decide(rules, method="") == f"deny {NO_MATCH}"
    assert decide(rules, method="ax") == "deny none"
    assert decide(RuleSet([rule("all")]), method="whatever") == "allow all"


def test_expired_rules_are_skipped_from_their_very_millisecond_on() -> None:
    rules = [rule("soon", expires_ms=NOW + 10), rule("later", effect=Effect.DENY)]
    assert decide(RuleSet(rules), now_ms=NOW + 9) == "allow soon"
    assert decide(RuleSet(rules), now_ms=NOW + 10) == "deny later"


def test_unspecified_denies() -> None:
    assert decide(RuleSet([rule("odd", effect=Effect.UNSPECIFIED)])) == "deny odd"


def test_rules_of_one_tenant_do_not_touch_another() -> None:
    rules = RuleSet([rule("a"), replace(rule("b", effect=Effect.DENY), tenant="other")])
    assert rules.decide("acme", CALLER, "web", "", NOW).reason == "a"
    assert rules.decide("other", CALLER, "web", "", NOW).reason == "b"
    assert rules.decide("third", CALLER, "web", "", NOW).reason == NO_MATCH


def test_the_callee_check_needs_a_rule_of_its_own() -> None:
    rules = RuleSet([rule("service", "web")])
    callee = rules.decide("acme", "outrelay://acme/agent/provider", CALLER, "", NOW)
    assert not callee.allow
    both = RuleSet([rule("service", "web"), rule("agents", "outrelay://acme/agent/*")])
    assert both.decide("acme", "outrelay://acme/agent/provider", CALLER, "", NOW).allow


def test_modes_come_with_the_decision() -> None:
    forward = rule("f", p2p_mode=P2PMode.REQUIRED, relay_mode=RelayMode.FORWARD)
    decision = RuleSet([forward]).decide("acme", CALLER, "web", "", NOW)
    assert (decision.p2p_mode, decision.relay_mode) == (P2PMode.REQUIRED, RelayMode.FORWARD)


def test_combined_p2p_modes() -> None:
    allowed, forbidden, required = P2PMode.ALLOWED, P2PMode.FORBIDDEN, P2PMode.REQUIRED
    table = {
        (allowed, allowed): allowed,
        (allowed, forbidden): forbidden,
        (allowed, required): required,
        (forbidden, required): forbidden,
        (forbidden, forbidden): forbidden,
        (required, required): required,
    }
    for (one, two), expected in table.items():
        assert combine_p2p(one, two) is expected
        assert combine_p2p(two, one) is expected


def naive(rules: list[Rule], target: str, now_ms: int) -> str:
    for wildcard in (False, True):
        for each in rules:
            if (
                ("*" in each.target) is wildcard
                and glob_match(each.target, target)
                and glob_match(each.caller, "u")
                and not 0 < each.expires_ms <= now_ms
            ):
                return each.id
    return NO_MATCH


RULES = st.lists(
    st.builds(
        Rule,
        id=st.integers(0, 10**6).map(str),
        tenant=st.just("acme"),
        caller=st.sampled_from(["u", "*", "v", "u*"]),
        target=st.text("ab*", max_size=3),
        effect=st.sampled_from([Effect.ALLOW, Effect.DENY]),
        expires_ms=st.sampled_from([0, 5, 15]),
    ),
    max_size=12,
)


@given(RULES, st.lists(st.tuples(st.text("ab", max_size=3), st.integers(0, 20)), max_size=12))
def test_index_and_cache_never_change_an_answer(
    rules: list[Rule], asked: list[tuple[str, int]]
) -> None:
    compiled = RuleSet(rules)
    for target, now_ms in asked:  # the clock goes back and forth on purpose
        decision = compiled.decide("acme", "u", target, "", now_ms)
        assert decision.reason == naive(rules, target, now_ms)


def test_the_order_is_stable_over_1000_rebuilds() -> None:
    rules = [
        rule(
            str(n),
            random.Random(n).choice(["web", "w*", "*"]),
            random.Random(n).choice(list(Effect)),
        )
        for n in range(50)
    ]
    answers = {decide(RuleSet(list(rules))) for _ in range(1000)}
    assert len(answers) == 1


def test_1000_rules_decide_well_below_a_millisecond() -> None:
    callers = [f"outrelay://acme/agent/{n}*" for n in range(1000)]
    rules = RuleSet([rule(str(n), "svc-*", caller=caller) for n, caller in enumerate(callers)])
    spent = []
    for n in range(300):
        began = time.thread_time()
        rules.decide("acme", CALLER, f"svc-{n}", "", NOW)
        spent.append(time.thread_time() - began)
    assert rules.hits == 0
    assert sorted(spent)[int(len(spent) * 0.99)] <= 0.001


def test_the_cache_answers_again_until_its_time_is_over() -> None:
    rules = RuleSet([rule("a")])
    for now_ms in (NOW, NOW + 1, NOW + 4_999):
        decide(rules, now_ms=now_ms)
    assert (rules.hits, rules.misses) == (2, 1)
    decide(rules, now_ms=NOW + 5_000)
    assert rules.misses == 2


def test_a_cached_answer_does_not_outlive_a_rule() -> None:
    rules = RuleSet([rule("soon", expires_ms=NOW + 100), rule("later", effect=Effect.DENY)])
    assert decide(rules) == "allow soon"
    assert decide(rules, now_ms=NOW + 99) == "allow soon"
    assert decide(rules, now_ms=NOW + 100) == "deny later"


def test_a_clock_that_steps_back_does_not_prolong_an_answer() -> None:
    rules = RuleSet([rule("soon", expires_ms=NOW + 100)])
    decide(rules, now_ms=NOW + 200)
    assert decide(rules, now_ms=NOW) == "allow soon"


def test_invented_methods_do_not_fill_the_cache() -> None:
    rules = RuleSet([rule("a")])
    for n in range(100):
        decision = rules.decide("acme", "u", "web", f"{n:03}" + "x" * 1000, NOW)
        assert decision.allow
    assert rules.cached == 0


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_match, "DECISION_CACHE_SIZE", 100)
    monkeypatch.setattr(policy_match, "DECISION_CACHE_PURGE", 10)
    rules = RuleSet([rule("a")])
    for n in range(500):
        decide(rules, target=f"svc-{n}")
        assert rules.cached <= 100
    decide(rules, target="svc-499")
    assert rules.hits == 1
    for n in range(101):  # what is over its time goes before anything else
        decide(rules, target=f"late-{n}", now_ms=NOW + 10_000)
    assert rules.cached <= 101
