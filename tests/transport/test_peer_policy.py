"""Doors whose clients have no certificate: who is asked for one and verified, and the reload."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aioquic.asyncio.client import connect as stock_connect
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from actors.runtime import unguarded
from actors.transport.connection import Connection, DialFailed
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint, TcpSettings
from actors.transport.tcp.acceptor import AcceptLimits, listen_tcp
from actors.transport.tcp.protocol_listener import ProtocolListener
from actors.transport.tcp.tls_context import server_context
from actors.transport.tls import ANONYMOUS, SERVER, TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import LOCAL, echo, exchange

ALPN = ("nb-test",)
KINDS = ("native", "aioquic", "tcp")
Endpoint = QuicEndpoint | TcpEndpoint


def public_leaf(pki: PkiFixture, name: str = "localhost") -> TlsIdentity:
    """As a public CA makes them: a DNS name, and no URI."""
    ca = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    ca_key = load_pem_private_key(pki.dev.ca_key.read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([SERVER]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return TlsIdentity((leaf,), (), key)


def trusting(pki: PkiFixture) -> TlsIdentity:
    return TlsIdentity.anonymous(x509.load_pem_x509_certificates(pki.ca.read_bytes()))


def made(
    kind: str,
    who: TlsIdentity,
    policy: PeerPolicy,
    on_connection: Callable[[Connection], object] | None = None,
) -> Endpoint:
    arguments: dict[str, Any] = {
        "alpn": ALPN, "identity": who, "peer_policy": policy, "on_connection": on_connection
    }  # fmt: skip
    if kind == "tcp":
        return TcpEndpoint(settings=TcpSettings(), **arguments)
    return QuicEndpoint(settings=QuicSettings(engine=kind), **arguments)


@asynccontextmanager
async def serving(
    kind: str, who: TlsIdentity, policy: PeerPolicy = PeerPolicy.SERVER_ONLY
) -> AsyncIterator[tuple[Endpoint, list[Connection]]]:
    came: list[Connection] = []

    def take(connection: Connection) -> None:
        came.append(connection)
        echo(connection)

    endpoint = made(kind, who, policy, take)
    endpoint.attach(LOCAL)
    try:
        yield endpoint, came
    finally:
        endpoint.abort()


@asynccontextmanager
async def dialled(
    kind: str,
    who: TlsIdentity,
    address: tuple[str, int] | None,
    policy: PeerPolicy = PeerPolicy.SERVER_ONLY,
    **arguments: Any,
) -> AsyncIterator[Connection]:
    assert address is not None
    endpoint = made(kind, who, policy)
    try:
        connection = await endpoint.connect(address, **arguments)
        connection.start()
        yield connection
    finally:
        endpoint.abort()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [PeerPolicy.SERVER_ONLY, PeerPolicy.NONE])
def test_clients_without_a_certificate_are_served(
    pki: PkiFixture, kind: str, policy: PeerPolicy
) -> None:
    async def main() -> None:
        leaf = public_leaf(pki)
        async with (
            serving(kind, leaf, policy) as (server, came),
            dialled(kind, trusting(pki), server.address, policy) as connection,
        ):
            assert await exchange(connection, b"who are you") == b"who are you"
            assert came[0].peer == ANONYMOUS
            assert came[0].alpn == connection.alpn == ALPN[0]
            verified = policy is PeerPolicy.SERVER_ONLY
            expected = leaf.chain[0].fingerprint(hashes.SHA256()).hex() if verified else ""
            assert connection.peer.fingerprint == expected

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_nobody_asked_for_stays_at_home(pki: PkiFixture, kind: str) -> None:
    """It names a person, and the door has no use for it."""

    async def main() -> None:
        async with (
            serving(kind, public_leaf(pki)) as (server, came),
            dialled(kind, identity(pki, pki.consumer), server.address) as connection,
        ):
            assert await exchange(connection, b"x") == b"x"
            assert came[0].peer == ANONYMOUS

    run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", ["foreign CA", "another name"])
def test_clients_verify_the_server_all_the_same(pki: PkiFixture, kind: str, why: str) -> None:
    async def main() -> None:
        authority = pki.foreign_ca_certificate if why == "foreign CA" else pki.ca
        who = TlsIdentity.anonymous(x509.load_pem_x509_certificates(authority.read_bytes()))
        name = "localhost" if why == "foreign CA" else "other.example"
        async with serving(kind, public_leaf(pki)) as (server, came):
            with pytest.raises(DialFailed):
                async with dialled(kind, who, server.address, server_name=name):
                    pass
            # And one that does not want to know gets in.
            nobody, policy = TlsIdentity.anonymous(), PeerPolicy.NONE
            async with dialled(kind, nobody, server.address, policy, server_name=name) as one:
                assert await exchange(one, b"x") == b"x"
            assert came

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_where_both_sides_are_proven_nobody_comes_without(pki: PkiFixture, kind: str) -> None:
    async def main() -> None:
        async with serving(kind, identity(pki, pki.relay), PeerPolicy.MUTUAL) as (server, came):
            client = made(kind, trusting(pki), PeerPolicy.SERVER_ONLY)
            assert server.address is not None
            try:
                # A client of TLS 1.3 is through before the server has seen what it lacks.
                with suppress(DialFailed):
                    connection = await client.connect(server.address)
                    await eventually(lambda: connection.closed is not None)
            finally:
                client.abort()
            assert came == []
            assert any(key.startswith(("refused", "handshake")) for key in server.counters)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_is_for_those_who_come_then(pki: PkiFixture, kind: str) -> None:
    async def main() -> None:
        first, second = public_leaf(pki), public_leaf(pki)
        async with (
            serving(kind, first) as (server, _),
            dialled(kind, trusting(pki), server.address) as before,
        ):
            server.reload(second)
            async with dialled(kind, trusting(pki), server.address) as after:
                assert await exchange(before, b"lives") == b"lives"
                assert await exchange(after, b"new") == b"new"
                prints = [before.peer.fingerprint, after.peer.fingerprint]
        leaves = [one.chain[0].fingerprint(hashes.SHA256()).hex() for one in (first, second)]
        assert prints == leaves

    run(main())


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_a_stock_client_without_a_certificate(pki: PkiFixture, engine: str) -> None:
    async def main() -> None:
        async with serving(engine, public_leaf(pki)) as (server, _):
            configuration = QuicConfiguration(
                is_client=True, alpn_protocols=list(ALPN), server_name="localhost"
            )
            configuration.load_verify_locations(str(pki.ca))
            assert server.address is not None
            async with stock_connect(*server.address, configuration=configuration) as client:
                reader, writer = await client.create_stream()
                writer.write(b"stock")
                writer.write_eof()
                assert await asyncio.wait_for(reader.read(), 5) == b"stock"

    run(main())


# A listener that serves asyncio protocols, as WebSockets and TURN over TLS are.


class Echo(asyncio.Protocol):
    """What comes goes back; it stops to read while `stopped`."""

    made: list[Echo]

    def __init__(self, made: list[Echo]) -> None:
        made.append(self)
        self.received = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@asynccontextmanager
async def listening(
    context: Callable[[], ssl.SSLContext], deadline: float = 5.0
) -> AsyncIterator[tuple[ProtocolListener, int, list[Echo]]]:
    protocols: list[Echo] = []
    listener = ProtocolListener(
        lambda: Echo(protocols), AcceptLimits(8, 8, deadline), name="echo", tls=context
    )
    sock = listen_tcp(*LOCAL)
    listener.attach(sock, unguarded)
    try:
        yield listener, sock.getsockname()[1], protocols
    finally:
        listener.abort()
        await eventually(lambda: all(one.lost for one in protocols))


def client_tls(pki: PkiFixture, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)  # the CA has no key identifiers
    context.maximum_version = version
    context.set_alpn_protocols(list(ALPN))
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_protocol_is_served_over_tls(pki: PkiFixture, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        context = server_context(public_leaf(pki), ALPN, policy=PeerPolicy.SERVER_ONLY)
        async with listening(lambda: context) as (listener, port, protocols):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_tls(pki, version), server_hostname="localhost"
            )
            payload = bytes(range(256)) * 4096
            writer.write(payload)
            assert await asyncio.wait_for(reader.readexactly(len(payload)), 20) == payload
            tls = writer.get_extra_info("ssl_object")
            assert (tls.version(), tls.selected_alpn_protocol()) == (
                "TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3", ALPN[0],
            )  # fmt: skip
            assert len(listener) == 1
            # Who does not read any more stops the writer, and only for as long.
            protocols[0].transport.pause_reading()
            assert not protocols[0].transport.is_reading()
            writer.write(b"later")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(5), 0.1)
            protocols[0].transport.resume_reading()
            assert await asyncio.wait_for(reader.readexactly(5), 20) == b"later"
            writer.close()
            await eventually(lambda: protocols[0].lost)
            assert not len(listener)

    run(main())


def test_the_next_handshake_shows_the_new_certificate(pki: PkiFixture) -> None:
    async def main() -> None:
        leaves = [public_leaf(pki), public_leaf(pki)]
        contexts = [server_context(one, ALPN, policy=PeerPolicy.SERVER_ONLY) for one in leaves]
        shown: list[x509.Certificate] = []
        async with listening(lambda: contexts[len(shown)]) as (_, port, _):
            for _ in leaves:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", port, server_hostname="localhost",
                    ssl=client_tls(pki, ssl.TLSVersion.TLSv1_3),
                )  # fmt: skip
                tls = writer.get_extra_info("ssl_object")
                shown.append(x509.load_der_x509_certificate(tls.getpeercert(True)))
                writer.close()
        assert shown == [one.chain[0] for one in leaves]

    run(main())


def test_strangers_do_not_hold_a_place_without_a_handshake(pki: PkiFixture) -> None:
    async def main() -> None:
        context = server_context(public_leaf(pki), ALPN, policy=PeerPolicy.SERVER_ONLY)
        async with listening(lambda: context, deadline=0.2) as (listener, port, protocols):
            silent, mute = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(silent.read(), 5) == b""
            plain, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.wait_for(plain.read(), 5)
            for one in (mute, writer):
                one.close()
                await one.wait_closed()
            assert not len(listener)
            assert listener.counters["handshake_failed_timeout"] == 1
            assert sum(listener.counters.values()) == 2
            assert protocols == []

    run(main())
