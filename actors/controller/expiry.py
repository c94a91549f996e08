"""ExpiryActor: withdraws the services of relays that stopped.

A relay that repeats its announcement (it says so) and has not done it for `alive` seconds is taken
for dead: its services are withdrawn, and watchers are told. After a start everybody has that time
to announce himself again. Relays of the reference announce themselves once, so by default they do
not expire. Relays and agents without services are forgotten after a month.

Source: protocol sheet ORP 4.1 (UpsertRelay), 4.3; 6.2 R19.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.control.backend import Backend, BackendError
from actors.control.limits import FORGET_SECONDS
from actors.control.store.fleet_requests import ExpireDead
from actors.controller.limits import SWEEPS_PER_LIFE
from actors.runtime import Actor, handles


class _Sweep:
    """Time to look."""

    __slots__ = ()


class ExpiryActor(Actor):
    """Withdraws the services of relays that stopped.

    Args:
        alive: seconds a relay lives without a heartbeat.
        silent_too: also relays that never said they repeat it.
        store: path of the store.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        alive: float,
        silent_too: bool,
        store: str,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._alive = alive
        self._silent_too = silent_too
        self._store_path = store
        self._wall_clock = wall_clock
        self._sweeps = 0
        self._expired = 0
        self._failures = 0

    def init(self) -> None:
        """Give everybody time first."""
        ref = self.system.ref(self._store_path)
        if ref is None:
            raise LookupError(f"{self.path}: there is no {self._store_path}")
        self._store = Backend(ref, relay_alive_seconds=0)
        self.start_timer(self._alive, _Sweep(), "sweep")

    def describe(self) -> dict[str, object]:
        """Counters."""
        return {
            "alive_seconds": self._alive,
            "sweeps": self._sweeps,
            "services_expired": self._expired,
            "failures": self._failures,
        }

    @handles(_Sweep)
    async def _sweep(self, message: _Sweep) -> None:
        now = self._wall_clock()
        try:
            gone = await self._store.ask(
                ExpireDead(
                    int((now - self._alive) * 1000),
                    int((now - max(FORGET_SECONDS, self._alive)) * 1000),
                    silent_too=self._silent_too,
                )
            )
        except BackendError as error:
            self._failures += 1
            self.log.warning("dead relays were not looked for: {}", error)
        else:
            self._sweeps += 1
            self._expired += len(gone)
            if gone:
                relays = ", ".join(sorted({each.relay_id for each in gone}))
                self.log.warning("{} services of silent relays withdrawn: {}", len(gone), relays)
        self.start_timer(self._alive / SWEEPS_PER_LIFE, _Sweep(), "sweep")
