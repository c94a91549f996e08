"""What only a controller asks of the store, and a link is asked: about relays, dead and alive.

They join those of `requests.py`, which says what a request is.

Source: protocol sheet ORP 4.1, 4.3; 6.2 R19.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from actors.control.backend import Relay, Withdrawn
from actors.control.retention import forget_agents_and_relays
from actors.control.store.requests import RETURNING, StoreRequest
from actors.runtime import ActorRef

#: Relays a controller tells its watchers the endpoints of.
MAX_RELAYS = 10_000


@dataclass(slots=True)
class FindRelays(StoreRequest[tuple[Relay, ...]]):
    """Every relay that announced itself, at most `MAX_RELAYS`, the last ones heard of."""

    writes: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[Relay, ...]:
        rows = connection.execute(
            "SELECT id, coalesce(region, ''), endpoint FROM relay_instances"
            f" ORDER BY last_heartbeat_unix_ms DESC LIMIT {MAX_RELAYS}"
        )
        return tuple(Relay(*row) for row in rows)


@dataclass(slots=True)
class ExpireDead(StoreRequest[tuple[Withdrawn, ...]]):
    """Withdraw the services of relays not heard of since a time; forget what is long gone.

    A relay that never said it repeats its announcement counts as alive, unless `silent_too`.
    Services of a relay that never announced itself go by their own age. Relays without services,
    and agents without services, are forgotten when not heard of since `forget_before_ms`.
    Answer: the services withdrawn.
    """

    alive_since_ms: int
    forget_before_ms: int
    silent_too: bool = False

    single: ClassVar[bool] = False

    def run(self, connection: sqlite3.Connection) -> tuple[Withdrawn, ...]:
        deleted = connection.execute(
            "DELETE FROM services WHERE rowid IN (SELECT s.rowid FROM services s"
            " LEFT JOIN relay_instances r ON r.id = s.relay_id WHERE CASE WHEN r.id IS NULL"
            " THEN s.updated_at_unix_ms < :alive ELSE r.last_heartbeat_unix_ms < :alive"
            f" AND (r.heartbeats = 1 OR :silent) END) {RETURNING}",
            {"alive": self.alive_since_ms, "silent": self.silent_too},
        )
        gone = tuple(Withdrawn(*row) for row in deleted.fetchall())
        forget_agents_and_relays(connection, self.forget_before_ms)
        return gone


@dataclass(slots=True)
class WatchProviders:
    """To the store, a plain message: tell `watcher` `ProvidersChanged` while it lives."""

    watcher: ActorRef


@dataclass(slots=True)
class WatchLosses:
    """To a controller link, a plain message: tell `watcher` `BackendRestored` while it lives."""

    watcher: ActorRef
