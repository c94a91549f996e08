"""Rule files: what they may say, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control.messages import P2PMode, RelayMode
from actors.control.policy import rules_toml
from actors.control.policy.rule import Effect, Rule
from actors.control.policy.rules_toml import (
    RulesError,
    load_rules,
    parse_expiry,
    parse_rules,
)

NOW = 1_700_000_000_000
MINIMAL = '[[rule]]\nid = "a"\ntenant = "acme"\ncaller = "*"\ntarget = "web"\ndecision = "allow"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "rules.toml", NOW)
    return list(caught.value.problems)


def test_the_least_a_rule_must_say() -> None:
    (rule,) = parse_rules(MINIMAL, "rules.toml", NOW)
    assert rule == Rule("a", "acme", "*", "web", effect=Effect.ALLOW)


def test_everything_a_rule_may_say() -> None:
    text = MINIMAL + 'method = "get"\nexpires = 2027-01-01T00:00:00Z\np2p_mode = "REQUIRED"\n'
    (rule,) = parse_rules(text + 'relay_mode = "forward"\n', "rules.toml", NOW)
    assert rule.method == "get"
    assert rule.expires_ms == 1_798_761_600_000
    assert (rule.p2p_mode, rule.relay_mode) == (P2PMode.REQUIRED, RelayMode.FORWARD)


def test_an_empty_file_has_no_rules() -> None:
    assert parse_rules("", "rules.toml", NOW) == ()
    assert parse_rules("rule = []", "rules.toml", NOW) == ()


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, 0),
        ("0", 0),
        ("", 0),
        ("90s", NOW + 90_000),
        ("12h", NOW + 43_200_000),
        ("1d6h", NOW + 108_000_000),
        ("1.5m", NOW + 90_000),
        ("500ms", NOW + 500),
        ("2w", NOW + 1_209_600_000),
        ("2027-01-01T01:00:00+01:00", 1_798_761_600_000),
        ("2027-01-01T00:00:00Z", 1_798_761_600_000),
    ],
)
def test_expiry(value: object, expected: int) -> None:
    assert parse_expiry(value, NOW) == expected


@pytest.mark.parametrize(
    "value, says",
    [
        ("soon", "expected a time with zone"),
        ("12", "expected a time with zone"),
        ("-1h", "expected a time with zone"),
        ("1h x", "expected a time with zone"),
        ("2027-01-01T00:00:00", "no time zone"),
        ("1969-01-01T00:00:00Z", "before 1970"),
        ("0s", "at least 1 ms"),
        ("9999999w", "beyond the year 9999"),
        (5, "expected a time with zone"),
        (1.5, "expected a time with zone"),
        (True, "expected a time with zone"),
        (False, "expected a time with zone"),
        ([], "expected a time with zone"),
    ],
)
def test_expiry_mistakes(value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_expiry(value, NOW)


def test_local_dates_are_refused_with_their_kind() -> None:
    assert "not a date without time" in problems(MINIMAL + "expires = 2027-01-01\n")[0]
    assert "not a time without date" in problems(MINIMAL + "expires = 10:00:00\n")[0]
    assert "no time zone" in problems(MINIMAL + "expires = 2027-01-01T00:00:00\n")[0]


@pytest.mark.parametrize(
    "text, says",
    [
        ("= nonsense", "rules.toml: not TOML: "),
        ("x = " + "9" * 5000, "rules.toml: not TOML: "),
        ("x = " + "[" * 5000, "rules.toml: not TOML we read: nested too deeply"),
        (MINIMAL.replace('"allow"', "0x" + "f" * 9000), "decision: this int is not one of"),
        (MINIMAL + "expires = 0x" + "f" * 9000, "or 0, not this int"),
        ("rule = 3", "rules.toml: rule: must be written as [[rule]] tables"),
        ("rule = [1]", "rules.toml: rule: must be written as [[rule]] tables"),
        ("rules = []", "rules.toml: rules: unknown; only [[rule]] is allowed"),
        (MINIMAL + 'colour = "red"', "rules.toml: rule 1 ('a'): colour: unknown key"),
        (MINIMAL.replace('"allow"', '"perhaps"'), "'perhaps' is not one of allow, deny"),
        (MINIMAL.replace('"allow"', "1"), "rule 1 ('a'): decision: 1 is not one of allow, deny"),
        (MINIMAL.replace('decision = "allow"\n', ""), "rule 1 ('a'): decision: missing"),
        (MINIMAL.replace('caller = "*"\n', ""), "rule 1 ('a'): caller: missing"),
        (MINIMAL.replace('"*"', "7"), "rule 1 ('a'): caller: must be text, not int"),
        (MINIMAL.replace('"web"', '""'), "rule 1 ('a'): target: must not be empty"),
        (MINIMAL.replace('"acme"', '"Acme"'), "rule 1 ('a'): tenant: 'Acme' is not of the form"),
        (MINIMAL.replace('id = "a"\n', ""), "rules.toml: rule 1: id: missing"),
        (MINIMAL + MINIMAL, "rule 2 ('a'): id: already used by rules.toml: rule 1 ('a')"),
        (MINIMAL + 'p2p_mode = "never"', "p2p_mode: 'never' is not one of allowed, forbidden, "),
        (MINIMAL + 'relay_mode = "x"', "relay_mode: 'x' is not one of splice, forward"),
        (MINIMAL + 'expires = "soon"', "rule 1 ('a'): expires: expected a time with zone"),
        (MINIMAL.replace("web", "w" * 1025), "target: 1025 characters, at most 1024"),
    ],
)
def test_a_mistake_names_file_rule_and_key(text: str, says: str) -> None:
    assert any(says in problem for problem in problems(text)), problems(text)


def test_all_mistakes_are_told_at_once_and_bounded(tmp_path: Path) -> None:
    good, bad, missing = (tmp_path / name for name in ("good.toml", "bad.toml", "missing.toml"))
    good.write_text(MINIMAL)
    bad.write_text(MINIMAL.replace('"allow"', '"x"') + 'p2p_mode = "y"\n')
    with pytest.raises(RulesError) as caught:
        load_rules([good, bad, missing], NOW)
    told = "\n".join(caught.value.problems)
    assert f"{bad}: rule 1 ('a'): decision" in told
    assert f"{bad}: rule 1 ('a'): p2p_mode" in told
    assert f"{bad}: rule 1 ('a'): id: already used by {good}" in told
    assert f"{missing}: cannot be read: No such file" in told
    bad.write_text("[[rule]]\nx = 1\n" * 1000)
    with pytest.raises(RulesError) as caught:
        load_rules([bad], NOW)
    assert len(caught.value.problems) == rules_toml.MAX_PROBLEMS + 1
    assert caught.value.problems[-1] == "... and 5950 more"


def test_files_keep_their_order(tmp_path: Path) -> None:
    files = []
    for name in ("z", "a", "m"):
        file = tmp_path / f"{name}.toml"
        file.write_text(MINIMAL.replace('"a"', f'"{name}1"') + MINIMAL.replace('"a"', f'"{name}2"'))
        files.append(file)
    assert [rule.id for rule in load_rules(files, NOW)] == ["z1", "z2", "a1", "a2", "m1", "m2"]


def test_large_and_foreign_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rules.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match="not UTF-8 at byte 0"):
        load_rules([file], NOW)
    monkeypatch.setattr(rules_toml, "MAX_RULES_FILE", 100)
    file.write_text("#" * 101)
    with pytest.raises(RulesError, match="larger than 100 bytes"):
        load_rules([file], NOW)
    monkeypatch.setattr(rules_toml, "MAX_RULES", 1)
    monkeypatch.setattr(rules_toml, "MAX_RULES_FILE", 10_000)
    file.write_text(MINIMAL + MINIMAL.replace('"a"', '"b"'))
    with pytest.raises(RulesError, match="2 rules in all files, at most 1"):
        load_rules([file], NOW)


KEYS = [*rules_toml.KEYS, "x"]
VALUES = ['"allow"', '"acme"', '""', "0", "-1", "1.5", "true", "[]", "{}", "2027-01-01", '"1h"']


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=10))
def test_any_table_gives_rules_or_a_rules_error(pairs: list[tuple[str, str]]) -> None:
    text = "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in dict(pairs).items())
    try:
        rules = parse_rules(text, "f", NOW)
    except RulesError:
        return
    assert all(rule.problem() == "" for rule in rules)


@given(st.text(max_size=200))
def test_any_text_gives_rules_or_a_rules_error(text: str) -> None:
    try:
        parse_rules(text, "f", NOW)
    except RulesError:
        return
