"""Whom the edge door serves, in rows for operators (`actors.doors.door.Viewed`).

What is walked is copied first: the rows are made one at a time while the door works on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from actors.edge.context import EdgeContext
from actors.runtime import ActorSystem
from actors.runtime.inspection import row as cell_row
from wire.admin.messages import Row
from wire.orp.identity import AgentUri, parse_identity


def agent_rows(system: ActorSystem, door: EdgeContext) -> Iterator[Row]:
    """Connected agents; with what their connections say of themselves.

    `bytes_in` and `bytes_out` are of the connection's life, with what the protocol adds.
    """
    streams = Counter(
        uri for one in door.accounts for uri in (one.row.consumer, one.row.provider) if uri
    )
    for uri, ref in list(door.connections.items()):
        cell = system.find(ref.path)
        if cell is None or cell.actor is None or door.connections.get(uri) is not ref:
            continue
        known, figures = cell.actor.describe(), cell_row(cell)
        yield {
            "agent": uri,
            "tenant": known["tenant"],
            "remote": known["remote"],
            "transport": known["transport"],
            "seconds": figures["uptime"],
            "services": known["services"],
            "streams": streams[uri],
            "most_streams": door.settings.max_streams_per_agent,
            "stream_credit_used": known["streams"],
            "round_trip_ms": known["round_trip_ms"],
            "certificate_ends": known["certificate_ends"],
            "bytes_in": figures["bytes_in"],
            "bytes_out": figures["bytes_out"],
            "path": ref.path,
        }


def service_rows(door: EdgeContext) -> Iterator[Row]:
    """What agents here provide, a row for each provider of a service."""
    streams = Counter((one.row.provider, one.row.service) for one in door.accounts)
    for uri, services in list(door.services.items()):
        identity = parse_identity(uri)
        tenant = identity.tenant if isinstance(identity, AgentUri) else ""
        ref = door.connections.get(uri)
        for name, target in list(services.items()):
            refusal = door.refusals.last(uri, name)
            yield {
                "service": name,
                "tenant": tenant,
                "provider": uri,
                "target": target or None,
                "refused": None if refusal is None else refusal.reason,
                "refused_seconds": None if refusal is None else door.clock() - refusal.moment,
                "streams": streams[uri, name],
                "path": None if ref is None else ref.path,
            }


def stream_rows(door: EdgeContext) -> Iterator[Row]:
    """Streams that are opened or carried; bytes are None where datagrams carry them."""
    for one in list(door.accounts):
        row = one.row
        up, down = one.volume() if one.mode == "splice" else (None, None)
        yield {
            "stream": f"{row.stream_id:016x}",
            "tenant": row.tenant,
            "consumer": row.consumer,
            "provider": row.provider or None,
            "service": row.service,
            "method": row.method,
            "state": "open" if one.opened else "opening",
            "mode": one.mode,
            "seconds": round(one.seconds, 3),
            "bytes_up": up,
            "bytes_down": down,
            "path": one.path,
        }
