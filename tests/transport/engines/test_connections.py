"""Handshakes, ends of connections and changes of address, on every pairing of engines."""

from __future__ import annotations

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import (
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.engine import Address
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import (
    ALPN,
    OURS,
    PAIRINGS,
    identity,
    is_stock,
    join,
    maker,
    server_of,
)
from tests.transport.engines.stock import StockClient
from tests.transport.engines.virtual_link import CLIENT, SERVER, Link, Weather

pairings = pytest.mark.parametrize("client,server", PAIRINGS)
ours = pytest.mark.parametrize("client,server", OURS)
both = pytest.mark.parametrize("server", ["native", "aioquic"])
NEW_ADDRESS: Address = ("198.51.100.7", 5555)


@pairings
def test_both_sides_get_the_others_certificate(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    assert link.server.established is not None
    assert [*link.server.established.chain] == [*identity(pki, pki.consumer).chain]
    assert link.server.established.alpn == "orp/1"
    assert link.client.established is not None
    assert link.client.established.alpn == "orp/1"
    if not is_stock(client):
        assert [*link.client.established.chain] == [*identity(pki, pki.relay).chain]


@both
def test_an_absent_client_certificate_is_reported_as_absent(pki: PkiFixture, server: str) -> None:
    stock = StockClient(QuicSettings(), None, ALPN)
    link = Link(stock, server_of(server, QuicSettings(), identity(pki, pki.relay))).establish()
    assert link.server.established is not None
    assert [*link.server.established.chain] == []
    # What the endpoint does then: the alert certificate_required.
    link.server.engine.close(0x100 + 116, "absent", application=False)
    link.run(lambda: link.client.closed is not None)
    assert link.client.closed is not None
    assert (link.client.closed.code, link.client.closed.text) == (0x174, "absent")


@pairings
@pytest.mark.parametrize("policy", [PeerPolicy.SERVER_ONLY, PeerPolicy.NONE])
def test_a_client_is_asked_for_no_certificate_where_the_policy_says_so(
    pki: PkiFixture, client: str, server: str, policy: PeerPolicy
) -> None:
    link = join(pki, client, server, policy=policy).establish()
    assert link.server.established is not None
    assert [*link.server.established.chain] == []
    if not is_stock(client):
        assert link.client.established is not None
        assert [*link.client.established.chain] == [*identity(pki, pki.relay).chain]
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"anonymous", end=True)
    link.run(lambda: link.client.bytes_of(stream_id) == b"anonymous")


@pairings
def test_no_common_protocol(pki: PkiFixture, client: str, server: str) -> None:
    settings = QuicSettings()
    engine = maker(client)(
        settings, identity(pki, pki.consumer), ("h3",), client=True, server_name="localhost"
    )
    link = Link(engine, server_of(server, settings, identity(pki, pki.relay)))
    link.run(lambda: link.client.closed is not None and link.server.closed is not None)
    for side in link.sides:
        assert side.closed is not None
        assert side.closed.code == 0x100 + 120
        assert not side.closed.application
        assert side.established is None


@pairings
@pytest.mark.parametrize("seed", range(2))
def test_a_handshake_through_heavy_loss(
    pki: PkiFixture, client: str, server: str, seed: int
) -> None:
    weather = Weather(loss=0.3, duplicate=0.1, overtake=0.3)
    join(pki, client, server, weather=weather, seed=seed).establish(60)


@both
def test_no_more_than_three_times_what_came(pki: PkiFixture, server: str) -> None:
    link = join(pki, "aioquic", server)
    link.settle()
    received = link.longest
    link._step(link.now + 1)  # the first flight arrives; nothing of the client after it
    link.client.engine.close(0, "", application=True)
    sent = 0
    for _ in range(40):
        sent += sum(len(data) for data, _ in link.server.engine.transmit(link.now))
        timer = link.server.engine.next_timer()
        if timer is None:
            break
        link.now = max(link.now, timer)
        link.server.engine.handle_timer(link.now)
    assert 0 < sent <= 3 * received


@pairings
def test_retry(pki: PkiFixture, client: str, server: str) -> None:
    settings = QuicSettings()
    engine = maker(client)(
        settings, identity(pki, pki.consumer), ALPN, client=True, server_name="localhost"
    )
    retry_cid = b"retrycid"

    def after_retry(first: bytes) -> object:
        header = pull_quic_header(Buffer(data=first), host_cid_length=8)
        retry = encode_quic_retry(
            version=1,
            source_cid=retry_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=b"token",
        )
        forged = retry[:-1] + bytes([retry[-1] ^ 1])
        engine.receive(forged, SERVER, 1000.0)
        assert engine.transmit(1000.0) == []
        engine.receive(retry, SERVER, 1000.0)
        return maker(server)(
            settings,
            identity(pki, pki.relay),
            ALPN,
            client=False,
            original_destination_cid=header.destination_cid,
            retry_source_cid=retry_cid,
        )

    link = Link(engine, after_retry, carry_first=False)  # type: ignore[arg-type]  # an Engine
    second = engine.transmit(1000.0)[0][0]
    header = pull_quic_header(Buffer(data=second), host_cid_length=8)
    assert (header.destination_cid, header.token) == (retry_cid, b"token")
    link._send(link.client, second, SERVER)
    link.establish()


@ours
def test_version_negotiation_without_a_common_version(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server)
    first = link._flights[0].data
    header = pull_quic_header(Buffer(data=first), host_cid_length=8)
    link._flights.clear()
    answer = encode_quic_version_negotiation(
        source_cid=header.destination_cid,
        destination_cid=header.source_cid,
        supported_versions=[0x1A2A3A4A],
    )
    link.inject(link.client, answer, SERVER)
    link.client.take()
    assert link.client.closed is not None
    assert link.client.closed.code == 1
    assert link.client.engine.terminated


@pairings
@pytest.mark.parametrize("application", [True, False])
@pytest.mark.parametrize("by", ["client", "server"])
def test_close_carries_code_and_text(
    pki: PkiFixture, client: str, server: str, application: bool, by: str
) -> None:
    link = join(pki, client, server).establish()
    near, far = link.sides if by == "client" else link.sides[::-1]
    near.engine.close(0x0C, "going away", application=application)
    link.run(lambda: far.closed is not None and near.closed is not None)
    assert far.closed is not None
    assert (far.closed.code, far.closed.text) == (0x0C, "going away")
    assert far.closed.application is application
    assert far.closed.peer
    assert not far.closed.idle
    link.run(lambda: (is_stock(client) or near.engine.terminated) and link.sides is not None)
    if not is_stock(client):
        link.run(lambda: near.engine.terminated and far.engine.terminated)
        assert near.closed is not None
        assert (near.closed.code, near.closed.peer, near.closed.idle) == (0x0C, False, False)
        assert near.after_close == far.after_close == 0


@ours
def test_data_before_a_close_is_delivered(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"last words", end=True)
    link.settle()
    link.client.engine.close(0, "", application=True)
    link.run(lambda: link.server.closed is not None)
    assert link.server.bytes_of(stream_id) == b"last words"


@ours
def test_after_the_end_every_call_is_harmless(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"x", end=False)
    link.run(lambda: link.server.bytes_of(stream_id) == b"x")
    link.client.engine.close(1, "", application=True)
    link.run(lambda: all(side.engine.terminated for side in link.sides))
    for side in link.sides:
        engine = side.engine
        engine.write(stream_id, b"y", end=True)
        engine.reset(stream_id, 1)
        engine.stop_sending(stream_id, 1)
        engine.consume(stream_id, 1)
        engine.release_credit(stream_id)
        engine.forget(stream_id)
        engine.ping()
        engine.close(2, "", application=True)
        engine.receive(b"\x40" * 50, CLIENT, link.now)
        assert engine.transmit(link.now) == []
        assert engine.next_timer() is None
        assert side.after_close == 0


@pairings
def test_silence_ends_in_an_idle_timeout(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    link.wait(1.0)
    link.cut = True
    link.run(lambda: all(side.closed is not None for side in link.sides), 30)
    for side in link.sides:
        assert side.closed is not None
        assert side.closed.idle
    assert link.server.engine.terminated


@pairings
def test_pings_keep_an_idle_connection(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    for _ in range(10):
        link.wait(3.0)
        link.server.engine.ping()
    assert link.client.closed is None
    assert link.server.closed is None


@pairings
def test_a_new_address_of_the_client_keeps_the_connection(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server).establish()
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"before ", end=False)
    link.run(lambda: link.client.bytes_of(stream_id) == b"before ")
    link.move_client(NEW_ADDRESS)
    link.client.engine.write(stream_id, b"after", end=True)
    link.run(lambda: stream_id in link.client.ended)
    assert link.client.bytes_of(stream_id) == b"before after"
    link.run(lambda: link.server.engine.peer_address == NEW_ADDRESS)
    assert link.server.closed is None


@pairings
@pytest.mark.parametrize("lost", [0.06, 0.5])
def test_a_new_address_whose_proof_is_lost(
    pki: PkiFixture, client: str, server: str, lost: float
) -> None:
    """Nothing of the server's arrives for a while, its first PATH_CHALLENGE included."""
    link = join(pki, client, server).establish()
    link.wait(0.2)
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    blob = bytes(range(256)) * 4096
    link.client.engine.write(stream_id, blob, end=True)
    link.run(lambda: len(link.client.bytes_of(stream_id)) > len(blob) // 4)
    link.move_client(NEW_ADDRESS)
    until = link.now + lost
    link.on_send = lambda side, _: setattr(link, "cut", side is link.server and link.now < until)
    link.run(lambda: stream_id in link.client.ended)
    assert link.client.bytes_of(stream_id) == blob
    assert link.server.engine.peer_address == NEW_ADDRESS


@pairings
def test_noise_from_other_addresses_moves_nobody(pki: PkiFixture, client: str, server: str) -> None:
    """Whoever reads the network knows our ids; what does not open is no sign of a new address."""
    link = join(pki, client, server).establish()
    link.wait(0.2)
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    sent = b""
    for number in range(8):
        link.wait(2.0)
        noise = b"\x41" + link.server.engine.source_cid + bytes([number]) * 60
        link.inject(link.server, noise, (f"203.0.113.{number}", 1))
        link.wait(1.5)
        link.client.engine.write(stream_id, b"x", end=False)
        sent += b"x"
        link.run(lambda sent=sent: link.client.bytes_of(stream_id) == sent)  # type: ignore[misc]
        assert link.server.engine.peer_address == CLIENT
    assert link.server.closed is None


@pairings
def test_back_to_the_first_address(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    sent = b""
    for address in (NEW_ADDRESS, CLIENT, NEW_ADDRESS):
        link.wait(2.0)
        link.move_client(address)
        link.client.engine.write(stream_id, b"x", end=False)
        sent += b"x"
        link.run(lambda sent=sent: link.client.bytes_of(stream_id) == sent)  # type: ignore[misc]
        link.run(lambda to=address: link.server.engine.peer_address == to)  # type: ignore[misc]


@both
def test_garbage_changes_nothing(pki: PkiFixture, server: str) -> None:
    link = join(pki, "aioquic", server).establish()
    link.server.echo = True
    other: Address = ("203.0.113.1", 1)
    for size in (1, 2, 20, 21, 100, 1200, 1500):
        for first in (0x00, 0x40, 0x7F, 0x80, 0xC0, 0xE0, 0xF0, 0xFF):
            data = bytes([first]) + b"\x00\x00\x00\x01\x08" + bytes(size)
            link.inject(link.server, data[:size], other)
            link.inject(link.client, data[:size], SERVER)
            own = bytes([first]) + link.server.engine.source_cid + bytes(size)
            link.inject(link.server, own, other)
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"still here", end=True)
    link.run(lambda: stream_id in link.client.ended)
    assert link.server.engine.peer_address == CLIENT


@ours
def test_batches_are_as_good_as_single_datagrams(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    blob = bytes(range(256)) * 64
    link.client.engine.write(stream_id, blob, end=True)
    datagrams = [data for data, _ in link.client.engine.transmit(link.now)]
    assert len(datagrams) > 2
    sizes = {len(data) for data in datagrams[:3]}
    if len(sizes) == 1:
        link.server.engine.receive_segments(b"".join(datagrams[:3]), sizes.pop(), CLIENT, link.now)
        datagrams = datagrams[3:]
    link.server.engine.receive_many(datagrams, CLIENT, link.now)
    link.run(lambda: stream_id in link.server.ended)
    assert link.server.bytes_of(stream_id) == blob
