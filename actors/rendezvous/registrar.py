"""A service that may register: its port, its quotas, its place in the tree.

Source: protocol sheet rendezvous 1.3, 1.4, 1.7 rows 2, 3, 17; 5.6 rows 1, 4, 5.
"""

from __future__ import annotations

from actors.rendezvous.access import NOBODY, Client
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import End
from actors.rendezvous.ports import NoPort, PortLease, PortOwner
from actors.rendezvous.registration import Registration
from actors.rendezvous.service import Service
from actors.runtime import ChildRefused, ChildSpec, Restart
from actors.transport.gate import source_of
from actors.transport.quota import Ticket
from actors.transport.tcp.pump import Throttle
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import Options


def register(
    door: RendezvousContext,
    protocol: Protocol,
    options: Options,
    client: Client,
    source: tuple[str, int],
    end: End,
    early: bytes,
) -> str:
    """Begin to serve; `end` is taken over. Returns why not, and then it is still the caller's."""
    if door.draining:
        return "draining"
    owner = PortOwner(source_of(source[0]), client.name, options.name)
    if owner.keeps:
        _take_over(door, client, options.name)
    tickets = _tickets(door, client, owner.source)
    if tickets is None:
        return "too_many_services"
    lease: PortLease | None = None
    try:
        lease = door.ports.lease(owner, options.port, client.ports)
        service = _service(door, protocol, options, client, source, lease, tickets)
        service.end, service.early = end, early
        door.system.start_child(
            door.place(),
            ChildSpec(service.id, lambda: Registration(door, service), restart=Restart.TEMPORARY),
        )
    except NoPort as none:
        refusal = "ports_exhausted" if none.label == "exhausted" else f"port_{none.label}"
    except ChildRefused as refused:
        refusal = f"services_{refused.why}"
    else:
        door.events["services_registered"] += 1
        return ""
    for ticket in tickets:
        ticket.abort()
    if lease is not None:
        lease.abort()
    return refusal


def _tickets(door: RendezvousContext, client: Client, source: str) -> list[Ticket] | None:
    if client is NOBODY:
        ticket = door.by_source.take(source, source)
    else:
        mine = sum(1 for one in door.services.values() if one.client.name == client.name)
        if client.max_services and mine >= client.max_services:
            door.refused["services_client"] += 1
            return None
        ticket = door.by_client.take(client.name, client.name)
    return None if ticket is None else [ticket]


def _service(
    door: RendezvousContext,
    protocol: Protocol,
    options: Options,
    client: Client,
    source: tuple[str, int],
    lease: PortLease,
    tickets: list[Ticket],
) -> Service:
    settings = door.settings
    limits = [Throttle(settings.bytes_per_second)] if settings.bytes_per_second else []
    shared = door.access.throttle_of(client)
    return Service(
        f"{protocol.value}-{lease.port}~{door.next_serial()}",
        protocol,
        options,
        client,
        source,
        None,
        b"",
        lease,
        tickets,
        tuple(limits if shared is None else [*limits, shared]),
        door.clock(),
    )


def _take_over(door: RendezvousContext, client: Client, name: str) -> None:
    """The same service again: its connection of before is stale, and gives its port up at once."""
    for service in list(door.services.values()):
        if service.client.name == client.name and service.options.name == name:
            door.events["services_taken_over"] += 1
            service.refusing = True
            service.lease.abort()
            while service.tickets:
                service.tickets.pop().abort()
            del door.services[service.id]
            ref = door.system.ref(f"{door.place().path}/{service.id}")
            if ref is not None:
                door.system.kill(ref, "taken over")
