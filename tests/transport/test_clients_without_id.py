"""Clients without a connection id against a real endpoint: routing by nothing but our ids."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.quic.engine import Address, Data, Established
from actors.transport.quic.native_engine import NativeClientWithoutId
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import echo

#: Clients at once, with first ids of all lengths that are allowed.
CLIENTS = 13


class Client(asyncio.DatagramProtocol):
    """One client, with a socket of its own that can be exchanged."""

    def __init__(self, pki: PkiFixture, server: tuple[str, int], first_cid_length: int) -> None:
        self.engine = NativeClientWithoutId(
            QuicSettings(),
            identity(pki, pki.provider),
            ("orp/1",),
            client=True,
            server_name="localhost",
            original_destination_cid=os.urandom(first_cid_length),
        )
        self.established = False
        self.received = bytearray()
        self._server = server
        self._socket: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Begin, or go on from another port."""
        before = self._socket
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, remote_addr=self._server
        )
        self._socket = transport
        if before is None:
            self.engine.connect(self._server, time.monotonic())
        else:
            before.close()
        self.flush()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.engine.receive(data, self._server, time.monotonic())
        self.flush()

    def flush(self) -> None:
        """Take what happened, send what there is, and set the timer."""
        for event in self.engine.events():
            if isinstance(event, Established):
                self.established = True
            elif isinstance(event, Data):
                self.received += event.data
                self.engine.consume(event.stream_id, len(event.data))
        now = time.monotonic()
        for data, _ in self.engine.transmit(now):
            assert self._socket is not None
            self._socket.sendto(data)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self.engine.next_timer()
        if when is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, when - now), self._due)

    def _due(self) -> None:
        self.engine.handle_timer(time.monotonic())
        self.flush()

    def close(self) -> None:
        """Say so, and stop."""
        self.engine.close(0, "", application=True)
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()


async def _echoed(client: Client, stream_id: int, payload: bytes) -> None:
    """More bytes of a stream come back."""
    wanted = bytes(client.received) + payload
    client.engine.write(stream_id, payload, end=False)
    client.flush()
    await eventually(lambda: len(client.received) >= len(wanted), timeout=20)
    assert bytes(client.received) == wanted


@pytest.mark.parametrize("engine", ["native", "aioquic"])
@pytest.mark.parametrize("retry", [False, True])
def test_clients_without_an_id_are_told_apart(pki: PkiFixture, engine: str, retry: bool) -> None:
    """Also after each of them got another port in the middle of a stream."""

    async def main() -> None:
        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=QuicSettings(engine=engine, retry_above=0 if retry else 64),
            on_connection=echo,
        )
        address = server.attach(("127.0.0.1", 0))
        clients = [Client(pki, address, 8 + number % 13) for number in range(CLIENTS)]
        try:
            for client in clients:
                await client.open()
            await eventually(lambda: all(client.established for client in clients), timeout=20)
            await eventually(lambda: server.statistics().engines == {engine: CLIENTS}, timeout=20)
            assert server.counters["retry"] == (CLIENTS if retry else 0)
            streams = [client.engine.open_stream() or 0 for client in clients]
            for moves in (False, True):
                if moves:
                    for client in clients:
                        await client.open()
                await asyncio.gather(
                    *(
                        _echoed(client, stream_id, os.urandom(100_000))
                        for client, stream_id in zip(clients, streams, strict=True)
                    )
                )
            for client in clients:
                client.close()
            await eventually(lambda: server.statistics().connections == 0, timeout=20)
            assert server.statistics().engines == {engine: 0}
            await eventually(lambda: not server._routes.cids, timeout=20)
        finally:
            for client in clients:
                client.close()
            server.abort()

    run(main(), timeout=90)
