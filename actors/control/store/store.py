"""StoreActor: owns the SQLite database of the embedded backend.

State it holds for others, in memory: the last good rules of the policy files (`KeepFileRules`),
so that a restarted policy actor serves what was in force and not what lies half-edited on disk.
They are lost with this actor; its supervisor then restarts the policy actor too, which reads the
files again. Everything else is in the database, durable before it is answered.

It removes by itself what is kept no longer (`retention`), in small portions between requests.

A request waits in the mailbox only until it is handed to the database thread. When this actor
ends, requests without an answer fail at once with `ActorDown`; those already committed stay
committed, all others are undone or never began.

Source: protocol sheet ORP 4.3.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
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
from actors.control.limits import (
    MAX_STORE_REQUESTS,
    MAX_WATCHERS,
    PRUNE_AFTER_RECORDS,
    PRUNE_PAUSE_SECONDS,
    SWEEP_SECONDS,
)
from actors.control.retention import ForgetGone, PruneAudit, Retention, Usage
from actors.control.store.database import IN_MEMORY, Database, Outcome
from actors.control.store.fleet_requests import ExpireDead, FindRelays, WatchLosses, WatchProviders
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
    StoreRequest,
    UpsertRelay,
    WatchPolicy,
)
from actors.control.store.schema import SchemaError
from actors.files.ownership import FileRefused
from actors.observe.meters import Meters
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
    StartRefused,
    handles,
)


class _Sweep:
    """Time to look for what is too old."""

    __slots__ = ()


class _Prune:
    """Time for the next portion."""

    __slots__ = ()


class StoreActor(Actor):
    """Owns the SQLite database of the embedded backend.

    Args:
        path: the database file, or `:memory:`, which keeps nothing over a restart.
        retention: how much of the audit is kept.
        meters: what is counted, for operators.
        wall_clock: seconds since the epoch.
    """

    mailbox = MailboxSpec(bound=MAX_STORE_REQUESTS)

    def __init__(
        self,
        path: str,
        *,
        retention: Retention = Retention(),  # noqa: B008  # frozen value
        meters: Meters | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._retention = retention
        self._meters = meters or Meters()
        self._wall_clock = wall_clock
        self._usage = Usage(0, 0, 0, more=False)
        self._appended = 0
        self._pruning = False
        self._pruned = 0
        #: Bound: MAX_STORE_REQUESTS, and two of our own; one more is refused.
        self._waiting: dict[int, tuple[StoreRequest[object], Reply[object] | None]] = {}
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
            StartRefused: it cannot be used; the text names the file.
        """
        deliver = self.guard("database", self._delivered)
        self._database = self.own(Database(self._path, deliver), "database")
        try:
            await self._database.opened
        except FileRefused as exc:
            raise StartRefused(f"control.database: {exc}") from None  # it says which
        except (OSError, sqlite3.Error, SchemaError) as exc:
            raise StartRefused(f"control.database: {self._path}: {exc}") from None
        gauges = self._meters.gauges
        gauges["audit_kept_records"] = lambda: self._usage.rows
        gauges["audit_kept_bytes"] = lambda: self._usage.size
        if self._path != IN_MEMORY:
            gauges["store_file_bytes"] = lambda: _file_bytes(self._path)
        if self._retention != Retention():
            self.ref.tell(_Sweep())

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
            "audit_records": self._usage.rows,
            "audit_bytes": self._usage.size,
            "audit_pruned": self._pruned,
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
        self._submit(request, self.defer())
        return DEFERRED

    def _submit(self, request: StoreRequest[object], reply: Reply[object] | None) -> None:
        self._last_token += 1
        self._waiting[self._last_token] = (request, reply)
        self._database.submit(self._last_token, request)

    def _delivered(self, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of one committed (or failed) transaction."""
        changed = False
        relays: list[Relay] = []
        services: list[Registration | Withdrawn] = []
        bug: Exception | None = None
        for outcome in outcomes:
            request, reply = self._waiting.pop(outcome.token)
            error = outcome.error
            if error is None and isinstance(request, AppendAudit):
                self._appended += len(request.records)
            if reply is None:
                if isinstance(error, sqlite3.Error):
                    self._failed(request, error)
                elif error is not None:
                    bug = error
                changed = changed or self._removed(request, outcome.value)
            elif error is None:
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
                self._failed(request, error)
                reply.send(Refusal(BackendUnavailable(f"{type(error).__name__}: {error}")))
            else:
                bug = error
        if self._appended >= PRUNE_AFTER_RECORDS and self._retention != Retention():
            self._prune()
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

    def _failed(self, request: StoreRequest[object], error: sqlite3.Error) -> None:
        self._failures += 1
        self._last_error = f"{type(request).__name__}: {error}"[:300]

    # What is kept no longer.

    @handles(_Sweep)
    def _sweep(self, _: _Sweep) -> None:
        kept = self._retention
        if kept.forget_seconds:
            before = self._wall_clock() - kept.forget_seconds
            self._submit(ForgetGone(int(before * 1000)), None)
        self._prune()
        self.start_timer(SWEEP_SECONDS, _Sweep(), "sweep")

    @handles(_Prune)
    def _prune(self, _: _Prune | None = None) -> None:
        if not self._pruning:
            self._pruning = True
            self._appended = 0
            self._submit(PruneAudit(self._retention, int(self._wall_clock() * 1000)), None)

    def _removed(self, request: StoreRequest[object], value: object) -> bool:
        """A portion went, or could not: then it is tried again later. True: rules went."""
        if isinstance(request, ForgetGone):
            return value is True
        self._pruning = False
        if isinstance(value, Usage):
            self._usage = value
            self._pruned += value.removed
            self._meters.counters["audit_pruned_total"] += value.removed
            if value.more:
                self.start_timer(PRUNE_PAUSE_SECONDS, _Prune(), "prune")
        return False

    @staticmethod
    def _changed_rules(request: StoreRequest[object], value: object) -> bool:
        return isinstance(request, InsertRule) or (
            isinstance(request, DeleteRule) and value is True
        )

    @handles(KeepFileRules)
    def _keep(self, message: KeepFileRules) -> None:
        self._kept = message.kept

    @handles(WatchLosses)
    def _watch_losses(self, _: WatchLosses) -> None:
        """What was committed is there after every restart: there is nothing to tell."""

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


def _file_bytes(path: str) -> int:
    """Of the database and its write-ahead log."""
    total = 0
    for name in (path, path + "-wal"):
        try:
            total += os.stat(name).st_size
        except OSError:
            continue
    return total


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
