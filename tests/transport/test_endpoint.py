"""Endpoints over real sockets: who gets in, and what survives."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aioquic.asyncio.client import connect as stock_connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from actors.transport.connection import Connection
from actors.transport.quic import DialFailed, QuicEndpoint, QuicSettings
from actors.transport.stream import Stream
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity

ENGINES = ("aioquic", "native")
LOCAL = ("127.0.0.1", 0)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def echo(connection: Connection) -> None:
    """Answer every stream with its own bytes."""

    def on_stream(stream: Stream) -> None:
        stream.on_data = stream.write
        stream.on_drain = stream.consume
        stream.on_eof = stream.write_eof
        stream.start()

    connection.on_stream = on_stream
    connection.start()


class Reader:
    """Collects one stream."""

    def __init__(self, stream: Stream) -> None:
        self.data = bytearray()
        self.eof = False
        self.stream = stream
        stream.on_data = self._data
        stream.on_eof = lambda: setattr(self, "eof", True)
        stream.start()

    def _data(self, chunk: bytes) -> None:
        self.data += chunk
        self.stream.consume(len(chunk))


@asynccontextmanager
async def serving(
    pki: PkiFixture, settings: QuicSettings, address: tuple[str, int] = LOCAL
) -> AsyncIterator[QuicEndpoint]:
    """An echo server."""
    endpoint = QuicEndpoint(
        alpn=("orp/1",), identity=identity(pki, pki.relay), settings=settings, on_connection=echo
    )
    endpoint.attach(address)
    try:
        yield endpoint
    finally:
        endpoint.abort()


@asynccontextmanager
async def dialler(
    pki: PkiFixture, settings: QuicSettings, who: TlsIdentity | None = None
) -> AsyncIterator[QuicEndpoint]:
    """A client endpoint."""
    endpoint = QuicEndpoint(
        alpn=("orp/1",), identity=who or identity(pki, pki.provider), settings=settings
    )
    try:
        yield endpoint
    finally:
        endpoint.abort()


async def exchange(connection: Connection, payload: bytes) -> bytes:
    stream = connection.open_stream()
    assert stream is not None
    reader = Reader(stream)
    stream.write(payload)
    stream.write_eof()
    await eventually(lambda: reader.eof, timeout=20)
    return bytes(reader.data)


def reach(endpoint: QuicEndpoint, host: str = "127.0.0.1") -> tuple[str, int]:
    assert endpoint.address is not None
    return (host, endpoint.address[1])


@pytest.mark.parametrize("client_engine", ENGINES)
def test_bytes_come_back_over_any_pair_of_engines(
    pki: PkiFixture, engine: str, client_engine: str
) -> None:
    payload = os.urandom(700_000)

    async def main() -> None:
        async with (
            serving(pki, QuicSettings(engine=engine)) as server,
            dialler(pki, QuicSettings(engine=client_engine)) as client,
        ):
            connection = await client.connect(reach(server))
            connection.start()
            assert connection.peer.uri == "outrelay://acme/relay/r1"
            assert await exchange(connection, payload) == payload
            udp = server.statistics().udp
            if udp.send_offload:
                assert udp.send_calls < udp.datagrams_out

    run(main())


def test_ipv6_and_ipv4_reach_a_dual_stack_socket(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings, ("::", 0)) as server, dialler(pki, settings) as client:
            for host in ("::1", "127.0.0.1"):
                connection = await client.connect(reach(server, host))
                connection.start()
                assert await exchange(connection, b"hello") == b"hello"

    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    run(main())


def test_the_stock_client_is_served(pki: PkiFixture, engine: str) -> None:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["orp/1"], server_name="localhost"
    )
    configuration.load_verify_locations(cafile=str(pki.ca))
    configuration.load_cert_chain(str(pki.provider.certificate), str(pki.provider.key))

    async def main() -> None:
        async with serving(pki, QuicSettings(engine=engine)) as server:
            host, port = reach(server)
            async with (
                asyncio.timeout(10),
                stock_connect(host, port, configuration=configuration) as protocol,
            ):
                reader, writer = await protocol.create_stream()
                writer.write(b"x" * 100_000)
                writer.write_eof()
                assert await reader.read() == b"x" * 100_000

    run(main())


def test_who_is_not_let_in_and_why(pki: PkiFixture, engine: str) -> None:
    relay, provider = identity(pki, pki.relay), identity(pki, pki.provider)
    foreign_chain = TlsIdentity.load(
        pki.foreign_agent.certificate, pki.foreign_agent.key, pki.foreign_ca_certificate
    )
    # A stranger's chain, but trusting our relay: it is refused, not refusing.
    foreign = replace(foreign_chain, authorities=provider.authorities)

    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server:
            async with dialler(pki, settings, foreign) as client:
                await _refused(client, reach(server), 48)
            assert server.counters["refused_unknown_ca"] == 1
            # A server that is not trusted: the client refuses.
            distrusting = replace(provider, authorities=foreign_chain.authorities)
            async with dialler(pki, settings, distrusting) as client:
                with pytest.raises(DialFailed) as failed:
                    await client.connect(reach(server))
                assert "unknown_ca" in str(failed.value)
            # Another name than the certificate's.
            async with dialler(pki, settings) as client:
                with pytest.raises(DialFailed) as failed:
                    await client.connect(reach(server), server_name="elsewhere.example")
                assert "wrong_name" in str(failed.value)
            # The server heard of both: it does not wait for its handshake deadline.
            await eventually(lambda: server.statistics().pending == 0)
            assert server.counters["handshake_timeout"] == 0
            # Everybody else still gets in.
            async with dialler(pki, settings) as client:
                connection = await client.connect(reach(server))
                assert connection.peer.uri == relay.uri

    run(main())


async def _refused(client: QuicEndpoint, address: tuple[str, int], alert: int) -> None:
    """TLS 1.3: the client may be through before the server has looked at its certificate."""
    try:
        connection = await client.connect(address)
    except DialFailed as failed:
        reason = failed.reason
    else:
        connection.start()
        await eventually(lambda: connection.closed is not None)
        assert connection.closed is not None
        reason = connection.closed
    assert reason.code == 0x100 + alert


def test_no_certificate_and_wrong_protocol_are_refused(pki: PkiFixture, engine: str) -> None:
    bare = QuicConfiguration(is_client=True, alpn_protocols=["orp/1"], server_name="localhost")
    bare.load_verify_locations(cafile=str(pki.ca))
    other = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
    other.load_verify_locations(cafile=str(pki.ca))
    other.load_cert_chain(str(pki.provider.certificate), str(pki.provider.key))

    async def main() -> None:
        async with serving(pki, QuicSettings(engine=engine)) as server:
            host, port = reach(server)
            for configuration in (bare, other):
                async with asyncio.timeout(10):
                    try:
                        async with stock_connect(host, port, configuration=configuration) as stock:
                            await stock.wait_closed()
                    except ConnectionError:
                        pass
            await eventually(lambda: server.statistics().pending == 0)
            assert server.statistics().connections == 0
            counters = server.counters
            assert counters["refused_absent"] == 1
            assert counters["handshake_ok"] == 0

    run(main())


def test_certificates_change_without_touching_connections(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server, dialler(pki, settings) as client:
            old = await client.connect(reach(server))
            old.start()
            # The relay now shows another leaf (with the same name) and trusts the same CA.
            server.reload(identity(pki, pki.relay))
            new = await client.connect(reach(server))
            new.start()
            assert await exchange(old, b"old") == b"old"
            assert await exchange(new, b"new") == b"new"

    run(main())


def test_retry_under_load_lets_real_clients_in(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with (
            serving(pki, replace(settings, retry_above=0)) as server,
            dialler(pki, settings) as client,
        ):
            connection = await client.connect(reach(server))
            connection.start()
            assert await exchange(connection, b"after retry") == b"after retry"
            assert server.counters["retry"] == 1

    run(main())


def test_a_lost_socket_is_replaced_under_live_connections(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server, dialler(pki, settings) as client:
            connection = await client.connect(reach(server))
            connection.start()
            stream = connection.open_stream()
            assert stream is not None
            reader = Reader(stream)
            await eventually(lambda: server.statistics().connections == 1)
            sent = b""
            for turn in range(5):
                stream.write(bytes([turn]) * 5000)
                sent += bytes([turn]) * 5000
                server.detach()
                await asyncio.sleep(0.01)
                server.attach(LOCAL)
                await eventually(lambda sent=sent: bytes(reader.data) == sent)  # type: ignore[misc]

    run(main())


def test_handshakes_in_progress_hear_at_once_that_the_socket_closes(
    pki: PkiFixture, engine: str
) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server, dialler(pki, settings) as client:
            dial = asyncio.create_task(client.connect(reach(server), timeout=30))
            while not server.statistics().pending:
                await asyncio.sleep(0)
            server.detach()
            try:
                async with asyncio.timeout(3):
                    connection = await dial
            except DialFailed:
                return
            connection.start()
            await eventually(lambda: connection.closed is not None)

    run(main())


def test_silent_handshakes_end_and_give_everything_back(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine, handshake_timeout=0.3)
        async with serving(pki, settings) as server:
            configuration = QuicConfiguration(is_client=True, alpn_protocols=["orp/1"])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for _ in range(30):
                    quic = QuicConnection(configuration=configuration)
                    quic.connect(reach(server), now=0.0)
                    sock.sendto(quic.datagrams_to_send(now=0.0)[0][0], reach(server))
                await eventually(lambda: server.counters["handshake_timeout"] == 30, timeout=20)
            assert server.statistics().pending == 0
            await eventually(lambda: not len(server._routes), timeout=10)

    run(main(), timeout=30)


CHILD = """
import asyncio, sys
from pathlib import Path
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tls import TlsIdentity
async def main():
    certificate, key, ca, port, engine = sys.argv[1:]
    def take(connection):
        connection.start()
    endpoint = QuicEndpoint(alpn=("orp/1",),
        identity=TlsIdentity.load(Path(certificate), Path(key), Path(ca)),
        settings=QuicSettings(engine=engine), on_connection=take)
    print(endpoint.attach(("127.0.0.1", int(port)))[1], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("client_engine", ENGINES)
def test_clients_of_a_killed_server_learn_it_from_its_successor(
    pki: PkiFixture, engine: str, client_engine: str
) -> None:
    """Long before their idle timeout: by stateless resets."""

    def start(port: int) -> tuple[subprocess.Popen[str], int]:
        files = [str(pki.relay.certificate), str(pki.relay.key), str(pki.ca), str(port), engine]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *files], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        return child, int(child.stdout.readline())

    async def main() -> None:
        child, port = await asyncio.to_thread(start, 0)
        try:
            settings = QuicSettings(engine=client_engine, idle_timeout=60.0, keepalive=0.2)
            async with dialler(pki, settings) as client:
                connection = await client.connect(("127.0.0.1", port))
                connection.start()
                child.send_signal(signal.SIGKILL)
                child.wait(10)
                assert child.stdout is not None
                child.stdout.close()
                child, _ = await asyncio.to_thread(start, port)
                await eventually(lambda: connection.closed is not None, timeout=15)
                assert connection.closed is not None
                assert connection.closed.text == "stateless reset"
                again = await client.connect(("127.0.0.1", port))
                assert again.peer.uri == "outrelay://acme/relay/r1"
        finally:
            child.kill()
            child.wait(10)
            assert child.stdout is not None
            child.stdout.close()

    run(main(), timeout=60)


def test_garbage_and_damaged_packets_touch_nobody(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        settings = QuicSettings(engine=engine)
        async with serving(pki, settings) as server, dialler(pki, settings) as client:
            connection = await client.connect(reach(server))
            connection.start()
            cids = server._routes.cids
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(400):
                    size = number * 3 % 1400
                    noise = os.urandom(size)
                    if number % 4 == 1 and size > 20:  # a live connection's id, and nonsense
                        noise = b"\x41" + cids[number % len(cids)] + noise[9:]
                    elif number % 4 == 2 and size > 40:
                        cid = cids[number % len(cids)]
                        noise = b"\xe1\0\0\0\1" + bytes([len(cid)]) + cid + noise
                    sock.sendto(noise, reach(server))
            assert await exchange(connection, b"unharmed" * 1000) == b"unharmed" * 1000
            assert connection.closed is None
            assert server.counters["connection_failed"] == 0

    run(main())


def test_a_closed_endpoint_opens_no_socket(pki: PkiFixture) -> None:
    """Its owner was killed while it dialled: nobody is there who would close one."""

    async def main() -> None:
        endpoint = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, pki.consumer))
        endpoint.abort()
        with pytest.raises(OSError, match="closed"):
            await endpoint.connect(("127.0.0.1", 9), timeout=1.0)
        assert not endpoint._sockets

    run(main())
