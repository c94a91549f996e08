"""The subtree of the rendezvous door, from plain values.

::

    rendezvous        one_for_one
    ├─ services       dynamic: one Registration per service
    └─ listeners      one_for_one: one RendezvousListener per address
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address

from loguru import logger

from actors.doors.door import Carriers, DoorCommand, Listening
from actors.doors.stream_account import access_log
from actors.observe.meters import Meters
from actors.rendezvous.access import Access, AccessError
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.listener import Binding, RendezvousListener
from actors.rendezvous.operators import RendezvousCommands
from actors.rendezvous.ports import PortTable
from actors.rendezvous.service_actor import Leave
from actors.rendezvous.service_tls import ServiceTls
from actors.rendezvous.settings import RendezvousSettings
from actors.rendezvous.views import agent_rows, service_rows, stream_rows
from actors.runtime import (
    ActorRef,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Supervisor,
)
from actors.transport.addresses import address_text, only_ipv6
from actors.transport.tls import TlsIdentity
from wire.admin.messages import Row
from wire.rendezvous.line import Protocol

#: While a part of the door is away newcomers wait.
BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)


class Rendezvous:
    """The wiring of one rendezvous door: made before the tree, alive as long as the process.

    Args:
        listen: addresses for services; users come to the ports above the first one's.
        user_host: where users come to; empty: the host of the first address.
        access: who has a token.
        meters: what is counted, for operators.
        log_place: place of the access log; empty: none is kept.
        relay: name of this relay.
        tls: how services are met that speak it.
    """

    def __init__(
        self,
        system: ActorSystem,
        *,
        listen: Sequence[tuple[str, int]],
        settings: RendezvousSettings,
        access: Access,
        user_host: str = "",
        meters: Meters | None = None,
        log_place: str = "",
        relay: str = "",
        tls: ServiceTls | None = None,
        base: str = "/rendezvous",
    ) -> None:
        self._system = system
        self._base = base
        self._bindings = [Binding(address) for address in listen]
        self.door = RendezvousContext(
            system,
            settings,
            PortTable(
                user_host or listen[0][0],
                listen[0][1],
                allowed=settings.ports,
                quarantine=settings.quarantine,
                name_kept=settings.name_kept,
                clock=system.loop.time,
            ),
            access,
            meters or Meters(),
            system.loop.time,
            self._services,
            relay,
            tls,
        )
        self.door.access_log = access_log(system, log_place, self.door.meters)
        self._count()
        for host, port in listen:
            if not settings.require_auth and not _is_loopback(host):
                logger.warning(
                    "rendezvous {}: anybody who reaches it may open ports here; see "
                    "rendezvous.require_auth",
                    address_text(host, port),
                )

    def _count(self) -> None:
        """What is there now, for whoever asks; names after those of frp."""
        door, meters = self.door, self.door.meters

        def of(protocol: str) -> Callable[[], int]:
            return lambda: sum(
                1 for one in door.services.values() if one.protocol.value == protocol
            )

        meters.gauge("rendezvous_client_counts", lambda: len(
            {one.client.name or one.source[0] for one in door.services.values()}
        ))  # fmt: skip
        for protocol in Protocol:
            name = protocol.value
            meters.gauge(f"rendezvous_proxy_counts_{name}", of(name))
            meters.gauge(f"rendezvous_connection_counts_{name}", lambda n=name: door.pairs[n])  # type: ignore[misc]
        meters.gauge(
            "rendezvous_users_waiting", lambda: sum(one.waiting() for one in door.services.values())
        )
        meters.gauge("rendezvous_ports", lambda: len(door.ports))
        meters.gauge("rendezvous_pipes", lambda: door.pipes.open)
        meters.totals["rendezvous_pipes_dry_total"] = lambda: door.pipes.dry

    def _services(self) -> ActorRef:
        ref = self._system.ref(f"{self._base}/services")
        if ref is None:
            raise ChildRefused(self._base, "services", "down")
        return ref

    def spec(self) -> ChildSpec:
        """The door's subtree."""
        addresses = [one.wanted for one in self._bindings]
        listeners = [
            ChildSpec(
                name,
                lambda binding=binding: RendezvousListener(  # type: ignore[misc]
                    self.door, binding, only_ipv6=only_ipv6(binding.wanted, addresses)
                ),
                backoff=BACKOFF,
            )
            for name, binding in zip(self._names(), self._bindings, strict=True)
        ]
        budget = Intensity(restarts=10, period=10.0)
        most = self.door.settings.max_services
        children = [
            ChildSpec("services", lambda: DynamicSupervisor(max_children=most), backoff=BACKOFF),
            ChildSpec(
                "listeners", lambda: Supervisor(listeners, intensity=budget), backoff=BACKOFF
            ),
        ]
        return ChildSpec(
            self._base.rpartition("/")[2],
            lambda: Supervisor(children, intensity=budget),
            backoff=BACKOFF,
        )

    def _names(self) -> list[str]:
        return ["tcp" if n == 0 else f"tcp-{n + 1}" for n in range(len(self._bindings))]

    @property
    def carriers(self) -> Carriers:
        """Users are below their services."""
        return Carriers((f"{self._base}/services",))

    @property
    def draining(self) -> bool:
        return self.door.draining

    def listening(self) -> list[Listening]:
        return [
            Listening("TCP, rendezvous", f"{self._base}/listeners/{name}", binding.bound)
            for name, binding in zip(self._names(), self._bindings, strict=True)
        ]

    def agents(self) -> Iterable[Row]:
        return agent_rows(self.door, f"{self._base}/services")

    def services(self) -> Iterable[Row]:
        return service_rows(self.door, f"{self._base}/services")

    def streams(self) -> Iterable[Row]:
        return stream_rows(self.door)

    def commands(self) -> Mapping[str, DoorCommand]:
        return RendezvousCommands(self.door, f"{self._base}/services").commands()

    async def drain(self) -> None:
        """Take no services and users any more, tell services to go, and wait for the users."""
        door = self.door
        door.draining = True
        for service in list(door.services.values()):
            service.refuse_users()
            ref = self._system.ref(f"{self._base}/services/{service.id}/service")
            if ref is not None:
                ref.try_tell(Leave())
        while True:
            if not any(one.pairs or one.waiting() for one in door.services.values()):
                break
            await asyncio.sleep(0.05)

    def reload(self, identity: TlsIdentity) -> str:
        """New handshakes use this certificate; tokens are read again."""
        if self.door.tls is not None:
            self.door.tls.reload(identity)
        try:
            self.door.access.load()
        except AccessError as error:
            return f"rendezvous: tokens stay as they were: {error}"
        logger.info("rendezvous: {} clients have tokens", len(self.door.access))
        return ""

    def abort(self) -> None:
        """Close what outlives the tree."""
        self.door.pipes.abort()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
