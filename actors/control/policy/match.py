"""Evaluation of policy rules: globs, index, first match, decision cache. Pure; time comes in.

Order. Rules keep the order they are given in (files first, then the store's by creation time and
id). Within a tenant, the rules with a literal target are looked at first, then those whose target
holds a `*`; in each of the two the first rule wins whose caller, target and method match and which
has not expired. So an exact target beats a wildcard, and a deny has no priority of its own. No
match denies. The same rules always give the same answer.

Globs. `*` is any run of characters, also an empty one; everything else is literal; an empty
pattern matches only the empty text. An empty *method* pattern matches every method.

Source: protocol sheet ORP 4.4, 6.2 R22, R23, R24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from actors.control.limits import (
    DECISION_CACHE_PURGE,
    DECISION_CACHE_SECONDS,
    DECISION_CACHE_SIZE,
    DECISION_CACHE_TEXT,
)
from actors.control.messages import Decision
from actors.control.policy.rule import Effect, Rule

NO_MATCH = "no matching rule"
NO_SNAPSHOT = "no policy snapshot"

Matcher = Callable[[str], bool]

#: No expiry: later than any wall clock.
_NEVER = 2**63


def glob_matcher(pattern: str) -> Matcher:
    """Compile a glob to a function of one text; linear in the text per part of the pattern."""
    if "*" not in pattern:
        return pattern.__eq__
    first, *middle, last = pattern.split("*")
    middle = [part for part in middle if part]
    if not middle and not last:
        return lambda text: text.startswith(first)
    shortest = len(first) + sum(map(len, middle)) + len(last)

    def match(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first):
            return False
        at = len(first)
        for part in middle:
            at = text.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return len(text) - len(last) >= at and text.endswith(last)

    return match


def glob_match(pattern: str, text: str) -> bool:
    """Does `pattern` match the whole of `text`?"""
    return glob_matcher(pattern)(text)


class _Compiled:
    """One rule, ready to be asked."""

    __slots__ = ("caller", "decision", "expires", "method", "target")

    def __init__(self, rule: Rule) -> None:
        self.caller = glob_matcher(rule.caller)
        self.target = glob_matcher(rule.target)
        self.method = glob_matcher(rule.method) if rule.method else None
        self.expires = rule.expires_ms or _NEVER
        # Anything but a clear "allow" denies.
        self.decision = Decision(
            rule.effect is Effect.ALLOW, rule.id, rule.p2p_mode, rule.relay_mode
        )


class _TenantRules:
    """The two buckets of one tenant."""

    __slots__ = ("exact", "expiries", "wildcard")

    def __init__(self) -> None:
        self.exact: dict[str, list[_Compiled]] = {}
        self.wildcard: list[_Compiled] = []
        self.expiries: list[int] = []


class RuleSet:
    """An immutable snapshot of rules, with the decisions it made cached.

    The cache belongs to the snapshot: a new snapshot starts with an empty one, so that no answer
    outlives the rules it came from. A cached answer lives `DECISION_CACHE_SECONDS` at most, and
    not beyond the next expiry of a rule of its tenant.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._tenants: dict[str, _TenantRules] = {}
        self._cache: dict[tuple[str, str, str, str], tuple[int, int, Decision]] = {}
        self.hits = 0
        self.misses = 0
        for rule in self.rules:
            tenant = self._tenants.setdefault(rule.tenant, _TenantRules())
            compiled = _Compiled(rule)
            if "*" in rule.target:
                tenant.wildcard.append(compiled)
            else:
                tenant.exact.setdefault(rule.target, []).append(compiled)
            if rule.expires_ms:
                tenant.expiries.append(rule.expires_ms)
        for tenant in self._tenants.values():
            tenant.expiries.sort()

    def __len__(self) -> int:
        return len(self.rules)

    @property
    def cached(self) -> int:
        """Decisions in the cache."""
        return len(self._cache)

    def decide(self, tenant: str, caller: str, target: str, method: str, now_ms: int) -> Decision:
        """The decision for a caller of `tenant` at wall-clock `now_ms`. Do not change it."""
        key = (tenant, caller, target, method)
        found = self._cache.get(key)
        # The wall clock may step back: an answer from the future is not served.
        if found is not None and found[0] <= now_ms < found[1]:
            self.hits += 1
            return found[2]
        self.misses += 1
        decision = self.evaluate(tenant, caller, target, method, now_ms)
        if len(target) + len(method) <= DECISION_CACHE_TEXT:
            self._remember(key, decision, now_ms)
        return decision

    def evaluate(self, tenant: str, caller: str, target: str, method: str, now_ms: int) -> Decision:
        """As `decide`, without the cache."""
        rules = self._tenants.get(tenant)
        if rules is not None:
            for rule in rules.exact.get(target, ()):
                if (
                    rule.expires > now_ms
                    and rule.caller(caller)
                    and (rule.method is None or rule.method(method))
                ):
                    return rule.decision
            for rule in rules.wildcard:
                if (
                    rule.expires > now_ms
                    and rule.target(target)
                    and rule.caller(caller)
                    and (rule.method is None or rule.method(method))
                ):
                    return rule.decision
        return Decision(False, NO_MATCH)

    def _remember(self, key: tuple[str, str, str, str], decision: Decision, now_ms: int) -> None:
        until = now_ms + int(DECISION_CACHE_SECONDS * 1000)
        rules = self._tenants.get(key[0])
        if rules is not None:
            for expiry in rules.expiries:
                if expiry > now_ms:
                    until = min(until, expiry)
                    break
        cache = self._cache
        cache.pop(key, None)  # a renewed answer becomes the youngest
        if len(cache) >= DECISION_CACHE_SIZE:
            for old in [k for k, (_, end, _) in cache.items() if end <= now_ms]:
                del cache[old]
            if len(cache) >= DECISION_CACHE_SIZE:
                for old in list(islice(cache, DECISION_CACHE_PURGE)):
                    del cache[old]
        cache[key] = (now_ms, until, decision)
