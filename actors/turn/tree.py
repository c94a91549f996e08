"""The subtree of the TURN door, from plain values.

::

    turn              one_for_one
    ├─ registry       AllocationRegistry: the record of all allocations, and what expires
    ├─ allocations    dynamic: one Allocation per relayed address
    ├─ clients        dynamic: one StreamClient per TCP or TLS connection
    └─ listeners      one_for_one: udp, tcp, tls: one per address

one_for_one, because no part may cost another one anything: endpoints, records and relayed sockets
are in a context that belongs to the wiring.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from loguru import logger

from actors.doors.door import Carriers, DoorCommand, Listening
from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Supervisor,
)
from actors.transport.addresses import only_ipv6
from actors.transport.key_log import KeyLog
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tcp.tls_context import server_context
from actors.transport.tls import TlsIdentity
from actors.turn.context import TurnContext
from actors.turn.operators import TurnCommands
from actors.turn.registry import AllocationRegistry
from actors.turn.settings import TurnSettings
from actors.turn.stream_listener import ALPN, StreamBinding, StreamListener
from actors.turn.udp_listener import UdpEndpoint, UdpListener
from wire.admin.messages import Row

BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)
#: An allocation that fails more often than that is given up, and its client hears 437.
RESTARTS = Intensity(20, 10.0)


class Turn:
    """The wiring of one TURN door: made before the tree, alive as long as the process.

    Args:
        identity: what TLS clients are shown.
        again: reads the settings that a reload may change; None: none may.
    """

    def __init__(
        self,
        system: ActorSystem,
        settings: TurnSettings,
        *,
        identity: TlsIdentity | None = None,
        meters: Meters | None = None,
        access_log: str = "",
        relay: str = "",
        base: str = "/turn",
        key_log: KeyLog | None = None,
        again: Callable[[], TurnSettings] | None = None,
    ) -> None:
        self._system = system
        self._base = base
        self._key_log = key_log
        self._again = again
        self.door = TurnContext(system, settings, meters or Meters(), base)
        self.door.relay_id = relay
        self._context: ssl.SSLContext | None = None
        if settings.listen_tls:
            if identity is None or not identity.chain:
                raise OSError("turn.listen_tls: TLS needs a certificate; see edge.tls")
            self._use(identity)
        self._udp = [UdpEndpoint(self.door, address) for address in settings.listen]
        self._streams = [StreamBinding(address) for address in settings.listen_tcp]
        self._streams += [StreamBinding(address, self._tls) for address in settings.listen_tls]
        if access_log:
            self.door.access_log = self._log_to(access_log)
        self._count()
        if not (settings.users or settings.secrets or settings.stamp_secret):
            logger.warning("turn: nobody can allocate: no turn.users and no turn.secret_files")

    def _use(self, identity: TlsIdentity) -> None:
        self._context = server_context(identity, ALPN, self._key_log, PeerPolicy.SERVER_ONLY)

    def _tls(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    def _log_to(self, place: str) -> Callable[[StreamRecord], object]:
        lost = self.door.meters.counters
        self.door.meters.declare("access_log_lost_total")

        def tell(record: StreamRecord) -> None:
            ref = self._system.ref(place)
            if ref is None or not ref.try_tell(record):
                lost["access_log_lost_total"] += 1

        return tell

    def _count(self) -> None:
        door, meters = self.door, self.door.meters
        alive = door.dispatcher.allocations
        meters.gauge("turn_allocations", lambda: len(alive))
        meters.gauge("turn_relayed_sockets", lambda: door.ports.open)
        meters.gauge("turn_channels", lambda: sum(len(one.channels) for one in alive.values()))
        totals = meters.totals
        totals["turn_allocation_restarts_total"] = lambda: door.restarted
        totals["turn_bind_failures_total"] = lambda: sum(door.ports.failures.values())
        totals["turn_bytes_from_clients_total"] = lambda: (
            door.bytes_up + sum(one.bytes_from_client for one in alive.values())
        )
        totals["turn_bytes_from_peers_total"] = lambda: (
            door.bytes_down + sum(one.bytes_from_peers for one in alive.values())
        )

    def spec(self) -> ChildSpec:
        """The door's subtree."""
        settings, door = self.door.settings, self.door
        listeners: list[ChildSpec] = []
        udp = [one.wanted for one in self._udp]
        for name, endpoint in zip(self._names("udp", self._udp), self._udp, strict=True):
            apart = only_ipv6(endpoint.wanted, udp)
            make = partial(UdpListener, door, endpoint, only_ipv6=apart)
            listeners.append(ChildSpec(name, make, backoff=BACKOFF))
        streams = [one.wanted for one in self._streams]
        for name, binding in zip(self._names("tcp", self._streams), self._streams, strict=True):
            apart = only_ipv6(binding.wanted, streams)
            serve = partial(StreamListener, door, binding, only_ipv6=apart)
            listeners.append(ChildSpec(name, serve, backoff=BACKOFF))
        most = settings.rules.max_allocations
        budget = Intensity(restarts=20, period=10.0)
        children = [
            ChildSpec("registry", lambda: AllocationRegistry(door), backoff=BACKOFF),
            ChildSpec(
                "allocations",
                lambda: DynamicSupervisor(max_children=most, intensity=RESTARTS),
                backoff=BACKOFF,
            ),
            ChildSpec(
                "clients",
                lambda: DynamicSupervisor(max_children=settings.max_streams),
                backoff=BACKOFF,
            ),
            ChildSpec(
                "listeners", lambda: Supervisor(listeners, intensity=budget), backoff=BACKOFF
            ),
        ]
        return ChildSpec(
            self._base.rpartition("/")[2],
            lambda: Supervisor(children, intensity=budget),
            backoff=BACKOFF,
        )

    @staticmethod
    def _names(kind: str, many: Sequence[object]) -> list[str]:
        return [kind if n == 0 else f"{kind}-{n + 1}" for n, _ in enumerate(many)]

    @property
    def carriers(self) -> Carriers:
        """See `Door`: an allocation's death costs its client nothing but a moment."""
        return Carriers((f"{self._base}/clients",), (f"{self._base}/allocations",))

    @property
    def draining(self) -> bool:
        return self.door.dispatcher.draining

    def commands(self) -> Mapping[str, DoorCommand]:
        return TurnCommands(self.door).commands()

    def agents(self) -> Iterable[Row]:
        """See `Viewed`: nobody is connected for longer than an allocation."""
        return ()

    def services(self) -> Iterable[Row]:
        """See `Viewed`: nothing is offered."""
        return ()

    def streams(self) -> Iterable[Row]:
        return TurnCommands(self.door).streams()

    def listening(self) -> list[Listening]:
        places = [
            Listening("UDP, TURN", f"{self._base}/listeners/{name}", endpoint.bound)
            for name, endpoint in zip(self._names("udp", self._udp), self._udp, strict=True)
        ]
        names = self._names("tcp", self._streams)
        return places + [
            Listening(
                "TLS, TURN" if binding.tls else "TCP, TURN",
                f"{self._base}/listeners/{name}",
                binding.bound,
            )
            for name, binding in zip(names, self._streams, strict=True)
        ]

    async def drain(self) -> None:
        """Send new clients elsewhere, and wait for the allocations that there are."""
        self.door.dispatcher.draining = True
        while True:
            if not self.door.dispatcher.allocations:
                break
            await asyncio.sleep(0.05)

    def reload(self, identity: TlsIdentity) -> str:
        """New connections see this certificate; users, secrets and peer rules are read again."""
        if self.door.settings.listen_tls:
            self._use(identity)
        if self._again is None:
            return ""
        try:
            settings = self._again()
        except OSError as error:
            return f"turn: users and secrets stay as they were: {error}"
        dispatcher = self.door.dispatcher
        dispatcher.authentication.accounts = self.door.accounts(settings)
        dispatcher.peers = self.door.peer_filter(settings)
        return ""

    def abort(self) -> None:
        """Close what outlives the tree: relayed sockets."""
        dispatcher = self.door.dispatcher
        for record in list(dispatcher.allocations.values()):
            dispatcher.close(record, "shutdown")
        dispatcher.forget_reservations()
