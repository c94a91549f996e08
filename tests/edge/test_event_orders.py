"""Whatever ends in one packet, in whatever order: a connection's actor ends it, and never crashes.

A transport tells what a packet held when it has read all of it: data of a stream that is gone by
then, a FIN before the reset, the end of the connection behind both.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from actors.control.backend import Backend, Registration, Relay
from actors.control.store.requests import RegisterServices, UpsertRelay
from actors.edge.settings import EdgeSettings
from actors.pki.certificates import agent_identity
from actors.runtime import ActorSystem
from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.quic_connection import QuicConnectionHandle
from actors.transport.stream import Stream, StreamClosed
from actors.transport.tcp import TcpEndpoint
from actors.transport.tcp.tls_context import client_context
from actors.transport.tcp.yamux_connection import YamuxConnection
from tests.conftest import PkiFixture, eventually, run
from tests.edge.relay_rig import relay_leaf, relay_settings
from tests.edge.rig import Incoming, RawAgent, identity, leaf_of, relay
from tests.edge.test_hostile import GoodPair
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root
from wire.orp.agent_session import AgentSession
from wire.orp.messages import (
    ForwardStream,
    HelloAck,
    IncomingStream,
    ObservedAddrQuery,
    OpenStream,
    Ping,
    Register,
    StreamAccept,
    StreamReject,
    StreamResume,
)
from wire.yamux.frame import Flag, FrameType, header

Act = Callable[[], object]
DATA, UPDATE, PING, GO_AWAY = FrameType
SYN, ACK, FIN, RST = Flag.SYN, Flag.ACK, Flag.FIN, Flag.RST


def crashes(system: ActorSystem) -> list[object]:
    """Ends of actors by their own failure."""
    return [
        (event.path, event.fields["reason"], event.fields.get("traceback"))
        for event in system.events.history
        if event.kind == "exited"
        and not str(event.fields["reason"]).startswith(("normal", "shutdown", "killed"))
    ]


def control_bytes(uri: str) -> list[bytes]:
    """What a ctrl stream may hold, good and bad."""
    session = AgentSession(uri, [Register("web")], 0.0)
    hello = session.data_to_send()
    return [
        hello,
        hello + Register("other").encode(),
        hello + ObservedAddrQuery(7).encode() + Ping().encode(),
        hello[:5],
        hello + hello,
        b"\xff" * 40,
        b"",
    ]


def stream_bytes() -> list[bytes]:
    """What a data stream may begin with."""
    return [
        OpenStream("svc", "", 77).encode(),
        OpenStream("svc", "", 77).encode() + b"early",
        OpenStream("nothing", "", 78).encode(),
        StreamResume(5).encode(),
        ForwardStream("svc", "", agent_identity("acme", UUID(int=1)), 79).encode() + b"early",
        ForwardStream("nothing", "", "x", 80).encode(),
        b"\x00" * 9,
        b"",
    ]


# The relay, over TCP.


def yamux_segments(uri: str, chance: random.Random) -> bytes:
    """One write: streams that begin and end in every way, and perhaps the session."""
    frames: list[bytes] = []
    for number in range(1, chance.randint(2, 5) * 2, 2):
        payload = chance.choice(control_bytes(uri) if number == 1 else stream_bytes())
        flags = chance.choice([SYN, SYN, SYN, SYN | FIN, SYN | RST, SYN | FIN | RST])
        frames.append(header(DATA, flags, number, len(payload)) + payload)
        for _ in range(chance.randint(0, 3)):
            kind = chance.choice([DATA, UPDATE])
            ends = chance.choice([FIN, RST, FIN | RST, SYN, ACK, Flag.NONE, SYN | RST])
            frames.append(header(kind, ends, number, 0))
        if chance.random() < 0.3:  # the id again
            frames.append(header(DATA, SYN, number, len(payload)) + payload)
    if chance.random() < 0.3:
        frames.insert(chance.randrange(len(frames) + 1), header(GO_AWAY, 0, 0, chance.randrange(3)))
    if chance.random() < 0.2:
        frames.append(b"\x09" * 12)
    if chance.random() < 0.2:
        chance.shuffle(frames)
    return b"".join(frames)


async def one_segment(
    address: tuple[str, int], context: ssl.SSLContext, segment: bytes, *, close: bool
) -> None:
    reader, writer = await asyncio.open_connection(
        *address, ssl=context, server_hostname="localhost"
    )
    writer.write(segment)
    if not close:
        try:
            async with asyncio.timeout(0.02):
                while await reader.read(65_536):
                    pass
        except (TimeoutError, OSError):
            pass
    writer.transport.abort()


@pytest.mark.parametrize("seed", range(3))
def test_a_relay_over_tcp(pki: PkiFixture, tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        leaf = leaf_of(pki, tmp_path, "acme", 99)
        async with relay(pki, tmp_path, tcp=True) as running:
            pair = await GoodPair(running, pki).open()
            context = client_context(identity(pki, leaf), ["orp/1"])
            for _ in range(100):
                segment = yamux_segments(leaf.identity, chance)
                await one_segment(
                    running.edge.tcp_addresses[0], context, segment, close=chance.random() < 0.3
                )
                assert not crashes(running.system)
            await pair.still_works()
            await eventually(lambda: len(running.edge.door.connections) == 2)
            assert not crashes(running.system)

    run(main(), timeout=50)


def test_data_and_reset_of_the_ctrl_stream_in_one_segment(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, tcp=True) as running:
            context = client_context(identity(pki, pki.consumer), ["orp/1"])
            hello = control_bytes(pki.consumer.identity)[0]
            for end in (RST, FIN | RST, FIN):
                segment = header(DATA, SYN, 1, len(hello)) + hello + header(UPDATE, end, 1, 0)
                await one_segment(running.edge.tcp_addresses[0], context, segment, close=False)
            for code in (0, 1, 2):
                segment = header(DATA, SYN, 1, len(hello)) + hello + header(GO_AWAY, 0, 0, code)
                await one_segment(running.edge.tcp_addresses[0], context, segment, close=False)
            await eventually(lambda: not running.edge.door.connections)
            assert not crashes(running.system)

    run(main())


# The same acts of a peer, over both transports.


def flush(connection: Connection) -> None:
    """What was said goes out now, as a packet of its own: the peer reads them together."""
    if isinstance(connection, QuicConnectionHandle):
        connection._endpoint.transmit_now(connection)
    else:
        assert isinstance(connection, YamuxConnection)
        connection._flush()


def acts_on(stream: Stream, payload: bytes, chance: random.Random) -> list[Act]:
    """What can be done with a stream, some of it, in some order."""
    piece = chance.randrange(len(payload) + 1)
    acts: list[Act] = [
        lambda: stream.write(payload[:piece]),
        lambda: stream.write(payload[piece:]),
        lambda: flush(stream.connection),
    ]
    ends: list[Act] = [
        stream.write_eof,
        lambda: stream.reset(chance.choice([0, 5, 0x0A])),
        lambda: stream.stop_sending(chance.choice([0, 5])),
        lambda: flush(stream.connection),
        stream.start,
    ]
    ends = chance.sample(ends, chance.randint(0, len(ends)))
    if chance.random() < 0.3:
        acts += ends
        chance.shuffle(acts)
        return acts
    return acts + ends


def perform(acts: list[Act]) -> None:
    for act in acts:
        try:
            act()
        except StreamClosed:
            continue  # what we ended, we cannot write to


async def _burst(agent: RawAgent, chance: random.Random) -> None:
    connection = agent.connection
    perform(acts_on(agent.ctrl, chance.choice(control_bytes(agent.uri)), chance))
    for _ in range(chance.randint(0, 4)):
        stream = connection.open_stream()
        if stream is not None:
            perform(acts_on(stream, chance.choice(stream_bytes()), chance))
    if chance.random() < 0.3:
        connection.close(chance.choice([0, 0x0A]), "bye")
    await asyncio.sleep(chance.choice([0, 0, 0.01]))


@pytest.mark.parametrize("engine", ["native", "aioquic"])
@pytest.mark.parametrize("peer", ["agent", "relay"])
def test_a_relay_over_quic(pki: PkiFixture, tmp_path: Path, engine: str, peer: str) -> None:
    async def main() -> None:
        chance = random.Random(peer)
        leaf = leaf_of(pki, tmp_path, "acme", 99) if peer == "agent" else relay_leaf(pki, "r2")
        edge = EdgeSettings(region="local", relays=relay_settings("r1"))
        settings = QuicSettings(engine=engine)
        async with relay(pki, tmp_path, quic=settings, settings=edge) as running:
            pair = await GoodPair(running, pki).open()
            for _ in range(60):
                agent = running.agent(pki, leaf)
                await agent.dial(running.address)
                await _burst(agent, chance)
                agent.endpoint.abort()
                assert not crashes(running.system)
            await pair.still_works()
            await eventually(lambda: len(running.edge.door.connections) == 2)
            assert not crashes(running.system)

    run(main(), timeout=55)


# The agent, before a relay that does such things.


class EvilRelay:
    """Answers a HELLO, opens streams, and ends everything in every order."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.connections = 0

    def take(self, connection: Connection) -> None:
        self.connections += 1
        connection.on_stream = lambda stream: self._ctrl(connection, stream)
        connection.start()

    def _ctrl(self, connection: Connection, ctrl: Stream) -> None:
        def heard(chunk: bytes) -> None:
            ctrl.consume(len(chunk))
            ctrl.on_data = lambda data: ctrl.consume(len(data))
            self._act(connection, ctrl)

        ctrl.on_data = heard
        ctrl.start()

    def _act(self, connection: Connection, ctrl: Stream) -> None:
        chance = self._chance
        welcome = HelloAck("r1").encode()
        payload = chance.choice(
            [welcome, welcome + Ping().encode(), welcome[:4], b"\xff" * 30, welcome + welcome]
        )
        perform(acts_on(ctrl, payload, chance))
        for _ in range(chance.randint(0, 3)):
            stream = connection.open_stream()
            if stream is None:
                break
            first = chance.choice(
                [
                    IncomingStream("verified", "", "outrelay://acme/agent/x", 9).encode(),
                    IncomingStream("verified", "", "x", 10).encode() + b"early",
                    b"\x00" * 9,
                ]
            )
            perform(acts_on(stream, first, chance))
        if chance.random() < 0.5:
            connection.close(chance.choice([0, 0x0A]), "bye")
        else:
            asyncio.get_running_loop().call_later(0.01, connection.close, 0x0A)


@asynccontextmanager
async def evil(
    pki: PkiFixture, transport: str, chance: random.Random
) -> AsyncIterator[tuple[EvilRelay, tuple[str, int]]]:
    one = EvilRelay(chance)
    who = identity(pki, pki.relay)
    endpoint: QuicEndpoint | TcpEndpoint
    if transport == "tcp":
        endpoint = TcpEndpoint(alpn=("orp/1",), identity=who, on_connection=one.take)
    else:
        endpoint = QuicEndpoint(alpn=("orp/1",), identity=who, on_connection=one.take)
    endpoint.attach(("127.0.0.1", 0))
    assert endpoint.address is not None
    try:
        yield one, endpoint.address
    finally:
        endpoint.abort()


@pytest.mark.parametrize("transport", ["quic", "tcp"])
def test_an_agent(pki: PkiFixture, transport: str) -> None:
    """It dials dozens of such relays, one after the other, and has not crashed."""

    async def main() -> None:
        async with evil(pki, transport, random.Random(11)) as (bad, address):
            settings = AgentSettings(
                certificate=str(pki.provider.certificate),
                key=str(pki.provider.key),
                ca=str(pki.ca),
                relays=(address,) if transport == "quic" else (("127.0.0.1", 9),),
                relays_tcp=(address,) if transport == "tcp" else (),
                provide=(Service("verified", "127.0.0.1", 9),),
                dial_timeout=0.3,
                backoff=0.01,
                backoff_cap=0.02,
                resume_window=0.1,
            )
            system = ActorSystem("agent")
            await system.start(lambda: agent_root(settings))
            try:
                wanted = 60 if transport == "quic" else 25
                await eventually(lambda: bad.connections >= wanted, timeout=45)
                assert not crashes(system)
            finally:
                await system.stop(timeout=5.0)
            assert not crashes(system)

    run(main(), timeout=58)


def _answered(pair: GoodPair, asked: dict[int, Incoming]) -> bool:
    """Every stream began, was refused, or ended."""
    ready = pair.consumer.ready_streams
    return all(
        one.eof or one.reset_code is not None or one.data or n in ready for n, one in asked.items()
    )


def test_a_relay_that_asks_another_one(pki: PkiFixture, tmp_path: Path) -> None:
    """The other relay takes the stream, and ends it and the connection in every order."""

    async def main() -> None:
        chance = random.Random(5)
        far = agent_identity("acme", UUID(int=99))

        def take(connection: Connection) -> None:
            connection.on_stream = lambda stream: act(connection, stream)
            connection.start()

        def act(connection: Connection, stream: Stream) -> None:
            answer = chance.choice(
                [
                    StreamAccept().encode(),
                    StreamAccept().encode() + b"early",
                    StreamReject(503, "no").encode(),
                    b"\x00" * 9,
                    b"",
                ]
            )
            stream.start()
            perform(acts_on(stream, answer, chance))
            if chance.random() < 0.3:
                connection.close(chance.choice([0, 0x0A]), "bye")

        other = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, relay_leaf(pki, "r2")), on_connection=take
        )
        other.attach(("127.0.0.1", 0))
        assert other.address is not None
        edge = EdgeSettings(
            region="local",
            resolve_deadline=2.0,
            policy_deadline=2.0,
            incoming_deadline=0.1,
            accept_deadline=0.1,
            relays=relay_settings("r1"),
        )
        try:
            async with relay(pki, tmp_path, settings=edge) as running:
                store = running.system.ref("/control/store")
                assert store is not None
                backend = Backend(store, relay_alive_seconds=0)
                now = int(time.time() * 1000)
                await backend.ask(
                    UpsertRelay(Relay("r2", "", f"127.0.0.1:{other.address[1]}"), now)
                )
                await backend.ask(
                    RegisterServices([Registration("acme", "far", far, "r2", "", now)])
                )
                pair = await GoodPair(running, pki).open()
                for turn in range(20):
                    ids = range(1000 + 4 * turn, 1004 + 4 * turn)
                    asked = {n: pair.consumer.open(OpenStream("far", "", n).encode()) for n in ids}
                    await eventually(lambda asked=asked: _answered(pair, asked), timeout=10)  # type: ignore[misc]
                    for one in asked.values():
                        one.stream.abort()
                assert running.counters["relay_connected"] > 3
                assert not crashes(running.system)
                await pair.still_works()
        finally:
            other.abort()

    run(main(), timeout=50)
