"""Datagrams of connections over real sockets: bounds, counters, and what comes early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aioquic.asyncio.client import connect as stock_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, QuicEvent

from actors.transport.connection import Connection
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import ENGINES, LOCAL
from tests.transport.test_peer_policy import public_leaf, trusting

ALPN = ("nb-test",)


def echo(connection: Connection) -> None:
    def back(payloads: list[bytes]) -> None:
        for payload in payloads:
            connection.send_datagram(payload)

    connection.on_datagrams = back
    connection.start()


@asynccontextmanager
async def endpoints(
    pki: PkiFixture, settings: QuicSettings, take: Callable[[Connection], None] = echo
) -> AsyncIterator[tuple[QuicEndpoint, QuicEndpoint, Connection]]:
    """Server, client, and a connection of the client."""
    policy = PeerPolicy.SERVER_ONLY
    server = QuicEndpoint(
        identity=public_leaf(pki),
        alpn=ALPN,
        settings=settings,
        peer_policy=policy,
        on_connection=take,
    )
    client = QuicEndpoint(identity=trusting(pki), alpn=ALPN, settings=settings, peer_policy=policy)
    try:
        yield server, client, await client.connect(server.attach(LOCAL))
    finally:
        client.abort()
        server.abort()


def collected(connection: Connection) -> list[bytes]:
    payloads: list[bytes] = []
    connection.on_datagrams = payloads.extend
    connection.start()
    return payloads


def with_datagrams(engine: str, queue: int = 128) -> QuicSettings:
    return QuicSettings(
        engine=engine, max_datagram_frame=65_535, datagram_queue=queue, max_datagram=1452
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_datagrams_go_there_and_back(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        async with endpoints(pki, with_datagrams(engine)) as (server, _, connection):
            payloads = collected(connection)
            largest = connection.largest_datagram
            # What a tunnel with an MTU of 1280 needs: 1280 + 32 + 38.
            assert largest >= 1350
            for number in range(50):
                assert connection.send_datagram(bytes([number]) * largest)
                await eventually(lambda number=number: len(payloads) == number + 1)  # type: ignore[misc]
            assert payloads == [bytes([number]) * largest for number in range(50)]
            assert not any(key.startswith("drop") for key in server.counters)

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_too_large_is_refused_and_holds_nobody_up(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        async with endpoints(pki, with_datagrams(engine)) as (_, client, connection):
            payloads = collected(connection)
            assert not connection.send_datagram(bytes(connection.largest_datagram + 1))
            assert connection.send_datagram(b"behind it")
            await eventually(lambda: payloads == [b"behind it"])
            assert client.counters["drop_datagram_size"] == 1

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_the_queue_is_bounded_and_the_oldest_go(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        got: list[list[bytes]] = []

        def take(connection: Connection) -> None:
            connection.on_datagrams = got.append
            connection.start()

        async with endpoints(pki, with_datagrams(engine, queue=8), take) as (_, client, connection):
            collected(connection)
            for number in range(20):  # nothing leaves before the loop runs
                assert connection.send_datagram(bytes([number]))
            await eventually(lambda: sum(map(len, got)) == 8)
            assert [payload for one in got for payload in one] == [
                bytes([n]) for n in range(12, 20)
            ]
            assert len(got) < 8, "what comes together is handed on together"
            assert client.counters["drop_datagram_queue"] == 12

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_what_comes_before_start_waits_within_the_bound(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        came: list[Connection] = []
        settings = with_datagrams(engine, queue=8)
        async with endpoints(pki, settings, came.append) as (server, _, connection):
            collected(connection)
            for number in range(12):
                connection.send_datagram(bytes([number]))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await eventually(lambda: server.counters["drop_datagram_early"] == 4)
            assert collected(came[0]) == [bytes([number]) for number in range(8)]

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_after_the_end_nothing_is_sent(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        async with endpoints(pki, with_datagrams(engine)) as (_, client, connection):
            connection.start()
            assert connection.send_datagram(b"waits")
            connection.close(0)
            assert not connection.send_datagram(b"late")
            assert client.counters["drop_datagram_closed"] == 1

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_where_nobody_asked_for_datagrams_there_are_none(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        async with endpoints(pki, QuicSettings(engine=engine)) as (_, _, connection):
            assert connection.largest_datagram == 0
            assert not connection.send_datagram(b"x")

    run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_more_than_the_window_takes_all_arrives(pki: PkiFixture, engine: str) -> None:
    """What waits in the queue leaves as acknowledgements come, without another call."""

    async def main() -> None:
        async with endpoints(pki, with_datagrams(engine, queue=400)) as (_, _, connection):
            payloads = collected(connection)
            for number in range(200):
                connection.send_datagram(number.to_bytes(2, "big") * 500)
            await eventually(lambda: len(payloads) >= 190, timeout=20)

    run(main())


class StockPeer(QuicConnectionProtocol):
    """What the library hands out."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self.got.append(event.data)
        super().quic_event_received(event)

    got: list[bytes]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stock_client(pki: PkiFixture, engine: str) -> None:
    """Its limits are those of a Go client; one without connection id is in `engines`."""

    async def main() -> None:
        async with endpoints(pki, with_datagrams(engine)) as (server, _, _):
            configuration = QuicConfiguration(
                is_client=True,
                alpn_protocols=list(ALPN),
                max_datagram_frame_size=16_383,
                max_datagram_size=1452,
                server_name="localhost",
            )
            configuration.load_verify_locations(str(pki.ca))
            assert server.address is not None
            async with stock_connect(
                *server.address, configuration=configuration, create_protocol=StockPeer
            ) as client:
                assert isinstance(client, StockPeer)
                client.got = []
                for payload in (b"auth", bytes(1377 + 38)):
                    client._quic.send_datagram_frame(payload)
                    client.transmit()
                    await eventually(lambda payload=payload: client.got[-1:] == [payload])  # type: ignore[misc]

    run(main())


def test_a_connection_over_tcp_has_none(pki: PkiFixture) -> None:

    async def main() -> None:
        who: TlsIdentity = identity(pki, pki.relay)
        server = TcpEndpoint(identity=who, alpn=ALPN, on_connection=lambda one: one.start())
        client = TcpEndpoint(identity=identity(pki, pki.consumer), alpn=ALPN)
        try:
            connection = await client.connect(server.attach(LOCAL))
            assert connection.largest_datagram == 0
            assert not connection.send_datagram(b"x")
        finally:
            client.abort()
            server.abort()

    run(main())
