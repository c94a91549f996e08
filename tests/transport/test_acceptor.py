"""What a crowd of strangers at a listening socket costs, and whom: themselves."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from actors.transport.connection import Connection
from actors.transport.gate import Place
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint, TcpSettings
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import LOCAL
from tests.transport.test_tcp import connected, exchange, serving


def knock(address: tuple[str, int], source: str, said: bytes = b"") -> socket.socket:
    """A connection from an address of this machine; all of 127/8 is."""
    sock = socket.socket()
    try:
        sock.bind((source, 0))
        sock.connect(address)
        sock.sendall(said)
    except BaseException:
        sock.close()
        raise
    return sock


def sources(count: int) -> list[str]:
    return [f"127.{1 + n // 250 // 250}.{n // 250 % 250}.{1 + n % 250}" for n in range(count)]


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["silent", "a little"])
def test_one_address_keeps_nobody_out(pki: PkiFixture, said: bytes) -> None:
    settings = TcpSettings(max_pending=64, max_pending_per_source=16, handshake_timeout=10.0)

    async def main() -> None:
        async with serving(pki, settings) as server:
            assert server.address is not None
            crowd = [knock(server.address, "127.0.0.2", said) for _ in range(80)]
            refused = "refused_pending_per_source_limit"
            await eventually(lambda: server.counters[refused] == 80 - 16)
            async with connected(pki, server) as connection:
                assert await exchange(connection, b"hello") == b"hello"
            assert server.statistics().pending == 16
            for one in crowd:
                one.close()

    run(main())


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["silent", "a little"])
def test_a_crowd_of_addresses_gives_way_to_who_speaks(pki: PkiFixture, said: bytes) -> None:
    settings = TcpSettings(max_pending=32, max_pending_per_source=4, handshake_timeout=10.0)

    async def main() -> None:
        async with serving(pki, settings) as server:
            address = server.address
            assert address is not None
            crowd: list[socket.socket] = []
            for turn in range(4):
                crowd += [knock(address, one, said) for one in sources(50)[turn::4]]
                async with connected(pki, server) as connection:
                    assert await exchange(connection, b"hello") == b"hello"
                assert server.statistics().pending <= 32
            assert server.counters["gave_way"] >= 50 - 32
            assert not [name for name in server.counters if name.startswith("refused")]
            for one in crowd:
                one.close()

    run(main())


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_quic_handshakes_of_a_crowd_give_way_too(pki: PkiFixture, engine: str) -> None:
    settings = QuicSettings(
        engine=engine, max_pending=4, max_pending_per_source=2, handshake_timeout=10.0
    )
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["orp/1"])

    async def main() -> None:
        server = QuicEndpoint(
            alpn=("orp/1",),
            identity=identity(pki, pki.relay),
            settings=settings,
            on_connection=lambda c: c.start(),
        )
        client = QuicEndpoint(
            alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings
        )
        address = server.attach(LOCAL)
        crowd: list[socket.socket] = []
        try:
            for source in sources(10):
                quic = QuicConnection(configuration=configuration)
                quic.connect(address, now=0.0)
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                crowd.append(sock)
                sock.bind((source, 0))
                sock.sendto(quic.datagrams_to_send(now=0.0)[0][0], address)
            await eventually(lambda: server.counters["gave_way"] == 6)
            assert server.statistics().pending == 4
            connection = await client.connect(address)
            assert connection.closed is None
            assert server.counters["gave_way"] == 7
            # The address that has its share is refused, and takes nothing from others.
            for _ in range(3):
                quic = QuicConnection(configuration=configuration)
                quic.connect(address, now=0.0)
                crowd[-1].sendto(quic.datagrams_to_send(now=0.0)[0][0], address)
            await eventually(lambda: server.counters["drop_source_limit"] == 2)
        finally:
            client.abort()
            server.abort()
            for one in crowd:
                one.close()

    run(main())


@pytest.mark.parametrize("transport", ["tcp", "native", "aioquic"])
def test_a_verified_peer_is_pending_until_it_is_welcome(pki: PkiFixture, transport: str) -> None:
    """The documented limit ends at HELLO, not at TLS."""
    came: list[Connection] = []

    def take(connection: Connection) -> None:
        came.append(connection)
        connection.start()

    def made(who: Any, on_connection: Any = None) -> QuicEndpoint | TcpEndpoint:
        limits: dict[str, Any] = {"max_pending": 3, "max_pending_per_source": 2}
        if transport == "tcp":
            kind: Any = TcpEndpoint
            settings: Any = TcpSettings(**limits)
        else:
            kind, settings = QuicEndpoint, QuicSettings(engine=transport, **limits)
        return kind(  # type: ignore[no-any-return]
            alpn=("orp/1",),
            identity=who,
            settings=settings,
            on_connection=on_connection,
            until_welcome=True,
        )

    async def main() -> None:
        server = made(identity(pki, pki.relay), take)
        client = made(identity(pki, pki.provider))
        address = server.attach(LOCAL)
        try:
            first = await client.connect(address)
            second = await client.connect(address)
            await eventually(lambda: len(came) == 2)
            assert server.statistics().pending == 2
            with pytest.raises(Exception, match="handshake"):
                await client.connect(address, timeout=0.5)
            came[0].welcome()
            assert server.statistics().pending == 1
            third = await client.connect(address)
            await eventually(lambda: len(came) == 3)
            third.close(0)
            await eventually(lambda: server.statistics().pending == 1)
            second.close(0)
            await eventually(lambda: server.statistics().pending == 0)
            assert first.closed is None
        finally:
            client.abort()
            server.abort()

    run(main())


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """The process may open only so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/dev/null", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_rests_says_so_once_and_lets_silent_ones_go() -> None:
    lines: list[str] = []
    taken: list[socket.socket] = []

    def take(sock: socket.socket, _: Any, place: Place) -> None:
        taken.append(sock)
        place.give_way = sock.close

    async def main() -> None:
        limits = AcceptLimits(1000, 1000)
        acceptor = Acceptor(limits, take, name="a door", log=lines.append)
        listening = listen_tcp("127.0.0.1", 0)
        address = listening.getsockname()
        acceptor.attach(listening)
        crowd = [socket.socket() for _ in range(40)]
        try:
            with few_descriptors(5):
                for one in crowd:
                    one.setblocking(False)
                    one.connect_ex(address)
                await eventually(lambda: acceptor.counters["out_of_descriptors"] >= 2)
                # It goes on with what giving way set free, and never without a pause.
                turns = acceptor.counters["out_of_descriptors"]
                await asyncio.sleep(0.35)
                assert acceptor.counters["out_of_descriptors"] - turns <= 4
            assert acceptor.counters["gave_way"] > 0
            assert len(lines) == 1
            assert lines[0].startswith("a door: connections turned away: out of descriptors")
            before = len(taken)
            await eventually(lambda: len(taken) > before)
        finally:
            acceptor.abort()
            for one in (*crowd, *taken):
                one.close()

    run(main())


SERVER = """
import asyncio, gc, sys
from pathlib import Path
from actors.node.collector import tune_collector
from actors.transport.tcp import TcpEndpoint, TcpSettings
from actors.transport.tls import TlsIdentity
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
async def main():
    certificate, key, ca = map(Path, sys.argv[1:])
    endpoint = TcpEndpoint(alpn=("orp/1",), identity=TlsIdentity.load(certificate, key, ca),
        settings=TcpSettings(handshake_timeout=60.0, max_pending=256),
        on_connection=lambda c: c.start())
    tune_collector()
    print(endpoint.attach(("127.0.0.1", 0))[1], rss(), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        s = endpoint.statistics()
        print(s.pending, rss(), flush=True)
    endpoint.abort()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "count", [1500, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x00\xf0"], ids=["silent", "half a hello"])
def test_a_crowd_from_everywhere_costs_bounded_memory(
    pki: PkiFixture, count: int, said: bytes
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, pki.relay.certificate, pki.relay.key, pki.ca],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None

    def ask() -> list[int]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("?\n")
        child.stdin.flush()
        return [int(word) for word in child.stdout.readline().split()]

    try:
        port, before = map(int, child.stdout.readline().split())
        peak = most = 0
        address = ("127.0.0.1", port)
        crowd: list[socket.socket] = []
        for number, source in enumerate(sources(count)):
            crowd.append(knock(address, source, said))
            if len(crowd) > 600:
                crowd.pop(0).close()
            if number % 250 == 249:
                pending, now = ask()
                peak, most = max(peak, now), max(most, pending)
        deadline = time.monotonic() + 30
        while most < 256 and time.monotonic() < deadline:  # the kernel's queue comes in late
            pending, now = ask()
            peak, most = max(peak, now), max(most, pending)

        async def main() -> None:
            client = TcpEndpoint(alpn=("orp/1",), identity=identity(pki, pki.consumer))
            try:
                connection = await client.connect(address)
                connection.start()
                connection.abort()
                await eventually(lambda: connection._transport is None)  # type: ignore[attr-defined]
            finally:
                client.abort()

        run(main())
        for one in crowd:
            one.close()
        assert most == 256
        # OpenSSL keeps some 70 KiB for a handshake that has begun.
        assert peak - before < 8 * 2**20 + (256 * 96 * 1024 if said else 0), peak - before
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
