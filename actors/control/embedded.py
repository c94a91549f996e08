"""The embedded backend: a `StoreActor` beside the other control actors.

Source: protocol sheet ORP 4.1, 4.3; architecture section 4.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from actors.control.backend import (
    AuditFilter,
    BackendError,
    BackendSpec,
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
from actors.control.rule import Rule
from actors.control.store import StoreActor
from actors.control.store_requests import (
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
    Actor,
    ActorDown,
    ActorRef,
    AskTimeout,
    Backoff,
    ChildSpec,
    MailboxFull,
    ReplyError,
    Request,
)

R = TypeVar("R")

#: The store's id below control.
STORE = "store"


def embedded_backend(
    database: str | Path,
    *,
    relay_alive_seconds: float = RELAY_ALIVE_SECONDS,
    backoff: Backoff = Backoff(base=0.02, cap=0.5, stable_after=5.0),  # noqa: B008  # frozen value
) -> BackendSpec:
    """The backend that keeps everything in one SQLite file.

    Args:
        database: the file; its directory must exist. `:memory:` keeps nothing.
        relay_alive_seconds: a relay without a heartbeat for so long is not resolved; 0: for ever.
        backoff: pauses between restarts of the store.
    """
    path = str(database)

    def connect(actor: Actor) -> ControlBackend:
        place = actor.path.rpartition("/")[0] + "/" + STORE
        store = actor.system.ref(place)
        if store is None:
            raise LookupError(f"{actor.path}: there is no {place}")
        return EmbeddedBackend(store, relay_alive_seconds=relay_alive_seconds)

    child = ChildSpec(STORE, lambda: StoreActor(path), start_timeout=30.0, backoff=backoff)
    return BackendSpec((child,), connect)


class EmbeddedBackend(ControlBackend):
    """The typed way to a `StoreActor`.

    Args:
        store: its reference.
        timeout: seconds one request may take.
        relay_alive_seconds: see `embedded_backend`.
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
        except (ActorDown, AskTimeout, MailboxFull) as exc:
            raise BackendUnavailable(str(exc)) from exc

    async def upsert_relay(self, relay: Relay, now_ms: int) -> None:
        """See `ControlBackend`."""
        await self._ask(UpsertRelay(relay, now_ms))

    async def register_services(self, registrations: Sequence[Registration]) -> tuple[str, ...]:
        """See `ControlBackend`."""
        return await self._ask(RegisterServices(registrations))

    async def deregister_agents(self, agents: Sequence[Withdrawal]) -> None:
        """See `ControlBackend`."""
        await self._ask(DeregisterAgents(agents))

    async def deregister_stale(self, relay_id: str, before_ms: int) -> int:
        """See `ControlBackend`."""
        return await self._ask(DeregisterStale(relay_id, before_ms))

    async def resolve(
        self, names: Sequence[tuple[str, str]], now_ms: int
    ) -> tuple[tuple[ServiceRecord, ...], ...]:
        """See `ControlBackend`."""
        alive_since_ms = max(1, now_ms - self._alive_ms) if self._alive_ms else 0
        return await self._ask(FindProviders(names, alive_since_ms))

    def watch_policy(self, watcher: ActorRef) -> None:
        """See `ControlBackend`."""
        self._store.try_tell(WatchPolicy(watcher))

    async def load_policy(self) -> PolicySource:
        """See `ControlBackend`."""
        return await self._ask(LoadRules())

    def keep_file_rules(self, kept: FileRules) -> None:
        """See `ControlBackend`."""
        self._store.try_tell(KeepFileRules(kept))

    async def add_rule(self, rule: Rule) -> str:
        """See `ControlBackend`."""
        created_ms = int(self._wall_clock() * 1000)
        rule_id = rule.id or str(uuid.uuid4())
        return await self._ask(InsertRule(replace(rule, id=rule_id, created_ms=created_ms)))

    async def remove_rule(self, tenant: str, rule_id: str) -> bool:
        """See `ControlBackend`."""
        return await self._ask(DeleteRule(tenant, rule_id))

    async def record_audit(self, records: Sequence[AuditRecord]) -> None:
        """See `ControlBackend`."""
        await self._ask(AppendAudit(records))

    async def query_audit(self, wanted: AuditFilter) -> tuple[AuditRecord, ...]:
        """See `ControlBackend`."""
        return await self._ask(FindAudit(wanted))
