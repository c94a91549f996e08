"""DATAGRAM frames (RFC 9221) on every pairing of engines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from actors.transport.quic.native_engine import NativeEngine, datagram_frames
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, PAIRINGS, is_stock, join
from tests.transport.engines.stock import StockClient
from tests.transport.engines.virtual_link import CLIENT, Link, Side, Weather

SETTINGS = QuicSettings(max_datagram_frame=65_535)
FOUL = Weather(loss=0.05, duplicate=0.05, overtake=0.1)

pairings = pytest.mark.parametrize("client,server", PAIRINGS)
ours = pytest.mark.parametrize("client,server", OURS)


def established(
    pki: PkiFixture,
    client: str,
    server: str,
    settings: QuicSettings = SETTINGS,
    **arguments: object,
) -> Link:
    link = join(
        pki, client, server, client_settings=settings, server_settings=settings, **arguments,  # type: ignore[arg-type]
    )  # fmt: skip
    link.establish()
    # A native server looks for the size of packets first.
    link.run(lambda: all(side.engine.datagram_room for side in link.sides))
    return link


def came(side: Side) -> list[bytes]:
    return [payload for together in side.datagrams for payload in together]


@pairings
def test_payloads_of_every_size_in_both_directions(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = established(pki, client, server)
    link.wait(1.0)  # larger packets are found to pass
    for near, far in (link.sides, link.sides[::-1]):
        largest = near.engine.largest_datagram
        assert largest >= 1200
        sizes = [0, 1, 63, 64, 1000, largest - 1, largest]
        sent = [bytes([size % 256]) * size for size in sizes]
        for payload in sent:
            near.engine.send_datagram(payload)
            link.run(lambda far=far, payload=payload: payload in came(far))  # type: ignore[misc]
        assert came(far) == sent


@pairings
def test_a_peer_that_takes_none_is_sent_none(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server, server_settings=SETTINGS).establish()
    assert link.server.engine.largest_datagram == 0


@pairings
def test_an_unasked_datagram_ends_the_connection(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server, client_settings=SETTINGS).establish()
    if is_stock(client):
        link.client.engine.send_datagram(b"x")
        link.run(lambda: link.server.closed is not None)
        assert link.server.closed is not None
        assert link.server.closed.code == 0x0A
    else:
        assert link.client.engine.largest_datagram == 0


@ours
def test_the_limit_of_the_peer_counts(pki: PkiFixture, client: str, server: str) -> None:
    small = replace(SETTINGS, max_datagram_frame=500)
    link = join(pki, client, server, client_settings=SETTINGS, server_settings=small).establish()
    assert link.client.engine.largest_datagram == 500 - 3
    link.client.engine.send_datagram(bytes(497))
    link.run(lambda: came(link.server) == [bytes(497)])


@pairings
@pytest.mark.parametrize("seed", range(2))
def test_in_foul_weather_some_are_lost_none_repeated_and_streams_go_on(
    pki: PkiFixture, client: str, server: str, seed: int
) -> None:
    link = established(pki, client, server, weather=FOUL, seed=seed)
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    payload = bytes(range(256)) * 400
    link.client.engine.write(stream_id, payload, end=True)
    sent: list[list[bytes]] = [[], []]
    for number in range(300):
        for side, mine in zip(link.sides, sent, strict=True):
            engine = side.engine
            if engine.datagram_room and not is_stock(engine.name):
                mine.append(number.to_bytes(4, "big") * (engine.largest_datagram // 4))
                engine.send_datagram(mine[-1])
        link.wait(0.01)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == payload
    for mine, far in zip(sent, link.sides[::-1], strict=True):
        arrived = Counter(came(far))
        assert set(arrived) <= set(mine)
        assert set(arrived.values()) <= {1}
        assert len(arrived) >= 0.7 * len(mine)
    assert all(side.closed is None for side in link.sides)


@ours
def test_what_comes_together_is_handed_on_together(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = established(pki, client, server)
    for number in range(10):
        link.client.engine.send_datagram(bytes([number]) * 1000)
    packets: list[bytes] = []
    while len(packets) < 10:  # some wait for the pacer
        packets += [data for data, _ in link.client.engine.transmit(link.now)]
        link.now += 0.001
    link.server.engine.receive_many(packets, CLIENT, link.now)
    link.server.take()
    assert link.server.datagrams == [[bytes([number]) * 1000 for number in range(10)]]


@ours
def test_what_the_window_takes_leaves_at_once_and_no_more_is_asked_for(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = established(pki, client, server)
    engine, sent = link.server.engine, 0
    link.cut = True
    while engine.datagram_room > 0:
        engine.send_datagram(bytes(1000))
        sent += len(engine.transmit(link.now))
        link.now += 0.001
        assert sent < 1000
    assert sent >= 5
    assert engine.path.in_flight <= engine.path.congestion_window + 1500


def test_a_stalled_stream_does_not_make_room_for_a_flood(
    pki: PkiFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a hold keeps events in the core, datagrams without credit are lost, not kept."""
    window = 16 * 1024
    monkeypatch.setattr(datagram_frames, "HELD_BYTES", window)
    server = replace(SETTINGS, stream_window=window, connection_window=window)
    link = join(pki, "stock", "native", client_settings=SETTINGS, server_settings=server)
    link.establish()
    near, far = link.client.engine, link.server.engine
    assert isinstance(near, StockClient)
    assert isinstance(far, NativeEngine)
    link.run(lambda: bool(far.datagram_room))
    streams = [near.open_stream() for _ in range(3)]
    for stream_id in streams:
        assert stream_id is not None
        link.server.stalled.add(stream_id)
        near.write(stream_id, bytes(window), end=True)
    link.run(lambda: far.held)
    near.quic._loss._cc.congestion_window = 1 << 30  # it does not care
    budget, sent = 3 * window, 0
    while sent < 3 * budget:
        near.send_datagram(bytes(1100))
        sent += 1100
        link.wait(0.005)
    for stream_id in list(link.server.stalled):
        link.server.resume(stream_id)
    link.run(lambda: len(link.server.ended) == 3, 60)
    assert 0 < sum(map(len, came(link.server))) <= budget
    near.send_datagram(b"after")
    link.run(lambda: b"after" in came(link.server), 60)


def test_a_path_that_shrinks_holds_nobody_up(pki: PkiFixture) -> None:
    """A frame larger than what packets carry now would block those behind it for ever."""
    weather = Weather()
    link = established(pki, "aioquic", "aioquic", weather=weather)
    link.wait(2.0)
    engine = link.client.engine
    large = engine.largest_datagram
    assert large > 1300
    weather.mtu = 1300
    deadline = link.now + 60
    while engine.largest_datagram == large:
        if engine.datagram_room:
            engine.send_datagram(bytes(large))
        link.wait(0.05)
        assert link.now < deadline
    link.run(lambda: bool(engine.datagram_room), 60)
    engine.send_datagram(b"small")
    link.run(lambda: b"small" in came(link.server), 60)
    assert link.client.closed is None
