"""Forward streams as agents see them: a grant on ctrl, and a UDP socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.edge.forward.context import ForwardContext
from actors.edge.forward.settings import ForwardSettings
from actors.edge.settings import EdgeSettings
from actors.runtime import inspection
from actors.transport.quic import QuicSettings
from tests.conftest import PkiFixture, eventually
from tests.edge.rig import Incoming, RawAgent, Relay, relay
from wire.orp.forward_datagram import encode_data, encode_registration
from wire.orp.messages import AllocGranted, OpenStream, StreamAccept

FORWARD_ALL = (
    '[[rule]]\nid = "all"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'
    'relay_mode = "forward"\n'
)


class Plug:
    """An agent's UDP socket towards the forward plane."""

    def __init__(self, endpoint: str, host: str = "") -> None:
        address, _, port = endpoint.rpartition(":")
        self.relay = (address.strip("[]"), int(port))
        family = socket.AF_INET6 if ":" in self.relay[0] else socket.AF_INET
        host = host or ("::1" if family == socket.AF_INET6 else "127.0.0.1")
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((host, 0))
        self.received: list[bytes] = []
        self.sources: set[str] = set()
        asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def _readable(self) -> None:
        data, source = self.sock.recvfrom(65536)
        self.received.append(data)
        self.sources.add(f"{source[0]}:{source[1]}")

    def register(self, mine: int, trailing: bytes = b"") -> None:
        """Send the registration datagram."""
        self.send_raw(encode_registration(mine) + trailing)

    def send(self, peer: int, payload: bytes) -> None:
        """Send one datagram to the peer's allocation."""
        self.send_raw(encode_data(peer, payload))

    def send_raw(self, datagram: bytes) -> None:
        """Send anything."""
        self.sock.sendto(datagram, self.relay)

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()


class ForwardStream:
    """One forward stream: both data streams, both grants, both sockets."""

    def __init__(
        self,
        mine: Incoming,
        theirs: Incoming,
        grants: tuple[AllocGranted, AllocGranted],
    ) -> None:
        self.mine = mine
        self.theirs = theirs
        self.grants = grants
        self.consumer = Plug(grants[0].forward_endpoint)
        self.provider = Plug(grants[1].forward_endpoint)

    def register(self) -> None:
        """Both agents register."""
        self.consumer.register(self.grants[0].my_allocation)
        self.provider.register(self.grants[1].my_allocation)

    def from_consumer(self, payload: bytes) -> None:
        """The consumer sends a datagram."""
        self.consumer.send(self.grants[0].peer_allocation, payload)

    def from_provider(self, payload: bytes) -> None:
        """The provider sends a datagram."""
        self.provider.send(self.grants[1].peer_allocation, payload)

    async def exchange(self, text: str) -> None:
        """A datagram arrives each way; they are sent again until both did."""
        there, back = f"{text} there".encode(), f"{text} back".encode()

        def arrived() -> bool:
            if there in self.provider.received and back in self.consumer.received:
                return True
            self.from_consumer(there)
            self.from_provider(back)
            return False

        await eventually(arrived)

    def close(self) -> None:
        """Close both sockets."""
        self.consumer.close()
        self.provider.close()


class ForwardRelay:
    """A relay with a forward plane, two agents and their forward streams."""

    def __init__(self, running: Relay, provider: RawAgent, consumer: RawAgent) -> None:
        self.running = running
        self.provider = provider
        self.consumer = consumer
        self.streams: list[ForwardStream] = []
        self.opened = 0

    @property
    def place(self) -> ForwardContext:
        """The plane."""
        place = self.running.edge.door.forward
        assert place is not None
        return place

    @property
    def counters(self) -> dict[str, int]:
        """The plane's counters."""
        return dict(self.place.table.counters)

    def allocations(self) -> list[str]:
        """Paths of the live allocation actors, in the order they were granted."""
        cell = self.running.system.find("/edge/forward/allocations")
        children = cell.children if cell is not None else None
        return [child.path for child in (children or {}).values()]

    def says(self, path: str, key: str) -> object:
        """One entry of an actor's description."""
        cell = self.running.system.find(path)
        assert cell is not None, path
        described = inspection.details(cell)["describe"]
        assert isinstance(described, dict)
        return described[key]

    async def open(self, stream_id: int) -> ForwardStream:
        """Open a stream, accept it, wait for both grants."""
        mine = self.consumer.open(OpenStream("svc", "", stream_id).encode() + b"early")
        self.opened += 1
        theirs, _ = await self.provider.next_incoming(self.opened)
        theirs.stream.write(StreamAccept().encode() + b"early")
        grants = [await granted(agent, stream_id) for agent in (self.consumer, self.provider)]
        stream = ForwardStream(mine, theirs, (grants[0], grants[1]))
        self.streams.append(stream)
        return stream


async def granted(agent: RawAgent, stream_id: int) -> AllocGranted:
    """The grant of a stream, once it is there."""

    def found() -> list[AllocGranted]:
        return [
            event
            for event in agent.events
            if isinstance(event, AllocGranted) and event.stream_id == stream_id
        ]

    await eventually(lambda: bool(found()))
    return found()[-1]


@asynccontextmanager
async def forward_relay(
    pki: PkiFixture,
    tmp_path: Path,
    forward: ForwardSettings | None = None,
    quic: QuicSettings | None = None,
) -> AsyncIterator[ForwardRelay]:
    """A relay whose every stream is forwarded, with a provider of `svc` and a consumer."""
    settings = EdgeSettings(
        region="local", forward=forward or ForwardSettings(listen=("127.0.0.1", 0))
    )
    async with relay(pki, tmp_path, rules=FORWARD_ALL, settings=settings, quic=quic) as running:
        provider = running.agent(pki, pki.provider)
        consumer = running.agent(pki, pki.consumer)
        await provider.connect(running.address, "svc")
        await consumer.connect(running.address)
        up = ForwardRelay(running, provider, consumer)
        try:
            yield up
        finally:
            for stream in up.streams:
                stream.close()
