"""A door of about a hundred lines: what comes over a TCP connection, or as a datagram, goes back.

It stands for the doors to come: nothing outside this folder and one line in a schema knows it.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any, ClassVar

from actors.doors.door import Carriers, DoorContext, DoorKind, Listening
from actors.runtime import Actor, ChildSpec, DynamicSupervisor, Restart, Supervisor, shutdown
from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tls import TlsIdentity
from config.setting_types import OptionalAddress, TlsDoorRoom
from tests.doors.echo.datagrams import DatagramListener, make_endpoint

CHUNK = 4096
LIMITS = AcceptLimits(most=64, most_per_source=64)


class EchoSettings(TlsDoorRoom):
    """The echo door of the tests."""

    wiring: ClassVar[str] = "tests.doors.echo.wiring"

    listen: OptionalAddress = None
    datagrams: OptionalAddress = None


class EchoConnection(Actor):
    """One connection."""

    def __init__(self, door: EchoDoor, sock: socket.socket, place: Place) -> None:
        self._door, self._sock, self._place = door, sock, place

    def init(self) -> None:
        """Own the socket, and echo."""
        self.own(self, "socket")
        self._place.proved()
        self.system.loop.add_reader(self._sock, self.guard("socket", self._echo))

    def abort(self) -> None:
        """The actor's resource: socket and place."""
        self.system.loop.remove_reader(self._sock)
        self._sock.close()
        self._place.leave()

    def _echo(self) -> None:
        data = self._sock.recv(CHUNK)
        if not data:
            self.stop(shutdown("closed by the peer"))
            return
        self._door.counters["echoed_bytes"] += self._sock.send(data)


class EchoListener(Actor):
    """The socket; a new incarnation binds the port of the first."""

    def __init__(self, door: EchoDoor) -> None:
        self._door = door

    def init(self) -> None:
        """Bind."""
        host, port = self._door.address or self._door.wanted
        sock = listen_tcp(host, port)
        self._door.address = sock.getsockname()[:2]
        acceptor = self.own(Acceptor(LIMITS, self._take, name="echo"), "acceptor")
        acceptor.attach(sock, self.guard)

    def _take(self, sock: socket.socket, _: Any, place: Place) -> None:
        connections = self.system.ref("/echo/connections")
        assert connections is not None
        self._door.serial += 1
        self.system.start_child(
            connections,
            ChildSpec(
                f"c{self._door.serial}",
                lambda: EchoConnection(self._door, sock, place),
                restart=Restart.TEMPORARY,
            ),
        )


class EchoDoor:
    """The door itself: what the composition asks of one."""

    carriers = Carriers(("/echo/connections",))

    def __init__(
        self, context: DoorContext, wanted: tuple[str, int], datagrams: tuple[str, int] | None
    ) -> None:
        self.wanted = wanted
        self._datagrams = datagrams
        self.address: tuple[str, int] | None = None
        self.draining = False
        self.reloaded: list[TlsIdentity] = []
        self.counters = context.meters.family("echo_events_total", "event")
        self.serial = 0
        self._system = context.system
        self._quic = make_endpoint(context.identity, self.counters)

    def spec(self) -> ChildSpec:
        """Listener and connections."""
        children = [
            ChildSpec("connections", lambda: DynamicSupervisor(max_children=64)),
            ChildSpec("listener", lambda: EchoListener(self)),
        ]
        if (address := self._datagrams) is not None:
            listener = partial(DatagramListener, self._quic, address, self.counters)
            children.append(ChildSpec("datagrams", listener))
        return ChildSpec("echo", lambda: Supervisor(children))

    def listening(self) -> list[Listening]:
        """One address, or two."""
        listening = [Listening("TCP", "/echo/listener", self.address)]
        if self._datagrams is not None:
            listening.append(Listening("QUIC", "/echo/datagrams", self._quic.address))
        return listening

    async def drain(self) -> None:
        """Wait for the connections."""
        self.draining = True
        self._quic.accepting = False
        while (cell := self._system.find("/echo/connections")) is not None and cell.children:
            await asyncio.sleep(0.02)

    def reload(self, identity: TlsIdentity) -> str:
        """Counted, so that it can be seen."""
        self.counters["reloads"] += 1
        self._quic.reload(identity)
        return ""

    def abort(self) -> None:
        """The endpoint outlives the tree."""
        self._quic.abort()


def open_echo(context: DoorContext) -> EchoDoor | None:
    """None unless the settings name an address."""
    settings: EchoSettings = getattr(context.settings, DOOR.name)
    if settings.listen is None:
        return None
    datagrams = settings.datagrams
    return EchoDoor(
        context,
        (settings.listen.host, settings.listen.port),
        (datagrams.host, datagrams.port) if datagrams is not None else None,
    )


DOOR = DoorKind("echo", open_echo)
