"""TCP endpoints over real sockets and real TLS: who gets in, what streams do, what is bounded."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from actors.transport.connection import Connection, DialFailed
from actors.transport.stream import BacklogExceeded, CloseReason, Stream, StreamClosed
from actors.transport.tcp import TcpEndpoint, TcpSettings
from actors.transport.tcp.yamux_connection import YamuxConnection
from actors.transport.tls import CLIENT, SERVER, TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_endpoint import LOCAL, Reader, echo

FAST = TcpSettings(handshake_timeout=1.0)


@asynccontextmanager
async def serving(
    pki: PkiFixture,
    settings: TcpSettings = FAST,
    who: TlsIdentity | None = None,
    then: object = echo,
) -> AsyncIterator[TcpEndpoint]:
    endpoint = TcpEndpoint(
        alpn=("orp/1",),
        identity=who or identity(pki, pki.relay),
        settings=settings,
        on_connection=then,  # type: ignore[arg-type]
    )
    endpoint.attach(LOCAL)
    try:
        yield endpoint
    finally:
        endpoint.abort()
        await eventually(lambda: not endpoint.statistics().pending)


@asynccontextmanager
async def connected(
    pki: PkiFixture, server: TcpEndpoint, settings: TcpSettings = FAST
) -> AsyncIterator[Connection]:
    client = TcpEndpoint(alpn=("orp/1",), identity=identity(pki, pki.provider), settings=settings)
    assert server.address is not None
    connection = await client.connect(server.address)
    connection.start()
    try:
        yield connection
    finally:
        client.abort()


async def exchange(connection: Connection, payload: bytes) -> bytes:
    stream = connection.open_stream()
    assert stream is not None
    reader = Reader(stream)
    for start in range(0, len(payload), 65_536):
        await eventually(lambda: stream.room > 0)
        stream.write(payload[start : start + 65_536])
    stream.write_eof()
    await eventually(lambda: reader.eof, timeout=20)
    return bytes(reader.data)


def test_bytes_come_back_on_many_streams_at_once(pki: PkiFixture) -> None:
    async def main() -> None:
        async with serving(pki) as server, connected(pki, server) as connection:
            assert connection.peer.uri == "outrelay://acme/relay/r1"
            assert connection.alpn == "orp/1"
            payloads = [os.urandom(65_536 * n) for n in range(1, 17)]
            answers = await asyncio.gather(*(exchange(connection, one) for one in payloads))
            assert answers == payloads
            await eventually(lambda: connection.statistics().streams == 0)

    run(main())


def test_a_stalled_reader_stops_its_own_writer_only(pki: PkiFixture) -> None:
    settings = TcpSettings(stream_window=1 << 20, max_backlog=1 << 20)
    stalled: list[Stream] = []

    def take(connection: Connection) -> None:
        def on_stream(stream: Stream) -> None:
            if not stalled:
                stalled.append(stream)  # paused, and not read
            else:
                stream.on_data = stream.write
                stream.on_drain = stream.consume
                stream.on_eof = stream.write_eof
                stream.start()

        connection.on_stream = on_stream
        connection.start()

    async def main() -> None:
        async with serving(pki, settings, then=take) as server, connected(pki, server) as mine:
            slow = mine.open_stream()
            assert slow is not None
            written = 0
            while slow.room > 0:
                slow.write(bytes(65_536))
                written += 65_536
            await eventually(lambda: bool(stalled) and stalled[0].bytes_in >= 1 << 18)
            for _ in range(4):
                assert await exchange(mine, bytes(1 << 20)) == bytes(1 << 20)
                while slow.room > 0:
                    slow.write(bytes(65_536))
                    written += 65_536
            assert stalled[0].unconsumed <= 1 << 20
            assert written <= 3 << 20
            slow.write(bytes((1 << 20) + 1))
            with pytest.raises(BacklogExceeded):
                slow.write(b"x")
            # And goes on where it was when somebody reads.
            reader = Reader(stalled[0])
            sent = slow.bytes_out
            await eventually(lambda: len(reader.data) == sent)

    run(main())


def test_each_direction_ends_on_its_own(pki: PkiFixture) -> None:
    streams: list[Stream] = []

    def take(connection: Connection) -> None:
        connection.on_stream = streams.append
        connection.start()

    async def main() -> None:
        async with serving(pki, then=take) as server, connected(pki, server) as connection:
            mine = connection.open_stream()
            assert mine is not None
            finished: list[str] = []
            mine.on_finished = lambda: finished.append("mine")
            reader = Reader(mine)
            mine.write(b"question")
            mine.write_eof()
            with pytest.raises(StreamClosed):
                mine.write(b"more")
            await eventually(lambda: streams)
            there = Reader(streams[0])
            streams[0].on_finished = lambda: finished.append("theirs")
            await eventually(lambda: there.eof)
            assert bytes(there.data) == b"question"
            await asyncio.sleep(0.05)
            assert not finished
            streams[0].write(b"answer")
            streams[0].write_eof()
            await eventually(lambda: reader.eof)
            assert bytes(reader.data) == b"answer"
            await eventually(lambda: sorted(finished) == ["mine", "theirs"])

    run(main())


def test_a_reset_keeps_its_code_and_is_never_fin(pki: PkiFixture) -> None:
    streams: list[Stream] = []

    def take(connection: Connection) -> None:
        connection.on_stream = streams.append
        connection.start()

    async def main() -> None:
        async with serving(pki, then=take) as server, connected(pki, server) as connection:
            for code in (11, 10):
                mine = connection.open_stream()
                assert mine is not None
                seen: list[object] = []
                mine.on_reset = seen.append
                mine.on_eof = lambda: seen.append("eof")  # noqa: B023
                mine.start()
                mine.write(b"x")
                await eventually(lambda: streams)
                streams.pop().abort(code)
                await eventually(lambda: seen)  # noqa: B023
                assert seen == [code]
            # One direction only: what still comes is read first, and the error follows.
            mine = connection.open_stream()
            assert mine is not None
            reader = Reader(mine)
            resets: list[int] = []
            mine.on_reset = resets.append
            mine.write(b"x")
            await eventually(lambda: streams)
            theirs = Reader(streams[0])
            streams[0].write(b"half an answer")
            await eventually(lambda: reader.data)
            streams[0].reset(10)
            mine.write(b" and the rest")
            await eventually(lambda: bytes(theirs.data) == b"x and the rest")
            assert not reader.eof
            mine.write_eof()
            await eventually(lambda: theirs.eof)
            await eventually(lambda: resets)
            assert resets == [10]
            assert not reader.eof

    run(main())


def test_the_end_of_a_connection_is_told_to_every_stream(pki: PkiFixture) -> None:
    taken: list[Connection] = []

    def take(connection: Connection) -> None:
        taken.append(connection)
        echo(connection)

    async def main() -> None:
        async with serving(pki, then=take) as server, connected(pki, server) as connection:
            reasons: list[CloseReason] = []
            lost: list[CloseReason] = []
            connection.on_closed = reasons.append
            for _ in range(3):
                stream = connection.open_stream()
                assert stream is not None
                stream.on_lost = lost.append
                stream.start()
                stream.write(b"x")
            await eventually(lambda: taken)
            taken[0].close(0x10E, "going away")
            await eventually(lambda: reasons)
            assert [(r.kind, r.code, r.application) for r in reasons] == [("peer", 0x10E, True)]
            assert len(lost) == 3
            assert connection.open_stream() is None
            assert server.statistics().connections == 0

    run(main())


def test_who_hears_that_a_connection_is_lost_opens_nothing_on_it(pki: PkiFixture) -> None:
    """The peer's kernel resets: no GO_AWAY tells the session. Nobody would hear of that stream."""

    async def main() -> None:
        async with serving(pki) as server, connected(pki, server) as connection:
            opened: list[Stream | None] = []
            stream = connection.open_stream()
            assert stream is not None
            stream.on_lost = lambda reason: opened.append(connection.open_stream())
            stream.start()
            stream.write(b"x")
            await eventually(lambda: server.statistics().connections == 1)
            assert isinstance(connection, YamuxConnection)
            connection.connection_lost(ConnectionResetError())
            assert opened == [None]
            assert connection.open_stream() is None
            assert connection.statistics().streams == 0

    run(main())


def test_who_closes_a_connection_hears_nothing_of_it_any_more(pki: PkiFixture) -> None:
    """One segment opens two streams; whoever gets the first closes the connection."""
    taken: list[Stream] = []

    def take(connection: Connection) -> None:
        def on_stream(stream: Stream) -> None:
            taken.append(stream)
            connection.close(1, "enough")

        connection.on_stream = on_stream
        connection.start()

    async def main() -> None:
        async with serving(pki, then=take) as server, connected(pki, server) as connection:
            reasons: list[CloseReason] = []
            connection.on_closed = reasons.append
            for _ in range(2):
                stream = connection.open_stream()
                assert stream is not None
                stream.write(b"x")
            await eventually(lambda: reasons)
            assert len(taken) == 1

    run(main())


def test_a_reset_of_the_peer_is_told_also_behind_our_fin(pki: PkiFixture) -> None:
    """It did not confirm what we wrote: whoever keeps that must hear that it may be lost."""
    streams: list[Stream] = []

    def take(connection: Connection) -> None:
        connection.on_stream = streams.append
        connection.start()

    async def main() -> None:
        async with serving(pki, then=take) as server, connected(pki, server) as connection:
            mine = connection.open_stream()
            assert mine is not None
            reader = Reader(mine)
            codes: list[int] = []
            mine.on_stop_sending = codes.append
            mine.write(b"x")
            await eventually(lambda: streams)
            streams[0].write_eof()
            await eventually(lambda: reader.eof)
            mine.write(bytes(3 << 19))  # more than the peer gives credit for
            mine.write_eof()
            peer = streams[0].connection
            assert isinstance(peer, YamuxConnection)
            peer.session.reset(streams[0].stream_id, 10)
            peer.schedule_transmit()
            await eventually(lambda: codes)
            assert codes == [10]

    run(main())


def test_what_is_written_is_not_cut_to_fit_the_buffer(pki: PkiFixture) -> None:
    room: list[int] = []

    async def main() -> None:
        settings = TcpSettings(write_buffer=64 * 1024)
        async with serving(pki, settings) as server, connected(pki, server, settings) as mine:
            assert isinstance(mine, YamuxConnection)
            take = mine.session.data_to_send

            def looked(most: int, now: float) -> object:
                room.append(most)
                return take(most, now)

            mine.session.data_to_send = looked  # type: ignore[assignment,method-assign]
            assert await exchange(mine, bytes(4 << 20)) == bytes(4 << 20)

    run(main())
    assert min(room) >= 32 * 1024  # a frame


def test_a_silent_handshake_delays_nobody_and_ends(pki: PkiFixture) -> None:
    """Sheet 6.4 T1, T2."""

    async def main() -> None:
        async with serving(pki) as server:
            assert server.address is not None
            silent = [socket.create_connection(server.address) for _ in range(20)]
            garbage = socket.create_connection(server.address)
            garbage.sendall(b"GET / HTTP/1.0\r\n\r\n")
            await eventually(lambda: server.statistics().pending >= 20)
            async with connected(pki, server) as connection:
                assert await exchange(connection, b"hello") == b"hello"
            await eventually(lambda: server.statistics().pending == 0)
            for one in (*silent, garbage):
                one.close()
            failed = sum(n for name, n in server.counters.items() if "handshake_failed" in name)
            assert failed == 21

    run(main())


def test_handshakes_are_bounded(pki: PkiFixture) -> None:
    async def main() -> None:
        settings = TcpSettings(handshake_timeout=5.0, max_pending_per_source=4)
        async with serving(pki, settings) as server:
            assert server.address is not None
            silent = [socket.create_connection(server.address) for _ in range(6)]
            await eventually(lambda: server.counters["refused_pending_per_source_limit"] == 2)
            assert server.statistics().pending == 4
            server.detach()
            await eventually(lambda: server.statistics().pending == 0)
            for one in silent:
                one.close()

    run(main())


def odd_leaf(pki: PkiFixture, directory: Path, what: str) -> tuple[Path, Path]:
    """A certificate of our CA that is wrong in one way."""
    authority = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    signer = load_pem_private_key(pki.ca.with_name("ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    usage = SERVER if what == "no client purpose" else CLIENT
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=2))
        .not_valid_after(now + timedelta(hours=-1 if what == "expired" else 1))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if what != "no identity":
        uri = x509.UniformResourceIdentifier(pki.provider.identity)
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    paths = directory / "odd.crt", directory / "odd.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


async def goes_on(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """True when the connection lives for a while; with TLS 1.3 the client learns late."""
    try:
        reader, writer = await asyncio.open_connection(
            *address, ssl=context, server_hostname="localhost"
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(2):
            await reader.readexactly(13)  # more than a goodbye
            return True
    except TimeoutError:
        return True
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "who", ["nobody", "foreign", "expired", "no client purpose", "no identity"]
)
def test_who_is_not_let_in(pki: PkiFixture, tmp_path: Path, who: str) -> None:
    async def main() -> None:
        admitted: list[Connection] = []

        def take(connection: Connection) -> None:
            admitted.append(connection)
            echo(connection)

        async with serving(pki, then=take) as server:
            assert server.address is not None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(pki.ca)
            if who == "foreign":
                context.load_cert_chain(pki.foreign_agent.certificate, pki.foreign_agent.key)
            elif who != "nobody":
                context.load_cert_chain(*odd_leaf(pki, tmp_path, who))
            assert not await goes_on(server.address, context)
            async with connected(pki, server) as connection:
                assert await exchange(connection, b"hello") == b"hello"
            assert len(admitted) == 1
            refused = {name for name in server.counters if name != "handshake_ok"}
            assert len(refused) == 1, refused

    run(main())


def test_a_server_that_is_not_ours_is_not_talked_to(pki: PkiFixture) -> None:
    async def main() -> None:
        async with serving(pki) as server:
            assert server.address is not None
            client = TcpEndpoint(
                alpn=("orp/1",), identity=identity(pki, pki.provider), settings=FAST
            )
            with pytest.raises(DialFailed):
                await client.connect(server.address, server_name="elsewhere")
            with socket.create_server(("127.0.0.1", 0)) as mute:
                with pytest.raises(DialFailed):
                    await client.connect(mute.getsockname(), timeout=0.2)
                free = mute.getsockname()
            with pytest.raises(DialFailed):
                await client.connect(free)
            client.abort()

    run(main())


def test_a_dead_peer_is_noticed(pki: PkiFixture) -> None:
    """Sheet 6.4 T3: a peer that answers nothing, behind a connection that stays up."""
    settings = TcpSettings(keepalive=0.1, ping_timeout=0.3)
    reasons: list[CloseReason] = []

    def take(connection: Connection) -> None:
        connection.on_closed = reasons.append
        connection.start()

    async def main() -> None:
        async with serving(pki, settings, then=take) as server:
            assert server.address is not None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(pki.ca)
            context.load_cert_chain(pki.provider.certificate, pki.provider.key)
            _, writer = await asyncio.open_connection(
                *server.address, ssl=context, server_hostname="localhost"
            )
            await eventually(lambda: reasons)
            assert reasons[0].text == "silent"
            writer.transport.abort()

    run(main())


def test_a_listener_comes_back_at_its_address_and_connections_live_on(pki: PkiFixture) -> None:
    async def main() -> None:
        async with serving(pki) as server, connected(pki, server) as connection:
            address = server.address
            await eventually(lambda: server.statistics().connections == 1)
            server.detach()
            assert await exchange(connection, b"still here") == b"still here"
            assert server.attach(LOCAL) == address
            async with connected(pki, server) as another:
                assert await exchange(another, b"hello") == b"hello"

    run(main())
