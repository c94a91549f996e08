"""A real control plane and edge door in one loop, and raw ORP agents over real QUIC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actors.control.store.embedded import embedded_backend
from actors.control.tree import control_plane, control_spec
from actors.edge.settings import EdgeSettings
from actors.edge.tree import Edge
from actors.pki.certificates import KeyPair, agent_identity, create_leaf
from actors.pki.dev_pki import LeafFiles
from actors.pki.files import pair_paths, write_pair
from actors.runtime import ActorSystem, Intensity, Supervisor
from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import CloseReason, Stream
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually
from wire.orp.agent_session import AgentSession
from wire.orp.events import ServiceRegistered, SessionReady
from wire.orp.frame import FrameReader
from wire.orp.messages import IncomingStream, Message, Register, StreamReady, decode

ALLOW_ALL = (
    '[[rule]]\nid = "all"\ntenant = "acme"\ncaller = "*"\ntarget = "*"\ndecision = "allow"\n'
)


def identity(pki: PkiFixture, leaf: LeafFiles) -> TlsIdentity:
    """The TLS identity of a leaf of the test PKI."""
    return TlsIdentity.load(leaf.certificate, leaf.key, pki.ca)


def leaf_of(pki: PkiFixture, directory: Path, tenant: str, number: int) -> LeafFiles:
    """A further agent of the test PKI, of any tenant; its files are in `directory`."""
    certificate = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    key = load_pem_private_key(pki.ca.with_name("ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    uri = agent_identity(tenant, UUID(int=number))
    paths = pair_paths(directory, f"{tenant}-{number}")
    pair = KeyPair(certificate, key)
    write_pair(paths, create_leaf(pair, uri, lifetime=timedelta(days=1), now=datetime.now(UTC)))
    return LeafFiles(uri, paths.certificate, paths.key)


class Incoming:
    """A stream as a peer sees it: bytes, EOF, reset."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.eof = False
        self.reset_code: int | None = None
        self.stopped_code: int | None = None
        self.lost: CloseReason | None = None
        stream.on_data = self._data
        stream.on_eof = lambda: setattr(self, "eof", True)
        stream.on_reset = lambda code: setattr(self, "reset_code", code)
        stream.on_stop_sending = lambda code: setattr(self, "stopped_code", code)
        stream.on_lost = lambda reason: setattr(self, "lost", reason)
        stream.start()

    def _data(self, chunk: bytes) -> None:
        self.data += chunk
        self.stream.consume(len(chunk))

    async def first_frame(self) -> Message:
        """The first frame; it is taken off the data."""
        message: list[Message] = []

        def complete() -> bool:
            if message:
                return True
            if self.data:
                fresh = FrameReader(4096)
                fresh.feed(bytes(self.data))
                frame = fresh.next_frame()
                if frame is not None:
                    self.data = bytearray(fresh.take_rest())
                    message.append(decode(frame))  # type: ignore[arg-type]  # known frames only
            return bool(message)

        await eventually(complete)
        return message[0]


class RawAgent:
    """An agent made of transport and wire only."""

    def __init__(self, endpoint: QuicEndpoint, uri: str) -> None:
        self.endpoint = endpoint
        self.uri = uri
        self.incoming: list[Incoming] = []
        self.events: list[object] = []
        self.closed: CloseReason | None = None
        self.connection: Connection
        self.ctrl: Stream

    @property
    def ready(self) -> bool:
        """HELLO and every REGISTER were answered."""
        return any(isinstance(event, SessionReady) for event in self.events)

    @property
    def ready_streams(self) -> list[int]:
        """Ids of STREAM_READY, in order."""
        return [event.stream_id for event in self.events if isinstance(event, StreamReady)]

    @property
    def registered(self) -> list[str]:
        """Service ids of REGISTER_ACKs."""
        return [event.service_id for event in self.events if isinstance(event, ServiceRegistered)]

    async def dial(self, address: tuple[str, int]) -> None:
        """Handshake only."""
        self.connection = await self.endpoint.connect(address)
        self.connection.on_stream = lambda stream: self.incoming.append(Incoming(stream))
        self.connection.on_closed = lambda reason: setattr(self, "closed", reason)
        self.connection.start()
        ctrl = self.connection.open_stream()
        if ctrl is None:
            await eventually(lambda: self.closed is not None)  # refused before we could say a word
        else:
            self.ctrl = ctrl

    async def connect(self, address: tuple[str, int], *services: str) -> None:
        """Handshake, HELLO and REGISTERs."""
        await self.dial(address)
        loop = asyncio.get_running_loop()
        self.session = AgentSession(self.uri, [Register(name) for name in services], loop.time())
        self.ctrl.on_data = self._from_ctrl
        self.ctrl.start()
        self.flush()
        await eventually(lambda: self.ready)

    def flush(self) -> None:
        """Write what the session wants to send."""
        data = self.session.data_to_send()
        if data:
            self.ctrl.write(data)

    def _from_ctrl(self, chunk: bytes) -> None:
        self.ctrl.consume(len(chunk))
        self.events += self.session.receive(chunk, asyncio.get_running_loop().time())
        self.flush()

    def open(self, first: bytes) -> Incoming:
        """A data stream with its first bytes."""
        stream = self.connection.open_stream()
        assert stream is not None
        stream.write(first)
        return Incoming(stream)

    async def next_incoming(self, count: int) -> tuple[Incoming, IncomingStream]:
        """The `count`-th stream the relay opened, and its INCOMING_STREAM."""
        await eventually(lambda: len(self.incoming) >= count)
        incoming = self.incoming[count - 1]
        message = await incoming.first_frame()
        assert isinstance(message, IncomingStream)
        return incoming, message


class Relay:
    """The running tree."""

    def __init__(self, system: ActorSystem, edge: Edge) -> None:
        self.system = system
        self.edge = edge
        self.endpoints: list[QuicEndpoint] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.edge.addresses[0]

    @property
    def counters(self) -> dict[str, int]:
        """The door's counters."""
        return dict(self.edge.door.counters)

    def agent(self, pki: PkiFixture, leaf: LeafFiles) -> RawAgent:
        """An agent that is not connected yet."""
        endpoint = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, leaf))
        self.endpoints.append(endpoint)
        return RawAgent(endpoint, leaf.identity)

    def streams(self) -> int:
        """Live stream pairs."""
        cell = self.system.find("/edge/streams")
        return len(cell.children or ()) if cell is not None else 0

    def kill(self, path: str) -> None:
        """Kill the actor at `path`."""
        ref = self.system.ref(path)
        assert ref is not None, path
        assert self.system.kill(ref, initiator="test")

    def only(self, path: str) -> str:
        """The path of the only child of a dynamic supervisor."""
        cell = self.system.find(path)
        assert cell is not None
        assert cell.children is not None
        assert len(cell.children) == 1
        return next(iter(cell.children.values())).path


@asynccontextmanager
async def relay(
    pki: PkiFixture,
    tmp_path: Path,
    *,
    rules: str = ALLOW_ALL,
    settings: EdgeSettings | None = None,
    quic: QuicSettings | None = None,
    leaf: LeafFiles | None = None,
    relay_id: str = "r1",
    port: int = 0,
    tcp: bool = False,
) -> AsyncIterator[Relay]:
    """Control and edge, up; everything is gone afterwards.

    Relays with the same `tmp_path` share their registry, as over a controller.
    """
    rule_file = tmp_path / "rules.toml"
    if not rule_file.exists() or rule_file.read_text() != rules:
        rule_file.write_text(rules)  # not while another relay reads it
    system = ActorSystem("test")
    edge = Edge(
        system,
        identity=identity(pki, leaf or pki.relay),
        control=lambda: control_plane(system),
        listen=[("127.0.0.1", port)],
        settings=settings or EdgeSettings(region="local"),
        quic=quic or QuicSettings(),
        listen_tcp=[("127.0.0.1", 0)] if tcp else [],
    )
    control = control_spec(
        embedded_backend(str(tmp_path / "control.db")),
        relay_id=relay_id,
        region="local",
        endpoint=f"127.0.0.1:{port or 7443}",
        policy_files=[rule_file],
    )
    budget = Intensity(restarts=20, period=30.0)
    await system.start(lambda: Supervisor([control, edge.spec()], intensity=budget))
    running = Relay(system, edge)
    try:
        yield running
    finally:
        for endpoint in running.endpoints:
            endpoint.abort()
        await system.stop(timeout=10.0)
        edge.abort()
