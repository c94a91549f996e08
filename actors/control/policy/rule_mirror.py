"""The rules of a controller as its watches tell them. Pure.

Every watch (one per tenant, or one for all) tells a snapshot and then changes. A new snapshot
replaces what the same watch told before, at once and only when it is complete: while it arrives,
and while the watch is down, the rules before stay (R21, sheet 4.4).

The order is the controller's: snapshots are listed by creation, a change comes after what was
there before. A change that repeats a known id replaces the rule at its place.

Source: protocol sheet ORP 4.1 (Policy.Watch), 4.4; 6.2 R22, R29.
"""

from __future__ import annotations

from actors.control.policy.rule import Rule


class TooManyRules(Exception):
    """The controller tells more rules than this relay holds."""


class RuleMirror:
    """The rules of a controller as its watches tell them.

    Args:
        watches: their names; the rules are complete when each told a snapshot.
        limit: rules of all watches together, and of one snapshot on its way.
    """

    def __init__(self, watches: tuple[str, ...], limit: int) -> None:
        self._limit = limit
        self._arriving: dict[str, dict[str, Rule]] = {}
        self._told: dict[str, dict[str, Rule] | None] = dict.fromkeys(watches)
        self.snapshots = 0
        self.changes = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """The watches that told no snapshot yet."""
        return tuple(name for name, rules in self._told.items() if rules is None)

    @property
    def size(self) -> int:
        """Rules in force."""
        return sum(len(rules) for rules in self._told.values() if rules is not None)

    def rules(self) -> tuple[Rule, ...]:
        """The rules of all watches, each in its controller's order."""
        return tuple(rule for told in self._told.values() if told for rule in told.values())

    def has(self, rule_id: str) -> bool:
        """True when a rule with this id is in force."""
        return any(told is not None and rule_id in told for told in self._told.values())

    def begin(self, watch: str) -> None:
        """The watch begins: a snapshot follows."""
        self._arriving[watch] = {}

    def end(self, watch: str) -> None:
        """The watch is down: an incomplete snapshot is forgotten."""
        self._arriving.pop(watch, None)

    def added(self, watch: str, rule: Rule) -> bool:
        """Told of a rule. True when the rules in force are others now.

        Raises:
            TooManyRules: what is in force stays as it is.
        """
        arriving = self._arriving.get(watch)
        target = self._told[watch] if arriving is None else arriving
        if target is None:
            return False
        if rule.id not in target:
            held = len(target) if arriving is not None else self.size
            if held >= self._limit:
                raise TooManyRules(f"the controller tells more than {self._limit} rules")
        if target.get(rule.id) == rule:
            return False
        target[rule.id] = rule
        if arriving is not None:
            return False
        self.changes += 1
        return True

    def removed(self, watch: str, rule_id: str) -> bool:
        """Told that a rule is gone. True when the rules in force are others now."""
        arriving = self._arriving.get(watch)
        target = self._told[watch] if arriving is None else arriving
        if target is None or target.pop(rule_id, None) is None or arriving is not None:
            return False
        self.changes += 1
        return True

    def complete(self, watch: str) -> bool:
        """The snapshot is complete. True when the rules in force are others now.

        Raises:
            TooManyRules: with those of the other watches; what is in force stays as it is.
        """
        arrived = self._arriving.pop(watch, None)
        if arrived is None:
            return False
        before = self._told[watch]
        others = self.size - (len(before) if before else 0)
        if others + len(arrived) > self._limit:
            raise TooManyRules(f"the controller tells more than {self._limit} rules")
        self.snapshots += 1
        self._told[watch] = arrived
        return before is None or list(before.items()) != list(arrived.items())
