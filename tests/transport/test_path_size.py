"""Datagrams that grow with the path, and a path that shrinks, over real sockets."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace

import pytest

from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import Stream
from actors.transport.udp import bind_udp
from tests.conftest import PkiFixture, eventually, run
from tests.transport.engines.rig import identity
from tests.transport.test_endpoint import echo, exchange
from tools.bench.lossy_proxy import LossyProxy, Weather

ENGINES = ("native", "aioquic")
BLOB = os.urandom(3_000_000)
BASE = QuicSettings().max_datagram
CALM = Weather(lost=0.0, doubled=0.0, late=0.0, delay=0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="the socket option is Linux's")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_sockets_forbid_fragmentation(host: str) -> None:
    sock = bind_udp(host, 0, whole=True)
    try:
        probe = 3  # IP_PMTUDISC_PROBE, ip(7)
        assert sock.getsockopt(socket.IPPROTO_IP, 10) == probe
        if ":" in host:
            assert sock.getsockopt(socket.IPPROTO_IPV6, 23) == probe
    finally:
        sock.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_transfer_survives_a_path_that_shrinks(pki: PkiFixture, engine: str) -> None:
    """With the aioquic engine in place; with the native one on the next connection."""

    async def main() -> None:
        settings = QuicSettings(engine=engine)
        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=settings,
            on_connection=echo,
        )
        client = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings
        )
        bound = server.attach(("127.0.0.1", 0))
        proxy = LossyProxy(bound, CALM, seed=1)
        await proxy.start()
        try:
            connection = await client.connect(proxy.address)
            connection.start()
            for _ in range(3):
                assert await exchange(connection, BLOB) == BLOB
            assert proxy.counters["too_large"] == 0
            statistics = connection.statistics()
            assert statistics.bytes_out / statistics.datagrams_out > BASE / 2
            proxy.weather = replace(CALM, mtu=BASE)
            if engine == "native":
                stream = connection.open_stream()
                assert stream is not None
                stream.start()
                stream.write(BLOB[: 1 << 20])
                await eventually(lambda: connection.closed is not None, timeout=20)
                assert connection.closed is not None
                assert connection.closed.code == 0x10
                assert client.counters["black_hole"] == 1
                # A handshake that comes in one wake-up with the close is older than its news.
                await eventually(lambda: server.counters["black_hole"] == 1)
                connection = await client.connect(proxy.address)
                connection.start()
                before = proxy.counters["too_large"]
                stream = connection.open_stream()
                assert stream is not None
                stream.start()
                stream.write(BLOB[: 1 << 20])
                await eventually(lambda: stream.backlog == 0, timeout=20)
                assert proxy.counters["too_large"] == before
            else:
                assert await exchange(connection, BLOB) == BLOB
                assert proxy.counters["too_large"] > 0
        finally:
            client.abort()
            server.abort()
            await proxy.stop()

    run(main(), timeout=60)


@pytest.mark.parametrize("seed", [1, 4])
def test_both_sides_hear_of_a_path_that_shrank(pki: PkiFixture, seed: int) -> None:
    """Though both have much to send, and the path loses and reorders besides."""

    def flood(stream: Stream) -> None:
        def pump(_: int = 0) -> None:
            while stream.room > 0 and stream.connection.closed is None:
                stream.write(BLOB[:65_536])

        stream.on_data = lambda data: stream.consume(len(data))
        stream.on_drain = pump
        stream.start()
        pump()

    async def main() -> None:
        accepted: list[Connection] = []

        def accept(connection: Connection) -> None:
            connection.on_stream = flood
            connection.start()
            accepted.append(connection)

        settings = QuicSettings(engine="native")
        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=settings,
            on_connection=accept,
        )
        client = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings
        )
        proxy = LossyProxy(server.attach(("127.0.0.1", 0)), Weather(), seed=seed)
        await proxy.start()
        try:
            connection = await client.connect(proxy.address)
            connection.start()
            stream = connection.open_stream()
            assert stream is not None
            flood(stream)

            def large() -> int:
                return sum(count for size, count in proxy.sizes.items() if size > BASE)

            await eventually(lambda: large() > 100, timeout=20)
            proxy.weather = replace(proxy.weather, mtu=BASE)
            sides = [connection, accepted[0]]
            await eventually(lambda: all(side.closed is not None for side in sides), timeout=30)
            assert [side.closed.code for side in sides if side.closed is not None] == [0x10] * 2
        finally:
            client.abort()
            server.abort()
            await proxy.stop()

    run(main(), timeout=60)
