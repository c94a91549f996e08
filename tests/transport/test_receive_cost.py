"""Peers whose datagrams cost far more CPU than datagrams do are closed; nobody else is."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aioquic.tls import Epoch

from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.receive_cost import PER_BYTE, PER_DATAGRAM, SAVED, ReceiveCost
from actors.transport.stream import CloseReason
from tests.conftest import PkiFixture, eventually, run
from tests.transport.engines.attacker import frame
from tests.transport.engines.rig import identity
from tests.transport.engines.stock import StockClient


def test_a_connection_may_spend_what_its_datagrams_earn() -> None:
    cost = ReceiveCost()
    assert cost.spend(SAVED, 0, 0)
    assert cost.spend(10 * PER_DATAGRAM + 1000 * PER_BYTE, 10, 1000)
    assert not cost.spend(PER_DATAGRAM + PER_BYTE + 1e-6, 1, 1)
    assert not cost.spend(0.0, 1_000_000, 1 << 30)  # nothing pays for it later
    assert cost.overdrawn
    thrifty = ReceiveCost()
    assert thrifty.spend(0.0, 1_000_000, 1 << 30)
    assert not thrifty.spend(SAVED + 1e-6, 0, 0)  # no more is saved up


class Stranger:
    """A client of the library, over a socket, that also sends frames of its own."""

    def __init__(self, pki: PkiFixture, server: tuple[str, int]) -> None:
        self.quic = StockClient(QuicSettings(), identity(pki, pki.consumer), ("orp/1",)).quic
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(server)
        self._number = 0

    async def connect(self) -> None:
        """Until it may send 1-RTT packets."""
        self.quic.connect(self._server, now=time.monotonic())
        await eventually(self._ready)
        self._turn()
        self._number = self.quic._packet_number + 1000

    def _ready(self) -> bool:
        self._turn()
        return bool(self.quic._cryptos[Epoch.ONE_RTT].send.is_valid())

    def _turn(self) -> None:
        try:
            while True:
                data = self._socket.recv(65_536)
                self.quic.receive_datagram(data, self._server, now=time.monotonic())
        except BlockingIOError:
            pass
        due = self.quic.get_timer()
        if due is not None and due <= time.monotonic():
            self.quic.handle_timer(now=time.monotonic())
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self._socket.send(data)

    def send(self, payload: bytes) -> None:
        """One packet with these frames."""
        self._number += 1
        header = bytes([0x43]) + self.quic._peer_cid.cid + self._number.to_bytes(4, "big")
        pair = self.quic._cryptos[Epoch.ONE_RTT]
        self._socket.send(pair.encrypt_packet(header, payload, self._number))

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def serving(
    pki: PkiFixture,
) -> AsyncIterator[tuple[QuicEndpoint, list[tuple[Connection, CloseReason]]]]:
    ended: list[tuple[Connection, CloseReason]] = []

    def take(connection: Connection) -> None:
        connection.on_closed = lambda reason: ended.append((connection, reason))
        connection.start()

    server = QuicEndpoint(
        alpn=("orp/1",),
        identity=identity(pki, pki.relay),
        settings=QuicSettings(engine="native"),
        on_connection=take,
    )
    server.attach(("127.0.0.1", 0))
    try:
        yield server, ended
    finally:
        server.abort()


def test_a_flood_of_connection_ids_that_are_retired_at_once_is_closed(pki: PkiFixture) -> None:
    """The native core takes longer for each, and says nothing of them."""

    async def main() -> None:
        async with serving(pki) as (server, ended):
            assert server.address is not None
            hostile = Stranger(pki, server.address)
            try:
                await hostile.connect()
                await eventually(lambda: server.statistics().connections == 1)
                for number in range(20_000):
                    ids = (
                        frame(0x18, sequence, sequence - 3, b"\x08", os.urandom(24))
                        for sequence in range(100 + number * 20, 120 + number * 20)
                    )
                    try:
                        hostile.send(b"".join(ids))
                    except (BlockingIOError, ConnectionRefusedError):
                        pass
                    if number % 10 == 9:
                        await asyncio.sleep(0)
                    if ended:
                        break
                assert [reason.text for _, reason in ended] == ["too costly"]
                assert server.counters["closed_costly"] == 1
            finally:
                hostile.close()

    run(main(), timeout=50)
