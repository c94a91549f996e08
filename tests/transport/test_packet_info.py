"""A host with several addresses answers from the one that was asked."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.udp import Address, AskedAddress, UdpSocket, bind_udp
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import ENGINES, exchange, serving

#: Wildcard, and two addresses of this host it takes.
HOSTS = [
    ("0.0.0.0", "127.0.0.2"),
    ("0.0.0.0", "127.0.0.3"),
    ("::", "127.0.0.2"),
    ("::", "::1"),
]


def asking(host: str, port: int) -> socket.socket:
    """A client that takes answers only from where it asked."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((host, port))
    sock.setblocking(False)
    return sock


async def answers(sock: socket.socket, count: int) -> list[bytes]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        return [await loop.sock_recv(sock, 65536) for _ in range(count)]


def _single(sock: UdpSocket, data: bytes, size: int, to: Address) -> None:
    for start in range(0, len(data), size):
        sock.send(data[start : start + size], to)


def _segments(sock: UdpSocket, data: bytes, size: int, to: Address) -> None:
    sock.send_segments([data[at : at + size] for at in range(0, len(data), size)], size, to)


@pytest.mark.parametrize("send", [_single, _segments])
@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("wildcard, host", HOSTS)
def test_every_way_of_sending(
    wildcard: str, host: str, offload: bool, send: Callable[..., None]
) -> None:
    datagrams = [bytes([number]) * 1000 for number in range(5)]

    async def main() -> None:
        def answer(buffer: memoryview, size: int, address: Address) -> None:
            send(server, bytes(buffer), size, address)

        server = UdpSocket(bind_udp(wildcard, 0), answer, offload=offload)
        with asking(host, server.address[1]) as client:
            for datagram in datagrams:
                client.send(datagram)
            assert await answers(client, 5) == datagrams
        assert not server.errors
        server.abort()

    run(main())


def test_one_peer_that_asks_at_two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote to one is no run with what it wrote to the other."""

    async def main() -> None:
        async def heard() -> dict[bytes, str]:
            return {data: source[0] for data, source in [peer.recvfrom(100) for _ in range(2)]}

        def answer(buffer: memoryview, size: int, address: Address) -> None:
            _segments(server, bytes(buffer), size, address)

        server = UdpSocket(bind_udp("0.0.0.0", 0), answer)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(0)
            for data, host in ((b"two", "127.0.0.2"), (b"345", "127.0.0.3")):
                peer.sendto(data, (host, server.address[1]))
            await eventually(lambda: server.datagrams_out == 2)
            assert await heard() == {b"two": "127.0.0.2", b"345": "127.0.0.3"}
        server.abort()

    run(main())


def test_nothing_is_asked_for_on_a_socket_with_one_address() -> None:
    async def main() -> None:
        addresses: list[Address] = []
        for host, answering in (("127.0.0.1", True), ("0.0.0.0", False)):
            server = UdpSocket(
                bind_udp(host, 0), lambda *got: addresses.append(got[2]), answering=answering
            )
            with asking("127.0.0.1", server.address[1]) as client:
                client.send(b"x")
                await eventually(lambda: addresses)
            assert type(addresses.pop()) is tuple
            server.abort()

    run(main())


def test_an_address_of_ours_that_is_gone_costs_its_answers_only() -> None:
    async def main() -> None:
        server = UdpSocket(bind_udp("0.0.0.0", 0), lambda *_: None)
        with asking("127.0.0.2", server.address[1]) as client:
            gone = AskedAddress(client.getsockname())
            # 192.0.2.1 is nobody's (RFC 5737).
            source = bytes(4) + socket.inet_aton("192.0.2.1") + bytes(4)
            gone.source = [(socket.IPPROTO_IP, 8, source)]
            assert server.send_segments([b"a" * 100] * 3, 100, gone) == 0
            assert server.send(b"a", gone) == 0
            assert set(server.errors) <= {
                f"send_{errno.errorcode[number]}"
                for number in (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH)
            }
            assert server.statistics().send_offload
        server.abort()

    run(main())


class Sources:
    """Which addresses a client hears from."""

    def __init__(self) -> None:
        self.heard: set[str] = set()

    def make(self, sock: socket.socket, on_batch: Any, **rest: Any) -> UdpSocket:
        def note(buffer: memoryview, size: int, address: Address) -> None:
            self.heard.add(address[0])
            on_batch(buffer, size, address)

        return UdpSocket(sock, note, **rest)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wildcard, host", HOSTS)
def test_quic_answers_from_the_address_that_was_asked(
    pki: PkiFixture, engine: str, wildcard: str, host: str
) -> None:
    payload = os.urandom(300_000)

    async def main() -> None:
        sources = Sources()
        client = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), make_socket=sources.make
        )
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings, (wildcard, 0)) as server:
            assert server.address is not None
            connection = await client.connect((host, server.address[1]))
            connection.start()
            assert await exchange(connection, payload) == payload
            client.abort()
        assert sources.heard == {host}

    run(main(), timeout=30)


def test_what_belongs_to_no_connection_is_answered_from_there_too(pki: PkiFixture) -> None:
    """A version negotiation."""

    async def main() -> None:
        async with serving(pki, QuicSettings(), ("0.0.0.0", 0)) as server:
            assert server.address is not None
            with asking("127.0.0.3", server.address[1]) as client:
                client.send(
                    b"\xc0\x1a\x2a\x3a\x4a\x08" + b"d" * 8 + b"\x08" + b"s" * 8 + b"\0" * 1300
                )
                (answer,) = await answers(client, 1)
            assert answer[1:5] == bytes(4)

    run(main())
