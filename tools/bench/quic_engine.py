"""CPU cost of the QUIC engines: one full hop in memory, native and aioquic alternating.

A hop is what a relay pays for a byte on one connection: encrypt on one side, decrypt on the other.
Two engines talk through a list in one process; no sockets, no event loop, no actors, one stream.
Process CPU seconds per GiB of stream data; handshakes are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.transport.quic.engine import Address, Data, Engine, Established
from actors.transport.quic.engines import AIOQUIC, NATIVE, EngineMaker, select
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

MEBIBYTE = 1 << 20
_CLIENT: Address = ("192.0.2.1", 1)
_SERVER: Address = ("192.0.2.2", 2)
_ALPN = ("bench",)
_CHUNK = 256 * 1024
_AHEAD = MEBIBYTE
_HANDSHAKE_ROUNDS = 50
DATAGRAMS = (1200, 1452)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    engine: str
    datagram: int
    streams: int
    mib: int
    cpu_s_per_gib: float
    us_per_datagram: float


class _Pair:
    """Two established engines of a kind."""

    def __init__(self, make: EngineMaker, settings: QuicSettings, identity: TlsIdentity) -> None:
        now = time.monotonic()
        self.client = make(settings, identity, _ALPN, client=True, server_name="localhost")
        self.client.connect(_SERVER, now)
        flight = self.client.transmit(now)
        first = flight[0][0]
        self.server = make(
            settings,
            identity,
            _ALPN,
            client=False,
            original_destination_cid=first[6 : 6 + first[5]],
        )
        self.server.receive_many([data for data, _ in flight], _CLIENT, now)
        self.received = 0
        self.datagrams = 0
        established = 0
        for _ in range(_HANDSHAKE_ROUNDS):
            for event in self.exchange():
                established += isinstance(event, Established)
            if established == 2:
                return
        raise RuntimeError("no handshake")

    def exchange(self) -> Iterator[object]:
        """Carry everything both sides have, once; timers when there is nothing."""
        now = time.monotonic()
        moved = 0
        for source, target, address in (
            (self.client, self.server, _CLIENT),
            (self.server, self.client, _SERVER),
        ):
            datagrams = [data for data, _ in source.transmit(now)]
            moved += len(datagrams)
            if datagrams:
                target.receive_many(datagrams, address, now)
            for event in (*target.events(), *source.events()):
                if isinstance(event, Data):
                    self._took(target, event)
                yield event
        self.datagrams += moved
        if not moved:
            for engine in (self.client, self.server):
                timer = engine.next_timer()
                if timer is not None and timer <= now:
                    engine.handle_timer(now)

    def _took(self, engine: Engine, event: Data) -> None:
        self.received += len(event.data)
        engine.consume(event.stream_id, len(event.data))


def hop(make: EngineMaker, datagram: int, streams: int, mib: int) -> tuple[float, float]:
    """CPU seconds per GiB and microseconds per datagram of one transfer."""
    settings = QuicSettings(max_datagram=datagram)
    pair = _Pair(make, settings, _identity())
    opened = [pair.client.open_stream() for _ in range(streams)]
    total, written, turn = mib * MEBIBYTE, 0, 0
    chunk = bytes(_CHUNK)
    ahead = max(_AHEAD, streams * _CHUNK)
    pair.datagrams = 0
    began = time.process_time()
    while pair.received < total:
        while written < total and written - pair.received < ahead:
            stream_id = opened[turn % streams]
            assert stream_id is not None
            pair.client.write(stream_id, chunk, end=False)
            written += _CHUNK
            turn += 1
        for _ in pair.exchange():
            pass
    spent = time.process_time() - began
    return spent * 1024 / mib, spent * 1e6 / pair.datagrams


def measure(mib: int, rounds: int) -> Iterator[Row]:
    """Alternating rounds; of each engine and size the cheapest round (the least disturbed)."""
    for datagram in DATAGRAMS:
        for streams in (1, 16):
            best: dict[str, tuple[float, float]] = {}
            for _ in range(rounds):
                for name in (NATIVE, AIOQUIC):
                    amount = mib if name == NATIVE else max(1, mib // 4)
                    figures = hop(select(name).make, datagram, streams, amount)
                    best[name] = min(best.get(name, figures), figures)
            for name, (cost, per_datagram) in best.items():
                amount = mib if name == NATIVE else max(1, mib // 4)
                yield Row(name, datagram, streams, amount, cost, per_datagram)


def _identity() -> TlsIdentity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return TlsIdentity((certificate,), (certificate,), key)
