"""This relay at the backend: announced, kept alive, and without services of earlier lives.

Two linked tasks of the registry: a heartbeat for as long as it lives, which renews all of its
services at once and finds out whether any are lost, and once the withdrawal of what nobody
published again. A failing backend is asked again every `RETRY_SECONDS`.

Source: protocol sheet ORP 4.1 (UpsertRelay); 6.2 R15, R19.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.control.backend import Backend, BackendError, Relay
from actors.control.registry.lost_rows import LostRows
from actors.control.store.requests import DeregisterStale, UpsertRelay
from actors.runtime import Actor

#: Seconds after which a failed heartbeat or withdrawal is tried again.
RETRY_SECONDS = 1.0


class Presence:
    """This relay at the backend: announced, kept alive, and without services of earlier lives. The
    heartbeat begins at once.

    Args:
        actor: the registry, owner of the tasks.
        backend: where to announce.
        relay: this relay; without an endpoint there is nothing to announce.
        heartbeat: seconds between two announcements.
        wall_ms: wall-clock milliseconds.
        lost_rows: compares what the backend says it has with what is published.
    """

    def __init__(
        self,
        actor: Actor,
        backend: Backend,
        relay: Relay,
        *,
        heartbeat: float,
        wall_ms: Callable[[], int],
        lost_rows: LostRows,
    ) -> None:
        self._actor = actor
        self._backend = backend
        self._relay = relay
        self._heartbeat = heartbeat
        self._wall_ms = wall_ms
        self._lost_rows = lost_rows
        self.failures = 0
        self._wake = asyncio.Event()
        if relay.endpoint:  # else a controller without a relay
            actor.spawn_task(self._announce(), "heartbeat")

    def announce(self) -> None:
        """Announce at once, not at the next heartbeat."""
        self._wake.set()

    def withdraw_stale(self, before_ms: int) -> None:
        """Withdraw what this relay published before that time."""
        self._actor.spawn_task(self._withdraw(before_ms), "withdrawal of stale services")

    async def _announce(self) -> None:
        failing = False
        while True:
            pause = self._heartbeat
            self._wake.clear()
            try:
                self._lost_rows.before()
                counted = await self._backend.ask(UpsertRelay(self._relay, self._wall_ms()))
            except BackendError as exc:
                self.failures += 1
                if not failing:  # an outage is two lines, not one a second
                    self._actor.log.warning("this relay could not be announced: {}", exc)
                failing = True
                pause = min(RETRY_SECONDS, pause)
            else:
                if failing:
                    self._actor.log.info("this relay is announced again")
                failing = False
                self._lost_rows.after(counted)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _withdraw(self, before_ms: int) -> None:
        failing = False
        while True:
            try:
                gone = len(await self._backend.ask(DeregisterStale(self._relay.id, before_ms)))
            except BackendError as exc:
                self.failures += 1
                if not failing:
                    self._actor.log.warning("stale services were not withdrawn: {}", exc)
                failing = True
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if gone:
                    self._actor.log.info("{} stale services of this relay withdrawn", gone)
                return
