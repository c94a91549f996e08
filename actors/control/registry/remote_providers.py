"""What the registry knows of providers connected to other relays: lookups and their answers.

One linked task asks the backend for whatever names are wanted, a batch at a time. Answers are
fresh for `REMOTE_FRESH_SECONDS`; while the backend fails, older ones serve for
`REMOTE_STALE_SECONDS`, and a name nothing is known of is asked for again for
`LOOKUP_PATIENCE_SECONDS`. Rows of this relay are left out: the registry knows better who is
connected here. Bounds: `MAX_REMOTE_CACHE` names remembered, the oldest is forgotten; those who
wait are bounded by the registry.

Source: protocol sheet ORP 3.11, 4.3; 6.2 R19, R21.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from actors.control.backend import Backend, BackendError, ServiceRecord
from actors.control.limits import (
    BATCH,
    LOOKUP_PATIENCE_SECONDS,
    MAX_REMOTE_CACHE,
    REMOTE_FRESH_SECONDS,
    REMOTE_STALE_SECONDS,
)
from actors.control.store.requests import FindProviders
from actors.runtime import Actor, OwnedTask

#: (tenant, service name)
Name = tuple[str, str]
Rows = tuple[ServiceRecord, ...]
#: Called with the rows, or with the error when nothing is known at all.
Waiter = Callable[[Rows, BackendError | None], None]

#: Seconds between two attempts while the backend fails.
PAUSE_SECONDS = 0.05


class _Wanted:
    """Who waits for a name, and until when."""

    __slots__ = ("deadline", "waiters")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.waiters: list[Waiter] = []


class RemoteProviders:
    """What the registry knows of providers connected to other relays: lookups and their answers.

    Args:
        actor: the registry, owner of the task.
        backend: whom to ask.
        relay_id: this relay, whose rows are left out.
        wall_ms: wall-clock milliseconds.
    """

    def __init__(
        self,
        actor: Actor,
        backend: Backend,
        *,
        relay_id: str,
        wall_ms: Callable[[], int],
    ) -> None:
        self._actor = actor
        self._backend = backend
        self._relay_id = relay_id
        self._wall_ms = wall_ms
        self._cache: dict[Name, tuple[float, Rows]] = {}
        self._wanted: dict[Name, _Wanted] = {}
        self._task: OwnedTask | None = None
        self.failures = 0

    @property
    def cached(self) -> int:
        """Names remembered."""
        return len(self._cache)

    def known(self, name: Name) -> Rows:
        """What was last heard, unless it is too old to serve."""
        found = self._cache.get(name)
        if found is None or self._actor.now() - found[0] > REMOTE_STALE_SECONDS:
            return ()
        return found[1]

    def fresh(self, name: Name) -> bool:
        """True when `known` needs no lookup."""
        found = self._cache.get(name)
        return found is not None and self._actor.now() - found[0] <= REMOTE_FRESH_SECONDS

    def look_up(self, name: Name, waiter: Waiter | None = None) -> None:
        """Ask the backend again; `waiter` hears the outcome, never before this returns."""
        wanted = self._wanted.get(name)
        if wanted is None:
            deadline = self._actor.now() + LOOKUP_PATIENCE_SECONDS
            wanted = self._wanted[name] = _Wanted(deadline)
        if waiter is not None:
            wanted.waiters.append(waiter)
        if self._task is None or self._task.done:
            self._task = self._actor.spawn_task(self._run(), "lookups")

    async def _run(self) -> None:
        while self._wanted:
            batch = dict(islice(self._wanted.items(), BATCH))
            for name in batch:
                del self._wanted[name]
            error: BackendError | None = None
            try:
                answers = await self._backend.ask(
                    FindProviders(tuple(batch), self._backend.alive_since(self._wall_ms()))
                )
            except BackendError as exc:
                error = exc
                self.failures += 1
            else:
                for name, rows in zip(batch, answers, strict=True):
                    self._remember(name, rows)
            for name, wanted in batch.items():
                self._answer(name, wanted, error)
            if error is not None and self._wanted:
                await asyncio.sleep(PAUSE_SECONDS)

    def _answer(self, name: Name, wanted: _Wanted, error: BackendError | None) -> None:
        known = self.known(name)
        if error is None or known or self._actor.now() >= wanted.deadline:
            for waiter in wanted.waiters:
                waiter(known, None if known else error)
        elif wanted.waiters:
            newer = self._wanted.setdefault(name, wanted)
            if newer is not wanted:
                newer.deadline = min(newer.deadline, wanted.deadline)
                newer.waiters.extend(wanted.waiters)

    def _remember(self, name: Name, rows: Rows) -> None:
        remote = tuple(row for row in rows if row.relay_id != self._relay_id and row.relay_endpoint)
        self._cache.pop(name, None)
        if len(self._cache) >= MAX_REMOTE_CACHE:
            del self._cache[next(iter(self._cache))]
        self._cache[name] = (self._actor.now(), remote)
