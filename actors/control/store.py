"""StoreActor: owns the SQLite database of the embedded backend.

State it holds for others, in memory: the last good rules of the policy files (`KeepFileRules`),
so that a restarted policy actor serves what was in force and not what lies half-edited on disk.
They are lost with this actor; its supervisor then restarts the policy actor too, which reads the
files again. Everything else is in the database, durable before it is answered.

A request waits in the mailbox only until it is handed to the database thread. When this actor
ends, requests without an answer fail at once with `ActorDown`; those already committed stay
committed, all others are undone or never began.

Source: protocol sheet ORP 4.3; architecture section 4.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace

from actors.control.backend import (
    BackendError,
    BackendUnavailable,
    FileRules,
    PolicyChanged,
    PolicySource,
    ProvidersChanged,
    Registration,
    Relay,
    Withdrawn,
)
from actors.control.database import IN_MEMORY, Database, Outcome
from actors.control.fleet_requests import ExpireDead, FindRelays, WatchProviders
from actors.control.limits import MAX_STORE_REQUESTS, MAX_WATCHERS
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
    StoreRequest,
    UpsertRelay,
    WatchPolicy,
)
from actors.files.ownership import FileRefused
from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Deferred,
    Down,
    ExitReason,
    MailboxSpec,
    Refusal,
    Reply,
    handles,
)


class StoreActor(Actor):
    """See the module docstring.

    Args:
        path: the database file, or `:memory:`, which keeps nothing over a restart.
    """

    mailbox = MailboxSpec(bound=MAX_STORE_REQUESTS)

    def __init__(self, path: str) -> None:
        self._path = path
        #: Bound: MAX_STORE_REQUESTS; one more is refused.
        self._waiting: dict[int, tuple[StoreRequest[object], Reply[object]]] = {}
        self._last_token = 0
        #: Bound: MAX_WATCHERS; one more is told nothing.
        self._watchers: dict[int, ActorRef] = {}
        self._provider_watchers: dict[int, ActorRef] = {}
        self._kept: FileRules | None = None
        self._failures = 0
        self._last_error = ""

    async def init(self) -> None:
        """Open and migrate the database.

        Raises:
            SchemaError, OSError, sqlite3.Error: it cannot be used; the text names the file.
        """
        deliver = self.guard("database", self._delivered)
        self._database = self.own(Database(self._path, deliver), "database")
        try:
            await self._database.opened
        except FileRefused:
            raise  # it says which
        except (OSError, sqlite3.Error) as exc:
            raise type(exc)(f"{self._path}: {exc}") from exc

    async def terminate(self, reason: ExitReason) -> None:
        """Let the thread finish what it was handed."""
        self._database.close()
        await asyncio.wait({self._database.closed})

    def describe(self) -> dict[str, object]:
        """Counters."""
        return {
            "database": "in memory" if self._path == IN_MEMORY else "file",
            "waiting": len(self._waiting),
            "commits": self._database.commits,
            "writes": self._database.writes,
            "failures": self._failures,
            "last_error": self._last_error,
            "policy_watchers": len(self._watchers),
        }

    @handles(
        UpsertRelay,
        RegisterServices,
        DeregisterAgents,
        DeregisterStale,
        FindProviders,
        LoadRules,
        InsertRule,
        DeleteRule,
        AppendAudit,
        FindAudit,
        FindRelays,
        ExpireDead,
    )
    def _request(self, request: StoreRequest[object]) -> Deferred | Refusal:
        if len(self._waiting) >= MAX_STORE_REQUESTS:
            return Refusal(BackendUnavailable(f"{MAX_STORE_REQUESTS} requests are waiting"))
        self._last_token += 1
        self._waiting[self._last_token] = (request, self.defer())
        self._database.submit(self._last_token, request)
        return DEFERRED

    def _delivered(self, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of one committed (or failed) transaction."""
        changed = False
        relays: list[Relay] = []
        services: list[Registration | Withdrawn] = []
        bug: Exception | None = None
        for outcome in outcomes:
            request, reply = self._waiting.pop(outcome.token)
            error = outcome.error
            if error is None:
                changed = changed or self._changed_rules(request, outcome.value)
                value = outcome.value
                if self._provider_watchers:
                    _note_providers(request, value, relays, services)
                if isinstance(value, PolicySource):
                    value = replace(value, file_rules=self._kept)
                reply.send(value)
            elif isinstance(error, BackendError):
                reply.send(Refusal(error))
            elif isinstance(error, sqlite3.Error):
                self._failures += 1
                self._last_error = f"{type(request).__name__}: {error}"[:300]
                reply.send(Refusal(BackendUnavailable(f"{type(error).__name__}: {error}")))
            else:
                bug = error
        if changed:
            for watcher in self._watchers.values():
                watcher.try_tell(PolicyChanged())
        if relays or services:
            news = ProvidersChanged(tuple(relays), tuple(services))
            for token, watcher in list(self._provider_watchers.items()):
                if not watcher.try_tell(news):
                    # It would miss a change for ever: rather it starts over.
                    del self._provider_watchers[token]
                    self.system.kill(watcher, "missed changes of the registry", initiator=self.path)
        if bug is not None:
            raise bug

    @staticmethod
    def _changed_rules(request: StoreRequest[object], value: object) -> bool:
        return isinstance(request, InsertRule) or (
            isinstance(request, DeleteRule) and value is True
        )

    @handles(KeepFileRules)
    def _keep(self, message: KeepFileRules) -> None:
        self._kept = message.kept

    @handles(WatchPolicy)
    def _watch(self, message: WatchPolicy) -> None:
        if len(self._watchers) >= MAX_WATCHERS:
            self.log.error("more than {} actors watch the rules", MAX_WATCHERS)
            return
        self._watchers[self.monitor(message.watcher)] = message.watcher

    @handles(WatchProviders)
    def _watch_providers(self, message: WatchProviders) -> None:
        if len(self._provider_watchers) >= MAX_WATCHERS:
            self.log.error("more than {} actors watch the registry", MAX_WATCHERS)
            return
        self._provider_watchers[self.monitor(message.watcher)] = message.watcher

    @handles(Down)
    def _watcher_ended(self, down: Down) -> None:
        self._watchers.pop(down.token, None)
        self._provider_watchers.pop(down.token, None)


def _note_providers(
    request: StoreRequest[object],
    value: object,
    relays: list[Relay],
    services: list[Registration | Withdrawn],
) -> None:
    """Collect what a committed request changed in the registry."""
    if isinstance(request, UpsertRelay):
        relays.append(request.relay)
    elif isinstance(request, RegisterServices) and isinstance(value, tuple):
        refused: Iterable[object] = value
        services.extend(
            each for each, why in zip(request.registrations, refused, strict=True) if not why
        )
    elif isinstance(request, DeregisterAgents | DeregisterStale | ExpireDead) and isinstance(
        value, tuple
    ):
        services.extend(value)
