"""Policy of the served controller: the rules of its store.

Rules of files belong to the relay that reads them and are not told to others.

Source: protocol sheet ORP 4.1 (Policy), 4.2; 6.2 R22, R23, R29.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from actors.control.backend import Backend
from actors.control.limits import MAX_RULES
from actors.control.remote.codec import rule_message, rule_of
from actors.control.store.requests import DeleteRule, InsertRule, LoadRules
from actors.controller.dispatch import Call, Streamed, Unary, Writer
from actors.controller.request_checks import bad_request, exhausted, required
from actors.controller.state import SNAPSHOT_END, RuleChange, Rules, added
from actors.controller.watches import Watches
from wire.orp import control_pb2


class PolicyService:
    """Policy of the served controller: the rules of its store.

    Args:
        store: where it is kept.
        rules: those of now.
        watches: who is told of changes.
        admit: raises `Refused` when there are too many watches.
    """

    def __init__(
        self,
        store: Backend,
        rules: Rules,
        watches: Watches[RuleChange],
        *,
        admit: Callable[[], None],
    ) -> None:
        self._store = store
        self._rules = rules
        self._watches = watches
        self._admit = admit

    @property
    def unary(self) -> Mapping[str, Unary]:
        """The unary methods."""
        return {
            "Policy/AddPolicy": self.add,
            "Policy/RemovePolicy": self.remove,
            "Policy/ListPolicies": self.list,
        }

    @property
    def streamed(self) -> Mapping[str, Streamed]:
        """The streams."""
        return {"Policy/Watch": self.watch}

    async def add(
        self, call: Call, request: control_pb2.AddPolicyRequest
    ) -> control_pb2.AddPolicyResponse:
        """Store a rule; its creation time is now."""
        del call
        rule = rule_of(request.rule)
        problem = rule.problem()
        if problem:
            raise bad_request(problem)
        if len(self._rules) >= MAX_RULES:
            raise exhausted(f"there are {MAX_RULES} rules already")
        return control_pb2.AddPolicyResponse(
            id=await self._store.ask(InsertRule(rule.as_stored(int(time.time() * 1000))))
        )

    async def remove(
        self, call: Call, request: control_pb2.RemovePolicyRequest
    ) -> control_pb2.RemovePolicyResponse:
        """Remove a rule of a tenant."""
        del call
        removed = await self._store.ask(
            DeleteRule(required("tenant", request.tenant), required("id", request.id))
        )
        return control_pb2.RemovePolicyResponse(removed=removed)

    async def list(
        self, call: Call, request: control_pb2.ListPoliciesRequest
    ) -> control_pb2.ListPoliciesResponse:
        """The rules of a tenant by creation time, from the store: what was added is there."""
        del call
        tenant = required("tenant", request.tenant)
        source = await self._store.ask(LoadRules())
        return control_pb2.ListPoliciesResponse(
            rules=[rule_message(rule) for rule in source.rules if rule.tenant == tenant]
        )

    async def watch(
        self, call: Call, request: control_pb2.WatchPoliciesRequest, writer: Writer
    ) -> None:
        """A snapshot, then changes. No tenant: those of all, the snapshot included."""
        del call
        tenant = request.tenant
        self._admit()
        watch = self._watches.open(lambda change: tenant in ("", change.tenant))
        # No await between the two: nothing is missed, nothing is told twice.
        snapshot = self._rules.of(tenant)
        try:
            await writer.begin()
            for rule in snapshot:
                await writer.send(added(rule).event)
            await writer.send(SNAPSHOT_END)
            while True:
                await writer.send((await watch.get()).event)
        finally:
            self._watches.close(watch)
