"""The actors that show what is counted, from plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.observe.access_log import AccessLog
from actors.observe.dump import MetricsDump
from actors.observe.meters import Meters
from actors.observe.web import MetricsServer, Readiness
from actors.runtime import Backoff, ChildSpec, Intensity, Supervisor

#: The address may be taken for a while: a missing metrics page must not end the relay.
BACKOFF = Backoff(base=0.05, cap=5.0, stable_after=10.0)


@dataclass(frozen=True, slots=True)
class ObserveSettings:
    """What is shown where; nothing by default.

    Attributes:
        listen: host and port of the HTTP server.
        dump, interval: file for snapshots, and seconds between them.
        access_log: file for one line per stream.
        most_file_bytes: of each of these; one more is begun then, and the last one kept. 0: any.
    """

    listen: tuple[str, int] | None = None
    dump: Path | None = None
    interval: float = 10.0
    access_log: Path | None = None
    most_file_bytes: int = 0


def observe_spec(
    meters: Meters,
    readiness: Readiness,
    settings: ObserveSettings,
    *,
    bound: list[int],
    child_id: str = "observe",
) -> ChildSpec:
    """The supervised subtree.

    Args:
        bound: gets the port the HTTP server listens on.
    """
    children: list[ChildSpec] = []
    listen, dump, access = settings.listen, settings.dump, settings.access_log
    most = settings.most_file_bytes
    if listen is not None:
        children.append(
            ChildSpec(
                "http", lambda: MetricsServer(meters, readiness, listen, bound), backoff=BACKOFF
            )
        )
    if dump is not None:
        children.append(
            ChildSpec(
                "dump",
                lambda: MetricsDump(meters, dump, settings.interval, most),
                backoff=BACKOFF,
            )
        )
    if access is not None:
        children.append(
            ChildSpec("access", lambda: AccessLog(meters, access, most), backoff=BACKOFF)
        )
    return ChildSpec(
        child_id,
        lambda: Supervisor(children, intensity=Intensity(restarts=1000, period=60.0)),
        backoff=BACKOFF,
    )
