"""What the served controller tells its watchers from: the rules and relays of now. Pure.

Source: protocol sheet ORP 4.1 (Watch), 4.2 (PolicyEvent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actors.control.backend import ProvidersChanged, Registration, Relay, Withdrawn
from actors.control.policy.rule import Rule
from actors.control.remote.codec import change_message, rule_message
from wire.orp import control_pb2


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule came or went, with the event that says so."""

    tenant: str
    event: control_pb2.PolicyEvent


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """A provider came or went, with the event that says so."""

    tenant: str
    name: str
    event: control_pb2.WatchEvent


def added(rule: Rule) -> RuleChange:
    """The event of a new rule."""
    event = control_pb2.PolicyEvent(
        kind=control_pb2.PolicyEvent.POLICY_KIND_ADDED, rule=rule_message(rule)
    )
    return RuleChange(rule.tenant, event)


def removed(rule: Rule) -> RuleChange:
    """The event of a rule that is gone."""
    event = control_pb2.PolicyEvent(
        kind=control_pb2.PolicyEvent.POLICY_KIND_REMOVED, removed_id=rule.id
    )
    return RuleChange(rule.tenant, event)


SNAPSHOT_END = control_pb2.PolicyEvent(kind=control_pb2.PolicyEvent.POLICY_KIND_SNAPSHOT_END)


class Rules:
    """The rules as last loaded from the store, in its order."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}

    def __len__(self) -> int:
        return len(self._rules)

    def of(self, tenant: str) -> list[Rule]:
        """The rules of a tenant; of all when empty."""
        return [rule for rule in self._rules.values() if not tenant or rule.tenant == tenant]

    def replace(self, rules: Sequence[Rule]) -> list[RuleChange]:
        """Take these instead. Returns what changed, removals first."""
        new = {rule.id: rule for rule in rules}
        old, self._rules = self._rules, new
        changes = [removed(rule) for rule in old.values() if new.get(rule.id) != rule]
        changes += [added(rule) for rule in new.values() if old.get(rule.id) != rule]
        return changes


class Endpoints:
    """Where relays are reached. Bound: that of the store's request, and `limit` after it."""

    def __init__(self, relays: Sequence[Relay], limit: int) -> None:
        self._limit = limit
        self._endpoints = {relay.id: relay.endpoint for relay in relays}

    def changes(self, news: ProvidersChanged) -> list[ProviderChange]:
        """The events for what the store committed."""
        for relay in news.relays:
            self._endpoints.pop(relay.id, None)
            if len(self._endpoints) >= self._limit:
                del self._endpoints[next(iter(self._endpoints))]
            self._endpoints[relay.id] = relay.endpoint
        return [self._change(change) for change in news.services]

    def _change(self, change: Registration | Withdrawn) -> ProviderChange:
        endpoint = self._endpoints.get(change.relay_id, "")
        return ProviderChange(change.tenant, change.name, change_message(change, endpoint))
