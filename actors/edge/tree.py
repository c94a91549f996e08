"""The subtree of the edge door, from plain values.

::

    edge              one_for_one
    ├─ listeners      one_for_one: one QuicListener or TcpListener per address
    ├─ forward        the UDP forward plane, when the settings have one
    ├─ agents         dynamic: one AgentConnection per connected agent
    ├─ streams        dynamic: one StreamPair (or ResumedPair) per open stream
    ├─ matcher        ResumeMatcher: joins halves of streams that came back
    ├─ halves         dynamic: one ResumeHalf per such half
    ├─ relays         dynamic: one RelayLink or RelayConnection per way to or from another relay
    └─ fleet          RelayFleet: which other relays there are

one_for_one, because a crash of one of them must not take the others: connections outlive
listeners, and a new listener finds its endpoint where the old one left it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter

from actors.control.messages import ControlPlane
from actors.doors.door import Carriers, Listening
from actors.doors.stream_account import access_log
from actors.edge.context import EdgeContext
from actors.edge.forward.tree import forward_place, forward_spec
from actors.edge.listener import QuicListener, TcpListener
from actors.edge.messages import Close
from actors.edge.pair_account import OUTCOMES
from actors.edge.relays.directory import RelayDirectory
from actors.edge.relays.fleet import RelayFleet
from actors.edge.relays.relay_link import RelayLink
from actors.edge.resume.matcher import ResumeMatcher
from actors.edge.settings import EdgeSettings
from actors.edge.views import agent_rows, service_rows, stream_rows
from actors.observe.meters import Meters
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
from actors.transport.addresses import only_ipv6
from actors.transport.connection import Connection, ConnectionStatistics
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.engines import AIOQUIC, NATIVE
from actors.transport.tcp import TcpEndpoint, TcpSettings, UnreadBudget
from actors.transport.tls import TlsIdentity
from wire.admin.messages import Row
from wire.orp.close_codes import CloseCode
from wire.orp.messages import ALPN

#: While a part of the door is away new streams wait: the pauses stay below the second that they
#: may wait (docs/chaos.md, 16); how often is the business of the restart budget.
BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)
_COUNTERS = (
    "agents_recycled_total",
    "intra_relay_hops",
    "stream_forward_assigned_total",
    "stream_migrated_p2p_total",
    "stream_opens_total",
    "stream_rejects",
)


def _numbered(name: str, count: int) -> list[str]:
    return [name if index == 0 else f"{name}-{index + 1}" for index in range(count)]


class Edge:
    """The wiring of one edge door: made before the tree, alive as long as the process.

    Args:
        control: finds the control actors; asked when the door starts, after control did.
        listen: addresses for QUIC.
        listen_tcp: addresses for TCP.
        meters: what is counted, for operators.
        access: place of the access log; empty: none is kept.
        base: the door's place in the tree.
    """

    def __init__(
        self,
        system: ActorSystem,
        *,
        identity: TlsIdentity,
        control: Callable[[], ControlPlane],
        listen: Sequence[tuple[str, int]],
        settings: EdgeSettings,
        quic: QuicSettings,
        listen_tcp: Sequence[tuple[str, int]] = (),
        tcp: TcpSettings = TcpSettings(),  # noqa: B008  # frozen value
        meters: Meters | None = None,
        access: str = "",
        base: str = "/edge",
    ) -> None:
        plane: list[ControlPlane] = []

        def found() -> ControlPlane:
            # Looked up once: references name places, and stay valid while control as a whole is
            # restarted and there is nothing to be found at those places.
            if not plane:
                plane.append(control())
            return plane[0]

        self._system = system
        self._listen = list(listen)
        self._listen_tcp = list(listen_tcp)
        self._base = base
        self._identity = identity
        directory = RelayDirectory(
            system,
            settings.relays,
            base=f"{base}/relays",
            dialler=lambda: QuicEndpoint(alpn=ALPN, identity=self._identity, settings=quic),
        )
        self.door = EdgeContext(
            settings,
            found,
            agents=lambda: self._place("agents"),
            streams=lambda: self._place("streams"),
            halves=lambda: self._place("halves"),
            matcher=lambda: self._place("matcher"),
            links=lambda: self._place("relays"),
            relays=directory,
            meters=meters or Meters(),
            clock=system.loop.time,
        )
        self.door.access = access_log(system, access, self.door.meters)
        self._count()
        directory.make_link = lambda relay_id: RelayLink(self.door, relay_id)
        directory.unheard = lambda relay_id: bool(self.door.pending_checkpoints(relay_id))
        if settings.forward is not None:
            self.door.forward = forward_place(system, settings.forward, f"{base}/forward")
        self.endpoints = [
            QuicEndpoint(
                alpn=ALPN,
                identity=identity,
                settings=quic,
                on_connection=_go_away,
                counters=self.door.meters.family("quic_events_total", "event"),
                until_welcome=True,
            )
            for _ in self._listen
        ]
        for endpoint in self.endpoints:
            endpoint.farewell = CloseCode.GOING_AWAY
        unread = UnreadBudget(tcp.unread)
        self.tcp_endpoints = [
            TcpEndpoint(
                unread=unread,
                alpn=ALPN,
                identity=identity,
                settings=tcp,
                on_connection=_go_away,
                counters=self.door.meters.family("tcp_events_total", "event"),
                until_welcome=True,
            )
            for _ in self._listen_tcp
        ]
        self._count_endpoints(unread)

    def _count(self) -> None:
        """What is there now, for whoever asks."""
        door, meters = self.door, self.door.meters

        def children(name: str) -> int:
            cell = self._system.find(f"{self._base}/{name}")
            return 0 if cell is None else len(cell.children or ())

        meters.declare(*_COUNTERS)
        meters.family("streams_ended_total", "outcome", OUTCOMES)
        for name in ("stream_ready_duration", "stream_open_duration"):
            meters.histogram(name)
        meters.totals["bytes_forwarded"] = lambda: door.volume.bytes
        meters.gauge("agents_connected", lambda: len(door.connections))
        meters.gauge("stream_active", lambda: children("streams"))
        meters.gauge("streams_waiting_for_resume", lambda: children("halves"))
        meters.gauge("relay_links", lambda: children("relays"))
        meters.gauge("replay_bytes", lambda: door.ring_budget.used)

    def _count_endpoints(self, unread: UnreadBudget) -> None:
        """What the sockets tell, summed over the listeners."""
        quic, tcp, meters = self.endpoints, self.tcp_endpoints, self.door.meters
        meters.gauge("quic_connections", lambda: sum(e.statistics().connections for e in quic))
        for engine in (NATIVE, AIOQUIC):
            meters.gauge(f"quic_connections_{engine}", partial(_connections_with, quic, engine))
        meters.gauge("quic_handshakes_pending", lambda: sum(e.statistics().pending for e in quic))
        meters.gauge("tcp_unread_bytes", lambda: unread.held)
        meters.totals["tcp_credit_withheld_total"] = lambda: unread.withheld
        meters.gauge("tcp_connections", lambda: sum(e.statistics().connections for e in tcp))
        meters.totals["quic_packets_lost_total"] = lambda: sum(e.packets_lost for e in quic)
        for name, field in (
            ("quic_round_trip_seconds", "round_trip"),
            ("quic_congestion_window_bytes", "congestion_window"),
            ("quic_in_flight_bytes", "in_flight"),
            ("quic_connection_streams", "streams"),
        ):
            meters.distributions[name] = partial(_of_paths, quic, attrgetter(field))
        meters.totals["udp_datagrams_in_total"] = lambda: sum(
            e.statistics().datagrams_in for e in quic
        )
        meters.totals["udp_datagrams_out_total"] = lambda: sum(
            e.statistics().datagrams_out for e in quic
        )
        meters.totals["udp_receive_calls_total"] = lambda: sum(
            e.statistics().udp.receive_calls for e in quic
        )
        meters.totals["udp_send_calls_total"] = lambda: sum(
            e.statistics().udp.send_calls for e in quic
        )

    def _place(self, name: str) -> ActorRef:
        ref = self._system.ref(f"{self._base}/{name}")
        if ref is None:
            raise ChildRefused(self._base, name, "down")
        return ref

    def spec(self) -> ChildSpec:
        """The door's subtree."""
        settings = self.door.settings
        listeners = [
            ChildSpec(
                name,
                lambda endpoint=endpoint, address=address: QuicListener(  # type: ignore[misc]
                    self.door, endpoint, address, only_ipv6=only_ipv6(address, self._listen)
                ),
                backoff=BACKOFF,
            )
            for name, endpoint, address in zip(
                _numbered("quic", len(self._listen)), self.endpoints, self._listen, strict=True
            )
        ]
        listeners += [
            ChildSpec(
                name,
                lambda endpoint=endpoint, address=address: TcpListener(  # type: ignore[misc]
                    self.door, endpoint, address, only_ipv6=only_ipv6(address, self._listen_tcp)
                ),
                backoff=BACKOFF,
            )
            for name, endpoint, address in zip(
                _numbered("tcp", len(self._listen_tcp)),
                self.tcp_endpoints,
                self._listen_tcp,
                strict=True,
            )
        ]
        budget = Intensity(restarts=10, period=10.0)
        children = [
            # First, so that it goes last: the others say goodbye through its sockets.
            ChildSpec(
                "listeners", lambda: Supervisor(listeners, intensity=budget), backoff=BACKOFF
            ),
            *([forward_spec(self.door.forward)] if self.door.forward is not None else []),
            ChildSpec(
                "agents",
                lambda: DynamicSupervisor(max_children=settings.max_agents),
                backoff=BACKOFF,
            ),
            ChildSpec(
                "streams",
                lambda: DynamicSupervisor(max_children=settings.max_streams),
                backoff=BACKOFF,
            ),
            ChildSpec("matcher", ResumeMatcher, backoff=BACKOFF),
            ChildSpec(
                "halves",
                lambda: DynamicSupervisor(max_children=settings.max_halves),
                backoff=BACKOFF,
            ),
            ChildSpec(
                "relays",
                lambda: DynamicSupervisor(max_children=settings.relays.max_links),
                backoff=BACKOFF,
            ),
            ChildSpec("fleet", lambda: RelayFleet(self.door), backoff=BACKOFF),
        ]

        def door() -> Supervisor:
            self.door.control()
            return Supervisor(children, intensity=budget)

        return ChildSpec(self._base.rpartition("/")[2], door, backoff=BACKOFF)

    @property
    def carriers(self) -> Carriers:
        return Carriers((f"{self._base}/agents",), (f"{self._base}/streams",))

    @property
    def draining(self) -> bool:
        return self.door.draining

    def listening(self) -> list[Listening]:
        return [
            Listening(transport, path, endpoint.address)
            for (transport, path), endpoint in zip(
                self._listener_places(), self._all_endpoints(), strict=True
            )
        ]

    def agents(self) -> Iterable[Row]:
        return agent_rows(self._system, self.door)

    def services(self) -> Iterable[Row]:
        return service_rows(self.door)

    def streams(self) -> Iterable[Row]:
        return stream_rows(self.door)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The bound addresses for QUIC, once the listeners ran."""
        return [endpoint.address for endpoint in self.endpoints if endpoint.address is not None]

    @property
    def tcp_addresses(self) -> list[tuple[str, int]]:
        """The same for TCP."""
        return [one.address for one in self.tcp_endpoints if one.address is not None]

    def _listener_places(self) -> list[tuple[str, str]]:
        """Transports and places of the listeners, QUIC first."""
        return [
            (transport, f"{self._base}/listeners/{name}")
            for transport, many in (("QUIC", self._listen), ("TCP", self._listen_tcp))
            for name in _numbered(transport.lower(), len(many))
        ]

    def abort(self) -> None:
        """Close what outlived the tree: endpoints, and connections nobody owns any more."""
        for endpoint in self._all_endpoints():
            endpoint.abort()

    def _all_endpoints(self) -> list[QuicEndpoint | TcpEndpoint]:
        return [*self.endpoints, *self.tcp_endpoints]

    def reload(self, identity: TlsIdentity) -> str:
        """New handshakes use this certificate; live connections stay."""
        self._identity = identity
        for endpoint in self._all_endpoints():
            endpoint.reload(identity)
        return ""

    async def drain(self) -> None:
        """Stop accepting, wait until no stream is open, then close the agents' connections.

        Waits as long as the caller lets it. Agents are closed with a code, never with FIN on
        their streams, so that they park and resume elsewhere (sheet 6.1 R15).
        """
        self.door.draining = True
        while True:
            streams = self._system.find(f"{self._base}/streams")
            if streams is None or not streams.children:
                break
            await asyncio.sleep(0.05)
        self.close_agents()

    def close_agents(self) -> None:
        """Tell every agent that the relay goes away."""
        agents = self._system.find(f"{self._base}/agents")
        if agents is not None and agents.children:
            for cell in list(agents.children.values()):
                cell.ref.try_tell(Close(CloseCode.GOING_AWAY, "going away"))


def _go_away(connection: Connection) -> None:
    """Before there is a listener. A close without a word would mean that we do not serve it."""
    connection.close(CloseCode.GOING_AWAY, "going away")


def _of_paths(
    endpoints: Sequence[QuicEndpoint], pick: Callable[[ConnectionStatistics], float]
) -> list[float]:
    return [pick(path) for endpoint in endpoints for path in endpoint.paths()]


def _connections_with(endpoints: Sequence[QuicEndpoint], engine: str) -> int:
    return sum(endpoint.statistics().engines.get(engine, 0) for endpoint in endpoints)
