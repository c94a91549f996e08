"""The embedded backend: a `StoreActor` beside the other control actors.

Source: protocol sheet ORP 4.1, 4.3.
"""

from __future__ import annotations

from pathlib import Path

from actors.control.backend import Backend, BackendSpec
from actors.control.limits import RELAY_ALIVE_SECONDS
from actors.control.retention import Retention
from actors.control.store.store import StoreActor
from actors.observe.meters import Meters
from actors.runtime import Actor, Backoff, ChildSpec

#: The store's id below control.
STORE = "store"


def embedded_backend(
    database: str | Path,
    *,
    relay_alive_seconds: float = RELAY_ALIVE_SECONDS,
    retention: Retention = Retention(),  # noqa: B008  # frozen value
    meters: Meters | None = None,
    backoff: Backoff = Backoff(base=0.02, cap=0.5, stable_after=5.0),  # noqa: B008  # frozen value
) -> BackendSpec:
    """The backend that keeps everything in one SQLite file.

    Args:
        database: the file; its directory must exist. `:memory:` keeps nothing.
        relay_alive_seconds: a relay without a heartbeat for so long is not resolved; 0: for ever.
        retention: how much of the audit is kept.
        meters: what is counted, for operators.
        backoff: pauses between restarts of the store.
    """
    path = str(database)

    def connect(actor: Actor) -> Backend:
        place = actor.path.rpartition("/")[0] + "/" + STORE
        store = actor.system.ref(place)
        if store is None:
            raise LookupError(f"{actor.path}: there is no {place}")
        return Backend(store, relay_alive_seconds=relay_alive_seconds)

    def store() -> StoreActor:
        return StoreActor(path, retention=retention, meters=meters)

    child = ChildSpec(STORE, store, start_timeout=30.0, backoff=backoff)
    return BackendSpec((child,), connect)
