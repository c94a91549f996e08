"""Peers with a valid handshake, or in the middle of one, that abuse the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from actors.transport.quic.engine import Address
from tests.conftest import PkiFixture
from tests.transport.engines.attacker import HANDSHAKE, Attacker, frame, resident
from tests.transport.engines.virtual_link import CLIENT

servers = pytest.mark.parametrize("server", ["native", "aioquic"])

MEBIBYTE = 1 << 20
PROTOCOL_VIOLATION, FRAME_ENCODING, STREAM_LIMIT, CRYPTO_EXCEEDED = 0x0A, 0x07, 0x04, 0x0D
CONNECTION_ID_LIMIT, FLOW_CONTROL, INTERNAL = 0x09, 0x03, 0x01
UNEXPECTED_MESSAGE = 0x100 + 10
#: What one hostile connection may cost. Its connection window is 16 MiB, and of crumbs the native
#: engine keeps some 60 bytes each.
MEMORY = 32 * MEBIBYTE


@dataclass(frozen=True)
class Abuse:
    """So many packets of these frames; `ends` names the errors with which the server may end it.

    `must`: it has to end; else it may as well go on.
    """

    frames: Callable[[int], bytes]
    packets: int
    ends: tuple[int, ...] = ()
    must: bool = True


def many(make: Callable[[int], bytes], start: int, count: int = 100) -> bytes:
    return b"".join(make(number) for number in range(start, start + count))


def crumb(stream_id: int, number: int) -> bytes:
    """A byte of a stream, with gaps before and after it."""
    return frame(0x0E, stream_id, 3 * number + 1, 1, b"x")


def new_cid(number: int) -> bytes:
    """A NEW_CONNECTION_ID that retires all before it."""
    cid = (number + 8).to_bytes(8, "big")
    return frame(0x18, number + 8, number + 8, b"\x08" + cid, b"t" * 8 + cid)


ABUSES = {
    "ack of a packet never sent": Abuse(
        lambda _: frame(0x02, 10**6, 0, 0, 10), 1, (PROTOCOL_VIOLATION,)
    ),
    "ack below zero": Abuse(lambda _: frame(0x02, 0, 0, 0, 10), 1, (FRAME_ENCODING,)),
    "ack with more ranges than bytes": Abuse(
        lambda _: frame(0x02, 0, 0, 10**9, 0), 1, (FRAME_ENCODING,)
    ),
    "acks and nothing else": Abuse(lambda _: 50 * frame(0x02, 0, 0, 0, 0), 2000),
    "path challenges": Abuse(lambda n: frame(0x1A, n.to_bytes(8, "big")), 3000),
    "packets full of path challenges": Abuse(
        lambda n: many(lambda m: frame(0x1A, m.to_bytes(8, "big")), 100 * n),
        1000,
        (PROTOCOL_VIOLATION,),
        must=False,
    ),
    "path responses nobody asked for": Abuse(lambda n: frame(0x1B, n.to_bytes(8, "big")), 3000),
    "pings that are not acknowledged": Abuse(lambda _: frame(0x01), 10_000),
    "packets full of pings": Abuse(
        lambda _: 1000 * frame(0x01), 500, (PROTOCOL_VIOLATION,), must=False
    ),
    "packets full of pings and padding": Abuse(
        lambda _: 500 * (frame(0x01) + b"\0"), 500, (PROTOCOL_VIOLATION,), must=False
    ),
    "packets full of limits": Abuse(
        lambda _: 400 * frame(0x10, 1), 500, (PROTOCOL_VIOLATION,), must=False
    ),
    "packets full of blocked": Abuse(
        lambda _: 200 * (frame(0x14, 1) + frame(0x15, 0, 1)), 500, (PROTOCOL_VIOLATION,), must=False
    ),
    "new connection ids": Abuse(
        new_cid, 5000, (CONNECTION_ID_LIMIT, PROTOCOL_VIOLATION), must=False
    ),
    "the connection id in use retired": Abuse(lambda _: frame(0x19, 0), 1, (PROTOCOL_VIOLATION,)),
    "crumbs of a stream": Abuse(
        lambda n: many(lambda m: crumb(0, m), 100 * n), 2000, (INTERNAL,), must=False
    ),
    "crumbs of many streams": Abuse(
        lambda n: b"".join(crumb(4 * m, n) for m in range(100)), 1000, (INTERNAL,), must=False
    ),
    "crumbs of TLS": Abuse(
        lambda n: many(lambda m: frame(0x06, 3 * m + 10, 1, b"x"), 100 * n),
        2000,
        (CRYPTO_EXCEEDED,),
        must=False,
    ),
    "TLS after the handshake": Abuse(
        lambda _: frame(0x06, 0, 4, b"\x18\0\0\1"), 1, (UNEXPECTED_MESSAGE,)
    ),
    "streams opened and reset": Abuse(
        lambda n: frame(0x0E, 4 * n, 0, 1, b"x") + frame(0x04, 4 * n, 7, 1),
        11_000,
        (STREAM_LIMIT,),
    ),
    "credit for streams that are not there": Abuse(
        lambda n: frame(0x11, 4 * n, 10**7), 11_000, (STREAM_LIMIT,)
    ),
    "the highest stream first": Abuse(lambda _: frame(0x0E, 4 * 10_239, 0, 1, b"x"), 1),
    "a stream beyond the limit": Abuse(
        lambda _: frame(0x0E, 4 * 10_240, 0, 1, b"x"), 1, (STREAM_LIMIT,)
    ),
    "bytes beyond the connection's window": Abuse(
        lambda _: frame(0x0E, 0, 1 << 25, 1, b"x"), 1, (FLOW_CONTROL,)
    ),
    "complaints of being blocked": Abuse(
        lambda _: frame(0x14, 10) + frame(0x15, 0, 5) + frame(0x16, 5), 5000
    ),
    "an unknown frame": Abuse(lambda _: frame(0x3F, 1), 1, (FRAME_ENCODING,)),
    "frames of servers only": Abuse(
        lambda _: frame(0x07, 3, b"abc") + frame(0x1E), 1, (PROTOCOL_VIOLATION,)
    ),
}


@servers
@pytest.mark.parametrize("name", ABUSES)
def test_abuse_costs_little_and_breaks_nothing(pki: PkiFixture, server: str, name: str) -> None:
    abuse = ABUSES[name]
    attacker = Attacker(pki, server)
    before = resident()
    for number in range(abuse.packets):
        attacker.send(abuse.frames(number))
        if attacker.closed is not None:
            break
    assert resident() - before < MEMORY
    # Nobody is made to send much more than comes; whole packets may answer the last ones.
    assert attacker.answered <= 4 * attacker.sent + 64 * 1024
    if attacker.closed is None:
        assert not (abuse.ends and abuse.must)
        # It still serves: a request on a fresh stream is heard.
        attacker.send(frame(0x0A, 4 * 5000, 5, b"hello"))
        assert attacker.closed is not None or (attacker.link.server.received[4 * 5000] == b"hello")
    else:
        assert attacker.closed in abuse.ends
        # And it ends: closing lasts three probe timeouts.
        for _ in range(20):
            attacker.turn(1.0)
        assert attacker.link.server.engine.terminated


@pytest.mark.parametrize("kind", [b"\1", b"\1\0"])
def test_on_aioquic_a_packet_full_of_pings_ends_it(pki: PkiFixture, kind: bytes) -> None:
    """A thousand PINGs take it a millisecond, for a packet that took its sender none."""
    attacker = Attacker(pki, "aioquic")
    attacker.send(20 * kind)  # as a peer may that is in a hurry
    assert attacker.closed is None
    attacker.send(kind * (1000 // len(kind)))
    assert attacker.closed == PROTOCOL_VIOLATION


@servers
def test_many_addresses_do_not_take_the_connection_away(pki: PkiFixture, server: str) -> None:
    """Probes from thousands of spoofed addresses: nothing stays, and the client goes on."""
    attacker = Attacker(pki, server)
    before = resident()
    spoofed: set[Address] = set()
    for number in range(3000):
        address: Address = (f"198.51.{number // 250}.{1 + number % 250}", 1000 + number)
        spoofed.add(address)
        attacker.send(frame(0x1A, number.to_bytes(8, "big")), address=address)
    assert attacker.closed is None
    assert resident() - before < MEMORY
    for address in spoofed:
        assert sum(map(len, attacker.answers.get(address, []))) <= 3 * 64
    attacker.send(frame(0x0A, 0, 5, b"hello"))
    assert attacker.link.server.received[0] == b"hello"
    assert attacker.link.server.engine.peer_address == CLIENT


@servers
@pytest.mark.parametrize(
    "what, payload, ends",
    [
        ("ack of a packet never sent", frame(0x02, 10**6, 0, 0, 10), PROTOCOL_VIOLATION),
        ("stream data", frame(0x0A, 0, 5, b"hello"), PROTOCOL_VIOLATION),
        ("a path challenge", frame(0x1A, b"12345678"), PROTOCOL_VIOLATION),
        ("a new connection id", new_cid(1), PROTOCOL_VIOLATION),
    ],
)
def test_frames_that_have_no_place_in_a_handshake(
    pki: PkiFixture, server: str, what: str, payload: bytes, ends: int
) -> None:
    attacker = Attacker(pki, server, establish=False)
    keys = attacker.quic._cryptos
    attacker.link.run(lambda: HANDSHAKE in keys and keys[HANDSHAKE].send.is_valid())
    attacker.follow()
    attacker.send(payload, epoch=HANDSHAKE)
    assert attacker.closed == ends, what
    assert attacker.link.server.established is None


@servers
def test_crumbs_of_tls_within_the_handshake(pki: PkiFixture, server: str) -> None:
    attacker = Attacker(pki, server, establish=False)
    keys = attacker.quic._cryptos
    attacker.link.run(lambda: HANDSHAKE in keys and keys[HANDSHAKE].send.is_valid())
    attacker.follow()
    before = resident()
    for number in range(1000):
        payload = many(lambda m: frame(0x06, 3 * m + 10, 1, b"x"), 100 * number)
        attacker.send(payload, epoch=HANDSHAKE)
        if attacker.closed is not None:
            break
    # Else the endpoint's handshake timeout ends it.
    assert attacker.closed in (None, CRYPTO_EXCEEDED)
    assert resident() - before < MEMORY
    assert attacker.link.server.established is None


@servers
@pytest.mark.parametrize("verb", ["write", "reset", "stop_sending", "open_stream"])
@pytest.mark.parametrize(
    "last",
    [frame(0x02, 0, 0, 0, 10), frame(0x1D, 0, 3) + b"bye"],
    ids=["broke the rules", "said goodbye"],
)
def test_streams_of_a_connection_that_ended_and_is_not_heard_of_yet(
    pki: PkiFixture, server: str, verb: str, last: bytes
) -> None:
    """Many connections are read in one wake-up: what one ends meets streams of the others."""
    attacker = Attacker(pki, server)
    engine = attacker.link.server.engine
    stream_id = attacker.link.client.engine.open_stream()
    assert stream_id is not None
    attacker.send(frame(0x0E, stream_id, 0, 1, b"x"))
    engine.receive(attacker.packet(last), CLIENT, attacker.now)
    acts: dict[str, Callable[[], object]] = {
        "write": lambda: engine.write(stream_id, b"late", end=False),
        "reset": lambda: engine.reset(stream_id, 1),
        "stop_sending": lambda: engine.stop_sending(stream_id, 1),
        "open_stream": engine.open_stream,
    }
    acts[verb]()
    attacker.turn()
    if last[0] == 0x1D:
        closed = attacker.link.server.closed
        assert closed is not None
        assert (closed.peer, closed.text) == (True, "bye")
    else:
        assert attacker.closed == FRAME_ENCODING
