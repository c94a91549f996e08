"""Bad input at a real relay, beside a good pair of agents that must not notice."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from actors.edge.settings import EdgeSettings
from actors.transport.quic import DialFailed, QuicEndpoint, QuicSettings
from actors.transport.quic.native_engine import NativeEngine
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import RawAgent, Relay, identity, leaf_of, relay
from wire.orp.frame import Frame, FrameReader, FrameType
from wire.orp.messages import ObservedAddrQuery, OpenStream, Ping, StreamAccept


class GoodPair:
    """Two agents that exchange verified bytes all the time."""

    def __init__(self, running: Relay, pki: PkiFixture) -> None:
        self.provider = running.agent(pki, pki.provider)
        self.consumer = running.agent(pki, pki.consumer)
        self._running = running
        self.sent = bytearray()

    async def open(self) -> GoodPair:
        await self.provider.connect(self._running.address, "svc")
        await self.consumer.connect(self._running.address)
        self.mine = self.consumer.open(OpenStream("svc", "", 1).encode())
        self.theirs, _ = await self.provider.next_incoming(1)
        self.theirs.stream.write(StreamAccept().encode())
        await eventually(lambda: 1 in self.consumer.ready_streams)
        return self

    async def still_works(self) -> None:
        """Both ways, a piece at a time."""
        piece = os.urandom(20_000)
        self.mine.stream.write(piece)
        self.sent += piece
        await eventually(lambda: len(self.theirs.data) == len(self.sent))
        assert self.theirs.data == self.sent
        self.theirs.stream.write(b"ack")
        await eventually(lambda: bytes(self.mine.data).endswith(b"ack"))
        assert self.provider.closed is None
        assert self.consumer.closed is None


@asynccontextmanager
async def beside_a_good_pair(
    pki: PkiFixture,
    tmp_path: Path,
    *,
    settings: EdgeSettings | None = None,
    quic: QuicSettings | None = None,
) -> AsyncIterator[tuple[Relay, GoodPair]]:
    async with relay(pki, tmp_path, settings=settings, quic=quic) as running:
        pair = await GoodPair(running, pki).open()
        await pair.still_works()
        yield running, pair
        await pair.still_works()


def refusals(running: Relay) -> dict[str, int]:
    return dict(running.edge.endpoints[0].counters)


def test_port_scans_and_garbage(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with beside_a_good_pair(pki, tmp_path) as (running, pair):
            host, port = running.address
            with pytest.raises(ConnectionError):  # nothing listens on TCP there
                await asyncio.open_connection(host, port)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                for size in (0, 1, 2, 20, 21, 1199, 1200, 1500, 8000):
                    for first in (0x00, 0x40, 0x80, 0xC0, 0xFF):
                        probe.sendto((bytes([first]) + os.urandom(size))[:size], running.address)
                await pair.still_works()
            counters = refusals(running)
            dropped = sum(n for name, n in counters.items() if name.startswith("drop_"))
            assert dropped + counters.get("version_negotiation", 0) == 45
            assert counters["drop_empty"] == 5
            assert counters["handshake_ok"] == 2
            assert running.edge.endpoints[0].statistics().pending == 0

    run(main())


def _leaf(
    pki: PkiFixture,
    *,
    names: list[x509.GeneralName],
    purposes: list[x509.ObjectIdentifier],
    age: timedelta = timedelta(0),
) -> TlsIdentity:
    """A certificate of the right CA that is wrong in one way."""
    ca_dir = pki.ca.parent
    ca_key = serialization.load_pem_private_key((ca_dir / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
            critical=False,
        )
    )
    good = identity(pki, pki.consumer)
    return replace(good, chain=(builder.sign(ca_key, hashes.SHA256()),), key=key)


CLIENT_AUTH = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
AGENT = x509.UniformResourceIdentifier(f"outrelay://acme/agent/{UUID(int=77)}")
CERTIFICATES: dict[str, tuple[Callable[[PkiFixture], TlsIdentity], str]] = {
    "expired": (
        lambda pki: _leaf(pki, names=[AGENT], purposes=[CLIENT_AUTH], age=timedelta(days=9)),
        "refused_expired",
    ),
    "not yet valid": (
        lambda pki: _leaf(pki, names=[AGENT], purposes=[CLIENT_AUTH], age=timedelta(days=-9)),
        "refused_not_yet_valid",
    ),
    "for servers only": (
        lambda pki: _leaf(pki, names=[AGENT], purposes=[SERVER_AUTH]),
        "refused_wrong_purpose",
    ),
    "without URI": (
        lambda pki: _leaf(pki, names=[x509.DNSName("agent")], purposes=[CLIENT_AUTH]),
        "refused_no_uri",
    ),
    "of a foreign CA": (
        lambda pki: replace(
            TlsIdentity.load(
                pki.foreign_agent.certificate, pki.foreign_agent.key, pki.foreign_ca_certificate
            ),
            authorities=identity(pki, pki.consumer).authorities,
        ),
        "refused_unknown_ca",
    ),
}


@pytest.mark.parametrize("what", CERTIFICATES)
def test_a_certificate_that_is(pki: PkiFixture, tmp_path: Path, what: str) -> None:
    make, counter = CERTIFICATES[what]

    async def main() -> None:
        async with beside_a_good_pair(pki, tmp_path) as (running, pair):
            endpoint = QuicEndpoint(alpn=("orp/1",), identity=make(pki))
            running.endpoints.append(endpoint)
            try:
                connection = await endpoint.connect(running.address)
            except DialFailed as failed:
                reason = failed.reason
            else:
                # TLS 1.3: the client may be through before its certificate was looked at.
                connection.start()
                await eventually(lambda: connection.closed is not None)
                assert connection.closed is not None
                reason = connection.closed
            assert not reason.application
            assert 0x100 <= reason.code < 0x200
            assert refusals(running)[counter] == 1
            assert refusals(running)["handshake_ok"] == 2
            await pair.still_works()

    run(main())


@pytest.mark.parametrize(
    "uri",
    [
        "outrelay://acme/relay/r9",
        "outrelay://acme/agent/not-a-uuid",
        "https://acme/agent/00000000-0000-0000-0000-000000000077",
        "outrelay:///agent/00000000-0000-0000-0000-000000000077",
    ],
)
def test_an_identity_that_is_no_agent_of_ours(pki: PkiFixture, tmp_path: Path, uri: str) -> None:
    async def main() -> None:
        async with beside_a_good_pair(pki, tmp_path) as (running, _):
            name = x509.UniformResourceIdentifier(uri)
            who = _leaf(pki, names=[name], purposes=[CLIENT_AUTH])
            endpoint = QuicEndpoint(alpn=("orp/1",), identity=who)
            running.endpoints.append(endpoint)
            connection = await endpoint.connect(running.address)
            connection.start()
            await eventually(lambda: connection.closed is not None)
            assert running.counters["agents_admitted"] == 2
            counted = [n for n in running.counters if "identity_" in n or "relay_not_" in n]
            assert counted

    run(main())


def test_ctrl_streams_that_are_slow_cut_short_or_too_large(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", hello_deadline=0.6, first_frame_deadline=0.6)
        async with beside_a_good_pair(pki, tmp_path, settings=settings) as (running, pair):
            slow, cut, large, silent = [running.agent(pki, pki.consumer) for _ in range(4)]
            # The same identity: a HELLO that never comes supersedes nobody.
            for agent in (slow, cut, large, silent):
                await agent.dial(running.address)
            version_and_type = (0x2000 | FrameType.HELLO).to_bytes(2, "big")
            large.ctrl.write(version_and_type + b"\0\0" + (1 << 24).to_bytes(4, "big"))
            cut.ctrl.write(version_and_type + b"\0\0" + (100).to_bytes(4, "big") + b"half")
            cut.ctrl.write_eof()
            drip = asyncio.create_task(
                _drip(slow, version_and_type + b"\0\0\0\0\0\x40" + b"x" * 64)
            )
            for agent in (slow, cut, large, silent):
                await eventually(lambda agent=agent: agent.closed is not None, timeout=10)  # type: ignore[misc]
            await drip
            assert running.counters["agents_admitted"] == 6
            await pair.still_works()
            await eventually(lambda: len(running.edge.door.connections) == 2)

    run(main())


async def _drip(agent: RawAgent, data: bytes) -> None:
    """Slowloris: a byte now and then."""
    for byte in data:
        if agent.closed is not None:
            return
        if not agent.ctrl.write_closed:
            agent.ctrl.write(bytes([byte]))
        await asyncio.sleep(0.05)


def test_a_flood_of_small_ctrl_frames_waits_in_its_window(pki: PkiFixture, tmp_path: Path) -> None:
    """All are answered, in order, at a rate that leaves the relay to the others."""
    count = 12_000

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            agent = running.agent(pki, leaf_of(pki, tmp_path, "acme", 9))
            await agent.connect(running.address)
            answers = FrameReader(4096)
            heard: list[Frame] = []

            def on_data(chunk: bytes) -> None:
                agent.ctrl.consume(len(chunk))
                answers.feed(chunk)
                while (frame := answers.next_frame()) is not None:
                    heard.append(frame)

            agent.ctrl.on_data = on_data
            begun = asyncio.get_running_loop().time()
            agent.ctrl.write(Ping().encode() * count + ObservedAddrQuery(7).encode())
            pair = await GoodPair(running, pki).open()
            await eventually(lambda: len(heard) > count)
            # 500 at once, the others at 10 000 a second.
            assert asyncio.get_running_loop().time() - begun >= (count - 1000) / 10_000
            assert [frame.type for frame in heard] == [FrameType.PONG] * count + [
                FrameType.OBSERVED_ADDR_RESP
            ]
            assert pair.provider.closed is None
            # What waits goes with its connection.
            agent.ctrl.write(Ping().encode() * count)
            agent.connection.close(0)
            await pair.still_works()

    run(main(), timeout=30)


def test_streams_without_and_with_wrong_first_frames(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        settings = EdgeSettings(region="local", first_frame_deadline=0.5, max_opening_per_agent=64)
        async with beside_a_good_pair(pki, tmp_path, settings=settings) as (_, pair):
            bad = pair.consumer
            first: list[bytes] = [
                b"\x20",
                b"GET / HTTP/1.1\r\n\r\n",
                os.urandom(50),
                b"\xff" * 8,
                OpenStream("svc", "", 1).encode()[:7],
                b"\x20\x10\0\0\x7f\xff\xff\xff",
            ]
            streams = [bad.open(data) for data in first * 12]
            for stream in streams:
                await eventually(lambda s=stream: s.reset_code is not None or s.eof, timeout=10)  # type: ignore[misc]
            await pair.still_works()
            # Their credit is back, and nothing of them is left.
            await eventually(lambda: bad.connection.statistics().streams <= 2, timeout=10)

    run(main())


def _silent_initials(count: int, who: TlsIdentity) -> list[bytes]:
    """First datagrams of clients that never say anything again."""
    made = []
    settings = QuicSettings()
    for _ in range(count):
        engine = NativeEngine(settings, who, ("orp/1",), client=True, server_name="localhost")
        engine.connect(("127.0.0.1", 1), 0.0)
        made.append(engine.transmit(0.0)[0][0])
    return made


SERVER = """
import asyncio, sys
from pathlib import Path
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tls import TlsIdentity
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
async def main():
    certificate, key, ca = map(Path, sys.argv[1:])
    endpoint = QuicEndpoint(alpn=("orp/1",), identity=TlsIdentity.load(certificate, key, ca),
        settings=QuicSettings(handshake_timeout=3.0), on_connection=lambda c: c.start())
    print(endpoint.attach(("127.0.0.1", 0))[1], rss(), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        s = endpoint.statistics()
        print(s.pending, s.connections, rss(), sum(s.counters.values()), s.counters.get("retry", 0),
              flush=True)
    endpoint.abort()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "count", [1500, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(120)])]
)
def test_silent_connections_cost_little_and_nobody_else(pki: PkiFixture, count: int) -> None:
    """Memory is that of the handshakes below the Retry threshold, however many knock."""
    who = identity(pki, pki.consumer)
    initials = _silent_initials(count, who)
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

        async def looked_at(number: int) -> None:
            """The server is through with the Initials so far, however slow this machine is."""
            until = asyncio.get_running_loop().time() + 10
            told = await asyncio.to_thread(ask)
            while told[0] + told[3] < number - 50:
                assert asyncio.get_running_loop().time() < until
                await asyncio.sleep(0.005)
                told = await asyncio.to_thread(ask)

        async def main() -> None:
            endpoint = QuicEndpoint(alpn=("orp/1",), identity=who)
            try:
                good = await endpoint.connect(("127.0.0.1", port))
                good.start()
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    for number, datagram in enumerate(initials):
                        sock.sendto(datagram, ("127.0.0.1", port))
                        if number % 50 == 49:
                            await looked_at(number)  # the kernel's buffer is not what is tested
                pending, connections, peak, outcomes, retries = await asyncio.to_thread(ask)
                limits = QuicSettings()
                assert connections == 1
                assert pending <= limits.retry_above
                assert retries + pending > 0
                # Every one of them was answered, limited or taken; 256 KiB per handshake at most.
                assert outcomes >= count - limits.retry_above - 1
                assert peak - before < 16 * 2**20 + limits.retry_above * 256 * 1024
                again = await endpoint.connect(("127.0.0.1", port))
                again.start()
                assert good.closed is None
                deadline = asyncio.get_running_loop().time() + 10
                while (await asyncio.to_thread(ask))[0]:
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.1)
            finally:
                endpoint.abort()

        run(main(), timeout=100)
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
