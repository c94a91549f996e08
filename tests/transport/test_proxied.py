"""A balancer in front of us says who a connection is from, and nobody else may."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from actors.transport.gate import Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.proxied import ProxiedArrivals
from tests.conftest import eventually, run
from wire.proxy_protocol.header import encode, header_of

LOOPBACK = ip_network("127.0.0.0/8")
QUICK = AcceptLimits(4, 4, deadline=0.2)
REAL = ("203.0.113.7", 4711)


class Door:
    def __init__(self, trusted: Any, limits: AcceptLimits) -> None:
        self.taken: list[tuple[socket.socket, Any, Place]] = []
        self.counters: Counter[str] = Counter()
        arrivals = ProxiedArrivals(
            trusted, self._take, gate=lambda: self.acceptor.gate, counters=self.counters
        )
        self.acceptor = Acceptor(limits, arrivals.accepted, name="t", counters=self.counters)
        listening = listen_tcp("127.0.0.1", 0)
        self.address = listening.getsockname()
        self.acceptor.attach(listening)

    def _take(self, sock: socket.socket, address: Any, place: Place) -> None:
        self.taken.append((sock, address, place))

    @property
    def decided(self) -> int:
        return len(self.taken) + self.counters["refused_pending_per_source_limit"]

    def close(self) -> None:
        for sock, _, place in self.taken:
            place.leave()
            sock.close()
        assert len(self.acceptor.gate) == 0
        self.acceptor.abort()


@asynccontextmanager
async def door(trusted: Any = (LOOPBACK,), limits: AcceptLimits = QUICK) -> AsyncIterator[Door]:
    made = Door(trusted, limits)
    yield made
    made.close()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_a_trusted_header_names_the_source_and_leaves_the_rest(version: int, whole: bool) -> None:
    async def main() -> None:
        header = encode(header_of(REAL, ("192.0.2.1", 80)), version)
        async with door() as it:
            with socket.create_connection(it.address) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if whole:
                    client.sendall(header + b"hello")
                else:
                    for i in range(len(header)):
                        client.sendall(header[i : i + 1])
                        if i % 8 == 0:
                            await asyncio.sleep(0)
                    client.sendall(b"hello")
                await eventually(lambda: it.taken)
                ((sock, address, place),) = it.taken
                assert address == REAL
                assert place.source == REAL[0]
                data = b""
                while len(data) < 5:
                    data += await asyncio.get_running_loop().sock_recv(sock, 100)
                assert data == b"hello"

    run(main())


def test_strangers_are_taken_as_they_are() -> None:
    async def main() -> None:
        async with door(trusted=(ip_network("10.0.0.0/8"),)) as it:
            with socket.create_connection(it.address) as client:
                client.sendall(encode(header_of(REAL, REAL), 1))
                await eventually(lambda: it.taken)
                assert it.taken[0][1] == client.getsockname()

    run(main())


@pytest.mark.parametrize(
    "data,counter",
    [
        (b"GET / HTTP/1.1\r\n\r\n", "proxy_header_no_header"),
        (b"PROXY TCP4 1 2 3 4\r\n", "proxy_header_bad_address"),
        (b"PROXY TC", "handshake_failed_timeout"),
        (b"", "handshake_failed_timeout"),
    ],
)
def test_a_trusted_source_without_a_header_is_closed(data: bytes, counter: str) -> None:
    async def main() -> None:
        async with door() as it:
            with socket.create_connection(it.address) as client:
                client.setblocking(False)
                client.sendall(data)
                try:
                    assert await asyncio.get_running_loop().sock_recv(client, 10) == b""
                except ConnectionResetError:
                    pass  # bytes we did not read
                assert it.taken == []
                assert it.counters[counter] == 1

    run(main())


def test_one_real_source_has_no_more_than_its_share_behind_a_balancer() -> None:
    async def main() -> None:
        async with door(limits=AcceptLimits(10, 2, deadline=5.0)) as it:
            header = encode(header_of(REAL, ("192.0.2.1", 80)), 2)
            clients = []
            for wanted in (1, 2, 2):
                clients.append(socket.create_connection(it.address))
                clients[-1].sendall(header)
                await eventually(lambda: it.decided == len(clients))
                assert len(it.taken) == wanted
            for client in clients:
                client.close()

    run(main())
