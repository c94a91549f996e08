"""The first packets of a client, which go to an id that it made up, and what may become of them.

Also what a client without a connection id of its own meets later, where having none matters; the
other suites have it among their pairings.
"""

from __future__ import annotations

import os

import pytest
from aioquic.quic.crypto import CryptoPair

from actors.transport.quic.admission import Admission
from actors.transport.quic.engine import Address, Engine
from actors.transport.quic.native_engine import engine as native_engine
from actors.transport.quic.settings import QuicSettings
from actors.transport.quic.stateless_reset import ResetKey
from tests.conftest import PkiFixture
from tests.transport.engines.attacker import frame, resident, varint
from tests.transport.engines.rig import (
    ALPN,
    BARE,
    PAIRINGS,
    SERVERS,
    first_destination_cid,
    identity,
    join,
    maker,
    server_of,
)
from tests.transport.engines.stock import StockClient
from tests.transport.engines.virtual_link import CLIENT, SERVER, Link, Side, Weather

pairings = pytest.mark.parametrize("client,server", PAIRINGS)
bare = pytest.mark.parametrize("client,server", BARE)
servers = pytest.mark.parametrize("server", SERVERS)
to_native = pytest.mark.parametrize("client,server", [p for p in PAIRINGS if p[1] == "native"])
ELSEWHERE: Address = ("198.51.100.7", 5555)
#: So many make a ClientHello of three packets.
MANY_PROTOCOLS = (*ALPN, *(f"protocol-{number:0>40}" for number in range(60)))


def initial(chosen: bytes, source: bytes, payload: bytes, number: int = 0) -> bytes:
    """An Initial packet that anybody can make who knows the id that the client chose."""
    pair = CryptoPair()
    pair.setup_initial(cid=chosen, is_client=True, version=1)
    payload = payload.ljust(1170 - len(chosen) - len(source), b"\0")
    length = varint((len(payload) + 4 + 16) | 1 << 14)[-2:]
    header = b"".join(
        (
            b"\xc3\0\0\0\1",
            bytes([len(chosen)]) + chosen,
            bytes([len(source)]) + source,
            b"\0",
            bytes([length[0] | 0x40, length[1]]),
            number.to_bytes(4, "big"),
        )
    )
    return pair.encrypt_packet(header, payload, number)


def dial(
    pki: PkiFixture, client: str, alpn: tuple[str, ...] = ALPN, first_cid_length: int = 17
) -> Engine:
    """A client that has not connected yet."""
    return maker(client, first_cid_length)(
        QuicSettings(),
        identity(pki, pki.consumer),
        alpn,
        client=True,
        server_name="localhost",
    )


def serves(link: Link) -> None:
    """A stream is echoed."""
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"hello", end=True)
    link.run(lambda: stream_id in link.client.ended)
    assert link.client.bytes_of(stream_id) == b"hello"


def held_back(
    pki: PkiFixture, client: str, server: str, alpn: tuple[str, ...] = ALPN
) -> tuple[Link, list[bytes]]:
    """A link, and the client's first flight, which has not left."""
    flight: list[bytes] = []
    engine = dial(pki, client, alpn)
    make = server_of(server, QuicSettings(), identity(pki, pki.relay), ALPN)
    transmit = engine.transmit

    def first_transmit(now: float) -> list[tuple[bytes, Address]]:
        result = transmit(now)
        flight.extend(data for data, _ in result)
        return result

    engine.transmit = first_transmit  # type: ignore[method-assign]
    link = Link(engine, make, carry_first=False)
    engine.transmit = transmit  # type: ignore[method-assign]
    return link, flight


def arrives(link: Link, *datagrams: bytes, source: Address = CLIENT) -> None:
    """The server gets these."""
    for data in datagrams:
        link.server.datagrams_in += 1
        link.inject(link.server, data, source)


# Ids.


@servers
@pytest.mark.parametrize("client", ["native-bare", "stock-bare"])
@pytest.mark.parametrize("length", range(8, 21))
def test_first_ids_of_any_length(pki: PkiFixture, client: str, server: str, length: int) -> None:
    engine = dial(pki, client, first_cid_length=length)
    link = Link(engine, server_of(server, QuicSettings(), identity(pki, pki.relay)))
    assert len(first_destination_cid(link.on_the_way[0])) == length
    serves(link.establish())


@bare
def test_nothing_is_ever_sent_to_an_id(pki: PkiFixture, client: str, server: str) -> None:
    """Long headers say so; a short header with an id would not open, and the link would stall."""
    link = join(pki, client, server)
    lengths: set[int] = set()

    def look(side: Side, data: bytes) -> None:
        if side is link.server and data[0] & 0x80:
            lengths.add(data[5])

    link.on_send = look
    serves(link.establish())
    assert lengths == {0}


@servers
def test_an_id_from_a_client_without_one_is_refused(pki: PkiFixture, server: str) -> None:
    """RFC 9000 section 19.15: who is sent to without an id has none to give."""
    link = join(pki, "stock-bare", server).establish()
    link.wait(0.2)
    stock = link.client.engine
    assert isinstance(stock, StockClient)
    quic = stock.quic
    number = quic._packet_number + 1000
    payload = frame(0x18, 1, 0, b"\x08" + b"12345678", b"t" * 16)
    header = bytes([0x43]) + quic._peer_cid.cid + number.to_bytes(4, "big")
    pair = quic._cryptos[next(key for key in quic._cryptos if key.name == "ONE_RTT")]
    quic._packet_number = number + 1
    link.inject(link.server, pair.encrypt_packet(header, payload, number), CLIENT)
    stream_id = stock.open_stream()
    assert stream_id is not None
    stock.write(stream_id, bytes(1 << 20), end=False)
    link.run(lambda: link.server.closed is not None, 10)
    assert link.server.closed is not None
    assert link.server.closed.code == 0x0A
    assert not link.server.closed.peer


# What a first flight may look like.


@pairings
@pytest.mark.parametrize("order", ["straight", "backwards", "twice", "one datagram lost"])
def test_a_hello_of_several_packets(pki: PkiFixture, client: str, server: str, order: str) -> None:
    link, flight = held_back(pki, client, server, MANY_PROTOCOLS)
    assert len(flight) > 2
    arranged = {
        "straight": flight,
        "backwards": flight[::-1],
        "twice": flight + flight[::-1],
        "one datagram lost": flight[:1] + flight[2:],
    }[order]
    arrives(link, *arranged)
    serves(link.establish())


@pairings
def test_first_packets_that_come_after_the_answer(
    pki: PkiFixture, client: str, server: str
) -> None:
    link, flight = held_back(pki, client, server)
    arrives(link, *flight)
    link.run(lambda: link.client.datagrams_in > 0)
    arrives(link, *flight)
    link.establish()
    arrives(link, *flight)
    serves(link)


@pairings
def test_the_half_of_a_hello_that_comes_from_a_new_address(
    pki: PkiFixture, client: str, server: str
) -> None:
    """A NAT that rebinds between two packets of the first flight: the client tries again."""
    link, flight = held_back(pki, client, server, MANY_PROTOCOLS)
    arrives(link, *flight[:1])
    link.move_client(ELSEWHERE)
    arrives(link, *flight[1:], source=ELSEWHERE)
    link.client_addresses.add(CLIENT)
    serves(link.establish())


@servers
def test_a_packet_after_the_first_in_one_datagram(pki: PkiFixture, server: str) -> None:
    """Two Initials side by side, as a client may send them when the first is not full."""
    link, flight = held_back(pki, "stock-bare", server, MANY_PROTOCOLS)
    arrives(link, flight[0] + flight[1], *flight[2:])
    serves(link.establish())


@pairings
def test_a_ping_that_overtakes_the_hello(pki: PkiFixture, client: str, server: str) -> None:
    """Of two probes the first was lost: the second has no CRYPTO, and is no reason to refuse."""
    link, flight = held_back(pki, client, server)
    chosen = first_destination_cid(flight[0])
    source = link.client.engine.source_cid
    arrives(link, initial(chosen, source, b"\x01", number=5000))
    assert link.server.engine.transmit(link.now) == []
    assert not link.server.take()
    arrives(link, *flight)
    serves(link.establish())


# Who is not the client.


def _garbage(chosen: bytes, source: bytes) -> bytes:
    """The header of an Initial, and noise."""
    good = initial(chosen, source, frame(0x06, 0, 1, b"\x01"))
    return good[:100] + os.urandom(len(good) - 100)


@pairings
@pytest.mark.parametrize("source", [b"", b"somebody", b"a" * 20])
def test_noise_under_the_id_of_the_client(
    pki: PkiFixture, client: str, server: str, source: bytes
) -> None:
    """It comes first, and claims another id for the client: nobody is answered, nothing is kept."""
    link, flight = held_back(pki, client, server)
    chosen = first_destination_cid(flight[0])
    for _ in range(100):
        arrives(link, _garbage(chosen, source), source=ELSEWHERE)
        assert link.server.engine.transmit(link.now) == []
    assert link.server.engine.path.in_flight == 0
    arrives(link, *flight)
    serves(link.establish())


@to_native
def test_packets_that_open_and_name_another_source(
    pki: PkiFixture, client: str, server: str
) -> None:
    """RFC 9000 section 7.2: the client's id is that of its first packet; others are discarded."""
    link, flight = held_back(pki, client, server)
    chosen = first_destination_cid(flight[0])
    arrives(link, *flight)
    for number, source in enumerate((b"somebody", b"", b"a" * 20)):
        if source != link.client.engine.source_cid:
            forged = initial(chosen, source, frame(0x06, 0, 1, b"\x63"), 100 + number)
            arrives(link, forged, source=ELSEWHERE)
    serves(link.establish())


@to_native
def test_packets_for_somebody_else(pki: PkiFixture, client: str, server: str) -> None:
    """Under ids of other connections, or none, coalesced behind a good packet and alone."""
    link, flight = held_back(pki, client, server)
    source = link.client.engine.source_cid
    for other in (b"", b"12345678", os.urandom(20), link.server.engine.source_cid):
        forged = initial(other, source, frame(0x06, 0, 1, b"\x01"))
        arrives(link, forged, source=ELSEWHERE)
        assert link.server.engine.transmit(link.now) == []
    arrives(link, flight[0] + initial(b"12345678", source, b"\x01"), *flight[1:])
    serves(link.establish())


@pytest.mark.parametrize("server, most", [("native", 32 * 1024), ("aioquic", 128 * 1024)])
def test_what_noise_costs_before_anything_is_trusted(
    pki: PkiFixture, server: str, most: int
) -> None:
    """Bytes per handshake in progress, of which an endpoint has a bounded number."""
    who, kept = identity(pki, pki.relay), []
    before = 0
    for number in range(1100):
        if number == 100:
            before = resident()
        chosen = os.urandom(18)
        engine = maker(server)(
            QuicSettings(), who, ALPN, client=False, original_destination_cid=chosen
        )
        engine.receive(_garbage(chosen, b""), ELSEWHERE, 1.0)
        assert engine.transmit(1.0) == []
        kept.append(engine)
    assert (resident() - before) / 1000 < most


# Later.


@bare
def test_key_updates_by_either_side(
    monkeypatch: pytest.MonkeyPatch, pki: PkiFixture, client: str, server: str
) -> None:
    monkeypatch.setattr(native_engine, "KEY_UPDATE_PACKETS", 60)
    settings = QuicSettings(stream_window=16 * 1024)
    weather = Weather(loss=0.02, overtake=0.02)
    link = join(
        pki, client, server, client_settings=settings, server_settings=settings, weather=weather
    ).establish()
    link.wait(0.2)
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    blob = os.urandom(1 << 20)
    for start in range(0, len(blob), len(blob) // 8):
        if isinstance(link.client.engine, StockClient):
            link.client.engine.quic.request_key_update()
        piece = blob[start : start + len(blob) // 8]
        link.client.engine.write(stream_id, piece, end=start + len(piece) == len(blob))
        link.wait(0.2)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == blob


@servers
def test_ids_of_the_server_change_during_a_transfer(pki: PkiFixture, server: str) -> None:
    """As often as a client may want; each change retires the id before, and brings a new one."""
    weather = Weather(loss=0.01, overtake=0.02)
    link = join(pki, "stock-bare", server, weather=weather).establish()
    stock = link.client.engine
    assert isinstance(stock, StockClient)
    first = stock.quic._peer_cid.cid
    used = {first}
    sent = 0

    def change(side: Side, data: bytes) -> None:
        nonlocal sent
        sent += side is link.client
        if side is link.client and sent % 50 == 0:
            stock.quic.change_connection_id()
            used.add(stock.quic._peer_cid.cid)

    link.on_send = change
    link.server.echo = True
    stream_id = stock.open_stream()
    assert stream_id is not None
    blob = os.urandom(2 << 20)
    stock.write(stream_id, blob, end=True)
    link.run(lambda: stream_id in link.client.ended, 240)
    assert link.client.bytes_of(stream_id) == blob
    assert len(used) > 10
    link.wait(1.0)
    # What the endpoint routes by: every id that was used was announced, and is gone again.
    known = {first, *link.server.issued}
    assert used <= known
    assert len(link.server.retired) >= len(used) - 1
    assert len(known - set(link.server.retired)) <= 8


@bare
def test_an_address_changes_in_a_transfer(pki: PkiFixture, client: str, server: str) -> None:
    """NAT rebinding: there is nothing but our id that tells whose packets these are."""
    weather = Weather(loss=0.01, overtake=0.02)
    link = join(pki, client, server, weather=weather).establish()
    link.wait(0.2)
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    blob = os.urandom(1 << 20)
    link.client.engine.write(stream_id, blob, end=True)
    for number, part in enumerate((4, 2, 1)):
        link.run(lambda p=part: len(link.client.bytes_of(stream_id)) > len(blob) // (2 * p), 60)  # type: ignore[misc]
        address: Address = ("198.51.100.7", 6000 + number) if number else ELSEWHERE
        link.move_client(address)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == blob
    assert link.server.engine.peer_address == ("198.51.100.7", 6002)
    assert link.server.closed is None


@servers
def test_a_server_that_forgot_tells_the_client(pki: PkiFixture, server: str) -> None:
    """The stateless reset of its successor goes to an address, and opens by its token."""
    key = ResetKey(b"k" * 32)
    engine = dial(pki, "native-bare")

    def make(first: bytes) -> Engine:
        return maker(server)(
            QuicSettings(),
            identity(pki, pki.relay),
            ALPN,
            client=False,
            original_destination_cid=first_destination_cid(first),
            reset_token=key.token,
        )

    link = Link(engine, make).establish()
    link.wait(0.2)
    successor = Admission(QuicSettings(), counters := {"drop_unknown_cid": 0}, key)
    counters["stateless_reset"] = 0
    successor.accepting = True
    engine.ping()
    datagram = engine.transmit(link.now)[0][0]
    reset = successor.judge(datagram + bytes(20), CLIENT, link.now)
    assert isinstance(reset, bytes)
    link.inject(link.client, reset, SERVER)
    link.client.take()
    assert link.client.closed is not None
    assert link.client.closed.text == "stateless reset"


@bare
def test_a_refusal_is_heard_before_the_handshake_is_over(
    pki: PkiFixture, client: str, server: str
) -> None:
    link, flight = held_back(pki, client, server)
    arrives(link, *flight)
    link.settle()
    link.server.engine.close(0x100 + 49, "access denied", application=False)
    link.run(lambda: link.client.closed is not None, 5)
    assert link.client.closed is not None
    assert (link.client.closed.code, link.client.closed.text) == (0x131, "access denied")
    link.run(lambda: link.server.engine.terminated, 10)
