"""Whom the rendezvous door serves, in rows for operators (`actors.doors.door.Viewed`).

An agent here is whoever registered a service; a stream is a user of one. What is walked is copied
first: the rows are made one at a time while the door works on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.service import Service
from actors.transport.addresses import address_text
from wire.admin.messages import Row


def agent_rows(door: RendezvousContext, base: str) -> Iterator[Row]:
    """Registered services by who registered them: one connection, one service."""
    up, down = Counter[str](), Counter[str]()
    for user in door.accounts:
        came, went = user.volume()
        up[user.service.id] += came
        down[user.service.id] += went
    for one in list(door.services.values()):
        yield {
            "agent": _owner(one),
            "tenant": None,
            "remote": address_text(*one.source),
            "transport": "TCP",
            "seconds": round(door.clock() - one.since, 3),
            "services": [one.title],
            "streams": one.pairs,
            "bytes_in": one.bytes_out + down[one.id],
            "bytes_out": one.bytes_in + up[one.id],
            "path": f"{base}/{one.id}",
        }


def service_rows(door: RendezvousContext, base: str) -> Iterator[Row]:
    """Services, with the port of this host that their users come to (`listen`)."""
    for one in list(door.services.values()):
        yield {
            "service": one.title,
            "tenant": None,
            "provider": _owner(one),
            "target": None,
            "listen": one.port,
            "protocol": one.protocol.value,
            "streams": one.pairs,
            "path": f"{base}/{one.id}",
        }


def stream_rows(door: RendezvousContext) -> Iterator[Row]:
    """Users that are served."""
    for one in list(door.accounts):
        up, down = one.volume()
        yield {
            "stream": one.path.rpartition("/")[2],
            "tenant": None,
            "consumer": address_text(*one.user.address),
            "provider": _owner(one.service),
            "service": one.service.title,
            "method": one.service.protocol.value,
            "state": "open",
            "mode": "splice",
            "seconds": round(one.seconds, 3),
            "bytes_up": up,
            "bytes_down": down,
            "path": one.path,
        }


def _owner(service: Service) -> str:
    """The client that proved its name, or the host it came from."""
    return service.client.name or service.source[0]
