"""Does an engine work in this process? Two connections, in memory, without a clock or a socket.

Covered: a handshake with certificates on both sides, the protocol agreed on, a stream echoed with
its FIN, credit beyond one window, and a close with its code and text.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.transport.quic.engine import Address, Closed, Data, Engine, Established, Event
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

if TYPE_CHECKING:
    from actors.transport.quic.engines import EngineMaker

_ALPN = ("self-test",)
_CLIENT: Address = ("192.0.2.1", 1)
_SERVER: Address = ("192.0.2.2", 2)
_ORIGINAL_CID_OFFSET = 6
_WINDOW = 64 * 1024
_BYTES = 3 * _WINDOW
#: Far more exchanges than the test needs; one without progress moves the virtual clock.
_ROUNDS = 2000
_TICK = 0.005


class SelfTestFailed(Exception):
    """The engine does not do what it must; the text says what."""


class _End:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.established: Established | None = None
        self.closed: Closed | None = None
        self.received = hashlib.sha256()
        self.ended = False

    def take(self, event: Event, *, echo: bool) -> None:
        if isinstance(event, Established):
            self.established = event
        elif isinstance(event, Closed):
            self.closed = event
        elif isinstance(event, Data):
            self.received.update(event.data)
            self.ended |= event.end
            self.engine.consume(event.stream_id, len(event.data))
            if echo:
                self.engine.write(event.stream_id, event.data, end=event.end)


def self_test(make: EngineMaker, make_client: EngineMaker | None = None) -> None:
    """Run it.

    Args:
        make: what is tested, on both sides.
        make_client: makes the client instead.

    Raises:
        SelfTestFailed: what did not happen.
    """
    identity = _identity()
    settings = QuicSettings(stream_window=_WINDOW, connection_window=2 * _WINDOW)
    now = 1.0
    dial = make_client or make
    client = _End(dial(settings, identity, _ALPN, client=True, server_name="localhost"))
    client.engine.connect(_SERVER, now)
    flight = client.engine.transmit(now)
    if not flight:
        raise SelfTestFailed("no first flight")
    first = flight[0][0]
    length = first[_ORIGINAL_CID_OFFSET - 1]
    original = first[_ORIGINAL_CID_OFFSET : _ORIGINAL_CID_OFFSET + length]
    server = _End(make(settings, identity, _ALPN, client=False, original_destination_cid=original))
    for data, _ in flight:
        server.engine.receive(data, _CLIENT, now)
    payload = bytes(range(256)) * (_BYTES // 256)
    stream_id: int | None = None
    for _ in range(_ROUNDS):
        moved = _exchange(server, client, _SERVER, now, echo=False)
        moved |= _exchange(client, server, _CLIENT, now, echo=True)
        if stream_id is None and client.established and server.established:
            _check_peers(client, server, identity)
            stream_id = client.engine.open_stream()
            if stream_id is None:
                raise SelfTestFailed("no stream")
            client.engine.write(stream_id, payload, end=True)
        elif client.ended and client.closed is None:
            if client.received.digest() != hashlib.sha256(payload).digest():
                raise SelfTestFailed("the echo differs")
            client.engine.close(7, "done", application=True)
        elif server.closed is not None:
            if (server.closed.code, server.closed.text) != (7, "done"):
                raise SelfTestFailed("another close arrived")
            return
        elif not moved:
            now += _TICK
            for end in (client, server):
                timer = end.engine.next_timer()
                if timer is not None and timer <= now:
                    end.engine.handle_timer(now)
    raise SelfTestFailed("no handshake" if stream_id is None else "no complete echo")


def _exchange(source: _End, target: _End, address: Address, now: float, *, echo: bool) -> bool:
    """Carry what `source` has to say; `echo` for what `target` does with data."""
    datagrams = [data for data, _ in source.engine.transmit(now)]
    if datagrams:
        target.engine.receive_many(datagrams, address, now)
    for event in target.engine.events():
        target.take(event, echo=echo)
    for event in source.engine.events():
        source.take(event, echo=not echo)
    return bool(datagrams)


def _check_peers(client: _End, server: _End, identity: TlsIdentity) -> None:
    for end in (client, server):
        established = end.established
        if established is None or [*established.chain] != [identity.chain[0]]:
            raise SelfTestFailed("a certificate is missing")
        if established.alpn != _ALPN[0]:
            raise SelfTestFailed("another protocol was agreed on")


def _identity() -> TlsIdentity:
    """A certificate for this test, valid for minutes; nothing trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=5))
        .sign(key, hashes.SHA256())
    )
    return TlsIdentity((certificate,), (certificate,), key)
