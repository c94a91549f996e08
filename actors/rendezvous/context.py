"""What the actors of the door share: settings, tables, counters. Outlives all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.rendezvous.access import Access
from actors.rendezvous.joins import JoinTable
from actors.rendezvous.ports import PortTable
from actors.rendezvous.service import Service
from actors.rendezvous.service_tls import ServiceTls
from actors.rendezvous.settings import RendezvousSettings
from actors.runtime import ActorRef, ActorSystem
from actors.transport.quota import Quota
from actors.transport.tcp.pump import PipePool
from wire.rendezvous.line import Protocol

if TYPE_CHECKING:
    from actors.rendezvous.account import UserAccount

#: How a user's time here may end.
OUTCOMES = ("finished", "failed", "killed")


def _untold(_: StreamRecord) -> None:
    """No access log is kept."""


@dataclass(slots=True)
class RendezvousContext:
    """What the actors of the door share: settings, tables, counters.

    Attributes:
        place: finds the supervisor of the services.
        services: those that are registered, by the id of their place.
        joins: who waits for a further connection of a service.
        pipes: lent to pairs.
        events: what happened at the doors, for operators.
        refused: services and users that were turned away, by reason.
        traffic: bytes of pairs that are over, by protocol and direction.
        pairs: users that are served now, by protocol.
        accounts: of all users that are served.
        access_log: gets a record per user.
        relay: name of this relay, for the record.
        tls: how services are met that speak it; None: they are not.
        draining: no service and no user is taken any more.
    """

    system: ActorSystem
    settings: RendezvousSettings
    ports: PortTable
    access: Access
    meters: Meters
    clock: Callable[[], float]
    place: Callable[[], ActorRef]
    relay: str = ""
    tls: ServiceTls | None = None
    services: dict[str, Service] = field(default_factory=dict)
    joins: JoinTable = field(default_factory=JoinTable)
    pipes: PipePool = field(default_factory=PipePool)
    pairs: Counter[str] = field(default_factory=Counter)
    accounts: set[UserAccount] = field(default_factory=set)
    access_log: Callable[[StreamRecord], object] = _untold
    draining: bool = False
    serial: int = 0
    events: Counter[str] = field(init=False)
    refused: MutableMapping[str, int] = field(init=False)
    by_source: Quota = field(init=False)
    by_client: Quota = field(init=False)

    def __post_init__(self) -> None:
        meters, settings = self.meters, self.settings
        self.events = meters.family("rendezvous_events_total", "event")
        self.refused = meters.family("rendezvous_refused_total", "reason")
        most = settings.max_services
        # The shares of one another are the business of the bounds for each.
        self.by_source = Quota(
            "services", most, settings.max_services_per_source, self.refused, share=1.0
        )
        self.by_client = Quota(
            "services", most, settings.max_services_per_client, self.refused, share=1.0
        )
        protocols = [one.value for one in Protocol]
        for name in ("users_total", "traffic_in_bytes_total", "traffic_out_bytes_total"):
            meters.family(f"rendezvous_{name}", "protocol", protocols)
        meters.family("rendezvous_users_ended_total", "outcome", OUTCOMES)
        meters.histogram("rendezvous_user_wait_duration")
        meters.histogram("rendezvous_user_duration")

    def next_serial(self) -> int:
        """A number for a place in the tree that never had one."""
        self.serial += 1
        return self.serial
