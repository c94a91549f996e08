"""Policy rules from TOML files.

::

    [[rule]]
    id = "curl-allowed"              # unique over all files
    tenant = "acme"
    caller = "outrelay://acme/agent/*"
    target = "web"                   # service name or agent URI; * is any run of characters
    method = ""                      # "" = every method
    decision = "allow"               # allow | deny
    expires = 2027-01-01T00:00:00Z   # a time with zone, or "12h" from `now`, or 0 = never
    p2p_mode = "allowed"             # allowed | forbidden | required
    relay_mode = "splice"            # splice | forward

`id`, `tenant`, `caller`, `target` and `decision` must be there. Every error names the file, the
rule (its number counted from 1, and its id) and the key; all errors of all files are reported at
once. The mode words have the aliases of the sheet (4.5). Files are read in the given order, and
rules keep the order of the files.

Source: protocol sheet ORP 4.2, 4.4, 4.5.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from enum import Enum
from pathlib import Path
from typing import TypeVar

from actors.control.limits import MAX_PATTERN, MAX_RULES, MAX_RULES_FILE
from actors.control.messages import P2PMode, RelayMode
from actors.control.policy.rule import Effect, Rule

#: Problems listed in one error; the rest is counted.
MAX_PROBLEMS = 50

EFFECTS = {"allow": Effect.ALLOW, "deny": Effect.DENY}
P2P_MODES = {
    "allowed": P2PMode.ALLOWED,
    "allow": P2PMode.ALLOWED,
    "p2p_allowed": P2PMode.ALLOWED,
    "forbidden": P2PMode.FORBIDDEN,
    "forbid": P2PMode.FORBIDDEN,
    "deny": P2PMode.FORBIDDEN,
    "p2p_forbidden": P2PMode.FORBIDDEN,
    "required": P2PMode.REQUIRED,
    "require": P2PMode.REQUIRED,
    "p2p_required": P2PMode.REQUIRED,
}
RELAY_MODES = {
    "splice": RelayMode.SPLICE,
    "relay_mode_splice": RelayMode.SPLICE,
    "forward": RelayMode.FORWARD,
    "relay_mode_forward": RelayMode.FORWARD,
}
KEYS = (
    "id",
    "tenant",
    "caller",
    "target",
    "method",
    "decision",
    "expires",
    "p2p_mode",
    "relay_mode",
)

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_UNIT_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
#: Year 9999: what lies beyond is a mistake.
_LATEST_MS = 253_402_300_799_000

Word = TypeVar("Word", bound=Enum)


class RulesError(Exception):
    """Files that cannot be used. `problems` has one line per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:MAX_PROBLEMS])
        if len(problems) > MAX_PROBLEMS:
            shown.append(f"... and {len(problems) - MAX_PROBLEMS} more")
        super().__init__("\n".join(shown))
        self.problems = tuple(shown)


def load_rules(files: Sequence[Path], now_ms: int) -> tuple[Rule, ...]:
    """Read and check all files. Blocking; durations count from `now_ms`.

    Raises:
        RulesError: at least one file is not usable; none of them counts then.
    """
    rules: list[Rule] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for file in files:
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_RULES_FILE + 1)
        except OSError as exc:
            problems.append(f"{file}: cannot be read: {exc.strerror or exc}")
            continue
        if len(content) > MAX_RULES_FILE:
            problems.append(f"{file}: larger than {MAX_RULES_FILE} bytes")
            continue
        parser = _Parser(str(file), now_ms, seen, problems)
        rules.extend(parser.parse(content))
    if len(rules) > MAX_RULES:
        problems.append(f"{len(rules)} rules in all files, at most {MAX_RULES} are allowed")
    if problems:
        raise RulesError(problems)
    return tuple(rules)


def parse_rules(text: str, name: str, now_ms: int) -> tuple[Rule, ...]:
    """As `load_rules` for one text; `name` stands for the file in errors."""
    problems: list[str] = []
    rules = _Parser(name, now_ms, {}, problems).parse(text.encode())
    if problems:
        raise RulesError(problems)
    return tuple(rules)


def parse_expiry(value: object, now_ms: int) -> int:
    """Wall-clock milliseconds of an `expires` value; 0 = never.

    Raises:
        ValueError: with the text for the operator.
    """
    wanted = 'expected a time with zone, a duration such as "12h" or "1d6h", or 0'
    if value == 0 and type(value) is int:
        return 0
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "0"):
            return 0
        if _DURATION.fullmatch(text):
            parts = _DURATION_PART.findall(text)
            length = sum(min(float(n), 1e15) * _UNIT_MS[unit] for n, unit in parts)
            if length < 1:
                raise ValueError("a duration must be at least 1 ms; 0 means never")
            if now_ms + length > _LATEST_MS:
                raise ValueError("lies beyond the year 9999; 0 means never")
            return now_ms + int(length)
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{wanted}, not {_shown(value)}") from None
    if not isinstance(value, datetime):
        kind = {date: "a date without time", time: "a time without date"}.get(type(value))
        raise ValueError(f"{wanted}, not {kind or _shown(value)}")
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone: append Z or an offset")
    try:
        expiry = int(value.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is out of range") from None
    if expiry <= 0:
        raise ValueError(f"{value.isoformat()} lies before 1970; 0 means never")
    return expiry


def _shown(value: object) -> str:
    """A value from a file for an error text: bounded, whatever it is."""
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**30):
        return repr(value)
    return f"this {type(value).__name__}"


class _Parser:
    """One file; mistakes are collected, not raised."""

    def __init__(self, file: str, now_ms: int, seen: dict[str, str], problems: list[str]) -> None:
        self._file = file
        self._now_ms = now_ms
        self._seen = seen
        self._problems = problems

    def parse(self, content: bytes) -> list[Rule]:
        try:
            document = tomllib.loads(content.decode())
        except UnicodeDecodeError as exc:
            self._problems.append(f"{self._file}: not UTF-8 at byte {exc.start}")
            return []
        except ValueError as exc:  # TOMLDecodeError, and numbers with thousands of digits
            self._problems.append(f"{self._file}: not TOML: {exc}")
            return []
        except RecursionError:
            self._problems.append(f"{self._file}: not TOML we read: nested too deeply")
            return []
        for key in document:
            if key != "rule":
                self._problems.append(f"{self._file}: {key}: unknown; only [[rule]] is allowed")
        tables = document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self._problems.append(f"{self._file}: rule: must be written as [[rule]] tables")
            return []
        rules = [self._rule(number, table) for number, table in enumerate(tables, 1)]
        return [rule for rule in rules if rule is not None]

    def _rule(self, number: int, table: dict[str, object]) -> Rule | None:
        name = table.get("id")
        where = f"{self._file}: rule {number}"
        if isinstance(name, str) and name:
            where += f" ({name[:80]!r})"
        before = len(self._problems)

        def wrong(key: str, what: str) -> None:
            self._problems.append(f"{where}: {key}: {what}")

        def text(key: str, *, required: bool) -> str:
            value = table.get(key)
            if value is None:
                if required:
                    wrong(key, "missing")
                return ""
            if not isinstance(value, str):
                wrong(key, f"must be text, not {type(value).__name__}")
                return ""
            if required and not value:
                wrong(key, "must not be empty")
            if len(value) > MAX_PATTERN:
                wrong(key, f"{len(value)} characters, at most {MAX_PATTERN} are allowed")
            return value

        def word(key: str, words: dict[str, Word], default: Word | None) -> Word | None:
            value = table.get(key)
            if value is None:
                if default is None:
                    wrong(key, "missing")
                return default
            found = words.get(value.lower()) if isinstance(value, str) else None
            if found is None:
                names = [str(choice.value) for choice in dict.fromkeys(words.values())]
                wrong(key, f"{_shown(value)} is not one of {', '.join(names)}")
            return found

        for key in table:
            if key not in KEYS:
                wrong(key[:80], f"unknown key; allowed are {', '.join(KEYS)}")
        rule_id = text("id", required=True)
        tenant = text("tenant", required=True)
        if tenant and len(tenant) <= MAX_PATTERN and _TENANT.fullmatch(tenant) is None:
            wrong("tenant", f"{_shown(tenant)} is not of the form {_TENANT.pattern}")
        expires = 0
        try:
            expires = parse_expiry(table.get("expires", 0), self._now_ms)
        except ValueError as exc:
            wrong("expires", str(exc))
        rule = Rule(
            id=rule_id,
            tenant=tenant,
            caller=text("caller", required=True),
            target=text("target", required=True),
            method=text("method", required=False),
            expires_ms=expires,
        )
        effect = word("decision", EFFECTS, None)
        p2p_mode = word("p2p_mode", P2P_MODES, P2PMode.ALLOWED)
        relay_mode = word("relay_mode", RELAY_MODES, RelayMode.SPLICE)
        if rule_id:
            other = self._seen.setdefault(rule_id, where)
            if other is not where:
                wrong("id", f"already used by {other}")
        if len(self._problems) > before or None in (effect, p2p_mode, relay_mode):
            return None
        assert effect is not None
        assert p2p_mode is not None
        assert relay_mode is not None
        return replace(rule, effect=effect, p2p_mode=p2p_mode, relay_mode=relay_mode)
