"""The store of this daemon's control actors, with what only a controller asks of it.

Source: protocol sheet ORP 4.1, 4.3; 6.2 R19.
"""

from __future__ import annotations

from actors.control.actor_backend import ActorBackend
from actors.control.backend import Relay, Withdrawn
from actors.control.store.fleet_requests import ExpireDead, WatchProviders
from actors.control.store.requests import UpsertRelay
from actors.runtime import ActorRef


class ControllerStore(ActorBackend):
    """The store of this daemon's control actors, with what only a controller asks of it. Resolves
    every row: dead ones are withdrawn, not hidden.
    """

    def __init__(self, store: ActorRef) -> None:
        super().__init__(store, relay_alive_seconds=0)

    async def announce(self, relay: Relay, now_ms: int, *, heartbeats: bool) -> int | None:
        """Announce a relay; one that `heartbeats` is dead when it stops. See `UpsertRelay`."""
        return await self._ask(UpsertRelay(relay, now_ms, heartbeats))

    async def expire(
        self, alive_since_ms: int, forget_before_ms: int, *, silent_too: bool
    ) -> tuple[Withdrawn, ...]:
        return await self._ask(ExpireDead(alive_since_ms, forget_before_ms, silent_too))

    def watch_providers(self, watcher: ActorRef) -> None:
        """Tell `watcher` `ProvidersChanged` while it lives."""
        self._store.try_tell(WatchProviders(watcher))
