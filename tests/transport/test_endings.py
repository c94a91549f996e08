"""Connections leave nothing behind that only the garbage collector would find.

The daemon's collector comes rarely, by the number of objects, and knows nothing of the buffers
behind them: a few thousand connections that end in cycles are a gigabyte.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from actors.transport.connection import Connection, DialFailed
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.engines import select
from actors.transport.stream import Stream
from actors.transport.tcp import TcpEndpoint, TcpSettings
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import LOCAL

TRANSPORTS = ("tcp", "native", "aioquic")
COUNT = 5
#: Where types come from that hold buffers, sockets and keys, or hold those that do.
OURS = ("actors", "wire", "aioquic", "qh3", "ssl", "_ssl", "socket", "asyncio", "cryptography")
Endpoint = QuicEndpoint | TcpEndpoint


@contextmanager
def no_collector() -> Iterator[None]:
    for engine in TRANSPORTS[1:]:
        select(engine)  # tries itself out, once
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cyclic_garbage() -> Counter[str]:
    """Types of what is unreachable and still there."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = [type(one) for one in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    names = Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in found)
    kept = {n: c for n, c in names.items() if n.partition(".")[0] in OURS or "bytearray" in n}
    return Counter(kept)


def echo(connections: list[Connection]) -> Callable[[Connection], None]:
    def on_stream(stream: Stream) -> None:
        stream.on_data = lambda data: (stream.write(data), stream.consume(len(data)))
        stream.on_eof = stream.write_eof
        stream.start()

    def take(connection: Connection) -> None:
        connection.on_stream = on_stream
        connection.on_closed = lambda reason: connections.remove(connection)
        connections.append(connection)
        connection.start()

    return take


def endpoint(transport: str, who: TlsIdentity, take: Any = None) -> Endpoint:
    if transport == "tcp":
        settings = TcpSettings(handshake_timeout=0.5)
        return TcpEndpoint(alpn=("orp/1",), identity=who, settings=settings, on_connection=take)
    quic = QuicSettings(engine=transport, handshake_timeout=0.5)
    return QuicEndpoint(alpn=("orp/1",), identity=who, settings=quic, on_connection=take)


@asynccontextmanager
async def between(pki: PkiFixture, transport: str, who: TlsIdentity) -> AsyncIterator[Any]:
    """A server, a client, and the connections the server has."""
    connections: list[Connection] = []
    server = endpoint(transport, identity(pki, pki.relay), echo(connections))
    client = endpoint(transport, who)
    server.attach(LOCAL)
    try:
        yield server, client, connections
    finally:
        client.abort()
        server.abort()


async def over(*endpoints: Endpoint) -> None:
    """Everything has ended, closing periods included."""

    def nothing_left() -> bool:
        for one in endpoints:
            statistics = one.statistics()
            if statistics.pending or statistics.connections:
                return False
            if isinstance(one, QuicEndpoint) and len(one._routes):
                return False
        return True

    await eventually(nothing_left, timeout=15)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def silent_peers(transport: str, address: tuple[str, int], said: bytes) -> list[Any]:
    """Sockets that begin a connection, say this and then nothing; and what belongs to them."""
    made: list[Any] = []
    for _ in range(COUNT):
        if transport == "tcp":
            sock = socket.create_connection(address)
            sock.sendall(said)
        else:
            configuration = QuicConfiguration(is_client=True, alpn_protocols=["orp/1"])
            quic = QuicConnection(configuration=configuration)
            quic.connect(address, now=0.0)
            first = quic.datagrams_to_send(now=0.0)[0][0]
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.sendto(first[:600] + bytes(600) if said else first, address)
            made.append(quic)
        made.append(sock)
    return made


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "said", [b"", b"\x16", b"GET / HTTP/1.0\r\n\r\n"], ids=["nothing", "little", "garbage"]
)
def test_handshakes_that_come_to_nothing(pki: PkiFixture, transport: str, said: bytes) -> None:
    async def main() -> None:
        async with between(pki, transport, identity(pki, pki.provider)) as (server, _, _):
            peers = silent_peers(transport, server.address, said)
            await eventually(lambda: server.counters)
            await over(server)
            assert not cyclic_garbage()
            for one in peers:
                if isinstance(one, socket.socket):
                    one.close()

    with no_collector():
        run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", ["stranger", "wrong name", "nobody there", "cancelled"])
def test_dials_that_fail(pki: PkiFixture, transport: str, way: str) -> None:
    who = identity(pki, pki.provider)
    if way == "stranger":
        foreign = TlsIdentity.load(
            pki.foreign_agent.certificate, pki.foreign_agent.key, pki.foreign_ca_certificate
        )
        who = replace(foreign, authorities=who.authorities)

    async def main() -> None:
        async with between(pki, transport, who) as (server, client, _):
            for _ in range(COUNT):
                address = ("127.0.0.1", 9) if way == "nobody there" else server.address
                name = "elsewhere" if way == "wrong name" else "localhost"
                dial = asyncio.ensure_future(client.connect(address, server_name=name, timeout=0.3))
                if way == "cancelled":
                    await asyncio.sleep(0.001)
                    dial.cancel()
                result = (await asyncio.gather(dial, return_exceptions=True))[0]
                if isinstance(result, Connection):  # with TLS 1.3 a client learns late
                    result.start()
                    await eventually(lambda r=result: r.closed is not None)  # type: ignore[misc]
                else:
                    assert isinstance(result, DialFailed | asyncio.CancelledError)
                    result.__traceback__ = None  # the test's own
                del dial, result
            await over(server, client)
            assert not cyclic_garbage()

    with no_collector():
        run(main(), timeout=30)


async def _use(connection: Connection) -> None:
    stream = connection.open_stream()
    assert stream is not None
    ended = asyncio.Event()
    stream.on_data = lambda data: stream.consume(len(data))
    stream.on_eof = ended.set
    stream.start()
    stream.write(bytes(100_000))
    stream.write_eof()
    await ended.wait()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", ["close", "abort", "server closes", "server aborts", "busy"])
def test_connections_that_were_used(pki: PkiFixture, transport: str, way: str) -> None:
    async def main() -> None:
        async with between(pki, transport, identity(pki, pki.provider)) as (server, client, mine):
            for _ in range(COUNT):
                connection = await client.connect(server.address)
                connection.start()
                await _use(connection)
                if way == "busy":
                    stream = connection.open_stream()
                    assert stream is not None
                    stream.start()
                    stream.write(bytes(50_000))
                    del stream
                if way == "abort":
                    connection.abort()
                elif way.startswith("server"):
                    other = mine[-1]
                    if way == "server closes":
                        other.close(7, "over")
                    else:
                        mine.remove(other)
                        other.abort()
                    del other
                    await eventually(lambda c=connection: c.closed is not None)  # type: ignore[misc]
                else:
                    connection.close(0, "")
                del connection
            await over(server, client)
            assert not mine
            assert not cyclic_garbage()

    with no_collector():
        run(main(), timeout=30)


@pytest.mark.parametrize("how", ["reset", "end"])
def test_tcp_peers_that_go_away_in_the_middle(pki: PkiFixture, how: str) -> None:
    async def main() -> None:
        async with between(pki, "tcp", identity(pki, pki.provider)) as (server, client, mine):
            for _ in range(COUNT):
                connection = await client.connect(server.address)
                connection.start()
                await _use(connection)
                await eventually(lambda: mine)
                sock = connection._transport.get_extra_info("socket")
                if how == "reset":
                    linger = b"\x01\0\0\0\0\0\0\0"
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    connection._transport.abort()
                else:
                    sock.shutdown(socket.SHUT_WR)
                await eventually(lambda: not mine)
                del connection, sock
            await over(server, client)
            assert not cyclic_garbage()

    with no_collector():
        run(main(), timeout=30)
