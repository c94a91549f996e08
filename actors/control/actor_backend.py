"""The typed way to an actor that answers the requests of `store/requests.py`.

Two actors do: the `StoreActor` from its database, the `ControllerLink` from a remote controller.
What the actor refuses with a `BackendError` is raised; one that does not answer is unavailable.

Source: protocol sheet ORP 4.1.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from actors.control.backend import (
    AuditFilter,
    BackendError,
    BackendUnavailable,
    ControlBackend,
    FileRules,
    PolicySource,
    Registration,
    Relay,
    ServiceRecord,
    Withdrawal,
)
from actors.control.limits import RELAY_ALIVE_SECONDS, STORE_TIMEOUT_SECONDS
from actors.control.messages import AuditRecord
from actors.control.policy.rule import Rule
from actors.control.store.fleet_requests import FindRelays
from actors.control.store.requests import (
    AppendAudit,
    DeleteRule,
    DeregisterAgents,
    DeregisterStale,
    FindAudit,
    FindProviders,
    InsertRule,
    KeepFileRules,
    LoadRules,
    RegisterServices,
    UpsertRelay,
    WatchPolicy,
)
from actors.runtime import (
    ActorRef,
    NoAnswer,
    ReplyError,
    Request,
)

R = TypeVar("R")


class ActorBackend(ControlBackend):
    """The typed way to an actor that answers the requests of `store/requests.py`.

    Args:
        store: the actor.
        timeout: seconds one request may take.
        relay_alive_seconds: a relay without a heartbeat for so long is left out; 0: never.
        wall_clock: seconds since the epoch, stamps new rules.
    """

    def __init__(
        self,
        store: ActorRef,
        *,
        timeout: float = STORE_TIMEOUT_SECONDS,
        relay_alive_seconds: float = RELAY_ALIVE_SECONDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._timeout = timeout
        self._alive_ms = int(relay_alive_seconds * 1000)
        self._wall_clock = wall_clock

    async def _ask(self, request: Request[R]) -> R:
        try:
            return await self._store.ask(request, timeout=self._timeout)
        except ReplyError as exc:
            if isinstance(exc.refusal, BackendError):
                raise exc.refusal from None
            raise
        except NoAnswer as exc:
            raise BackendUnavailable(str(exc)) from exc

    async def upsert_relay(self, relay: Relay, now_ms: int) -> int | None:
        return await self._ask(UpsertRelay(relay, now_ms))

    async def register_services(self, registrations: Sequence[Registration]) -> tuple[str, ...]:
        return await self._ask(RegisterServices(registrations))

    async def deregister_agents(self, agents: Sequence[Withdrawal]) -> None:
        await self._ask(DeregisterAgents(agents))

    async def deregister_stale(self, relay_id: str, before_ms: int) -> int:
        return len(await self._ask(DeregisterStale(relay_id, before_ms)))

    async def resolve(
        self, names: Sequence[tuple[str, str]], now_ms: int
    ) -> tuple[tuple[ServiceRecord, ...], ...]:
        alive_since_ms = max(1, now_ms - self._alive_ms) if self._alive_ms else 0
        return await self._ask(FindProviders(names, alive_since_ms))

    async def relays(self) -> tuple[Relay, ...]:
        return await self._ask(FindRelays())

    def watch_policy(self, watcher: ActorRef) -> None:
        self._store.try_tell(WatchPolicy(watcher))

    async def load_policy(self) -> PolicySource:
        return await self._ask(LoadRules())

    def keep_file_rules(self, kept: FileRules) -> None:
        self._store.try_tell(KeepFileRules(kept))

    async def add_rule(self, rule: Rule) -> str:
        created_ms = int(self._wall_clock() * 1000)
        rule_id = rule.id or str(uuid.uuid4())
        return await self._ask(InsertRule(replace(rule, id=rule_id, created_ms=created_ms)))

    async def remove_rule(self, tenant: str, rule_id: str) -> bool:
        return await self._ask(DeleteRule(tenant, rule_id))

    async def record_audit(self, records: Sequence[AuditRecord]) -> None:
        await self._ask(AppendAudit(records))

    async def query_audit(self, wanted: AuditFilter) -> tuple[AuditRecord, ...]:
        return await self._ask(FindAudit(wanted))
