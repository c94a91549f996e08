"""Bytes and ends of streams, on every pairing of engines."""

from __future__ import annotations

import hashlib

import pytest

from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, PAIRINGS, join
from tests.transport.engines.virtual_link import Side, Weather

pairings = pytest.mark.parametrize("client,server", PAIRINGS)
ours = pytest.mark.parametrize("client,server", OURS)
BLOB = hashlib.shake_256(b"trunkline").digest(1 << 20)
FOUL = Weather(loss=0.03, duplicate=0.03, overtake=0.1)


def _open(side: Side) -> int:
    stream_id = side.engine.open_stream()
    assert stream_id is not None
    return stream_id


@pairings
@pytest.mark.parametrize("weather", [Weather(), FOUL], ids=["fair", "foul"])
def test_large_data_comes_back_unchanged(
    pki: PkiFixture, client: str, server: str, weather: Weather
) -> None:
    link = join(pki, client, server, weather=weather).establish()
    link.server.echo = True
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == BLOB
    assert link.server.bytes_of(stream_id) == BLOB


@pairings
def test_the_server_opens_streams_too(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = _open(link.server)
    link.server.engine.write(stream_id, b"hello", end=False)
    link.run(lambda: link.client.bytes_of(stream_id) == b"hello")
    link.client.engine.write(stream_id, b"answer", end=True)
    link.run(lambda: stream_id in link.server.ended)
    assert link.server.bytes_of(stream_id) == b"answer"
    assert stream_id not in link.client.ended


@pairings
def test_a_finished_half_leaves_the_other_open(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, b"question", end=True)
    link.run(lambda: stream_id in link.server.ended)
    link.wait(1.0)
    link.server.engine.write(stream_id, b"late ", end=False)
    link.run(lambda: link.client.bytes_of(stream_id) == b"late ")
    link.server.engine.write(stream_id, b"answer", end=True)
    link.run(lambda: stream_id in link.client.ended)
    assert link.client.bytes_of(stream_id) == b"late answer"


@pairings
def test_an_empty_stream_ends(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, b"", end=True)
    link.run(lambda: stream_id in link.server.ended)
    assert link.server.bytes_of(stream_id) == b""


@pairings
@pytest.mark.parametrize("weather", [Weather(), FOUL], ids=["fair", "foul"])
def test_reset_and_stop_sending_carry_their_codes(
    pki: PkiFixture, client: str, server: str, weather: Weather
) -> None:
    link = join(pki, client, server, weather=weather).establish()
    for near, far in (link.sides, link.sides[::-1]):
        stream_id = _open(near)
        near.engine.write(stream_id, b"x" * 10_000, end=False)
        link.run(lambda far=far, s=stream_id: len(far.bytes_of(s)) == 10_000)  # type: ignore[misc]
        near.engine.reset(stream_id, 0x21)
        near.engine.stop_sending(stream_id, 0x22)
        link.run(
            lambda far=far, s=stream_id: s in far.resets and s in far.stops  # type: ignore[misc]
        )
        assert far.resets[stream_id] == 0x21
        assert far.stops[stream_id] == 0x22
        # STOP_SENDING is answered by a reset of that half, with the same code.
        link.run(lambda near=near, s=stream_id: s in near.resets)  # type: ignore[misc]
        assert near.resets[stream_id] == 0x22


@ours
def test_the_peer_resets_while_we_write(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    stream_id = _open(link.client)
    link.server.stalled.add(stream_id)
    link.client.engine.write(stream_id, b"x" * (3 << 20), end=False)
    link.run(lambda: len(link.server.bytes_of(stream_id)) > 0)
    link.server.engine.stop_sending(stream_id, 9)
    link.server.engine.release_credit(stream_id)
    link.run(lambda: link.server.resets.get(stream_id) == 9)
    assert link.client.stops == {stream_id: 9}
    assert link.client.engine.backlog(stream_id) == 0
    link.client.engine.write(stream_id, b"too late", end=True)  # harmless
    link.server.engine.write(stream_id, b"still here", end=True)
    link.run(lambda: stream_id in link.client.ended)
    assert link.client.bytes_of(stream_id) == b"still here"


@ours
def test_thousands_of_streams_at_once(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    link.server.echo = True
    streams = [_open(link.client) for _ in range(1500)]
    for stream_id in streams:
        link.client.engine.write(stream_id, b"%d" % stream_id, end=False)
    link.run(lambda: len(link.client.received) == len(streams), 60)
    assert all(link.client.bytes_of(s) == b"%d" % s for s in streams)
    for stream_id in streams:
        link.client.engine.write(stream_id, b"", end=True)
    link.run(lambda: link.client.ended == set(streams), 60)


@ours
def test_ten_thousand_streams_are_allowed(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    for side in link.sides:
        for _ in range(QuicSettings().max_streams):
            _open(side)
        assert side.engine.open_stream() is None


@pairings
def test_stream_credit_returns(pki: PkiFixture, client: str, server: str) -> None:
    limit = 16
    link = join(pki, client, server, server_settings=QuicSettings(max_streams=limit)).establish()
    link.server.echo = True
    for _ in range(5 * limit):
        opened: list[int] = []

        def able(opened: list[int] = opened) -> bool:
            stream_id = link.client.engine.open_stream()
            if stream_id is not None:
                opened.append(stream_id)
            return bool(opened)

        link.run(able)
        link.client.engine.write(opened[0], b"x", end=True)
        link.run(lambda s=opened[0]: s in link.client.ended)  # type: ignore[misc]
    assert len(link.client.ended) == 5 * limit


@ours
def test_finished_streams_are_forgotten(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    link.server.echo = True
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, BLOB[:1000], end=True)
    link.run(lambda: stream_id in link.client.ended)
    link.run(lambda: all(stream_id in side.finished for side in link.sides))
    for side in link.sides:
        side.engine.forget(stream_id)
        assert side.engine.backlog(stream_id) == 0


@ours
def test_everything_written_leaves_the_backlog(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server, weather=FOUL).establish()
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, BLOB, end=False)
    assert link.client.engine.backlog(stream_id) == len(BLOB)
    link.run(lambda: link.client.engine.backlog(stream_id) == 0, 60)
    link.run(lambda: len(link.server.bytes_of(stream_id)) == len(BLOB), 60)
    assert link.client.drained[stream_id] == len(BLOB)


@ours
def test_a_stream_is_not_finished_before_both_halves_are(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server).establish()
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, b"more to come", end=False)
    link.run(lambda: stream_id in link.server.received)
    link.server.engine.write(stream_id, b"done", end=True)
    link.run(lambda: stream_id in link.client.ended)
    link.wait(1.0)
    assert stream_id not in link.server.finished
    link.client.engine.write(stream_id, b"", end=True)
    link.run(lambda: all(stream_id in side.finished for side in link.sides))


@ours
def test_the_path_is_described(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server, weather=FOUL).establish()
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: stream_id in link.server.received)
    path = link.client.engine.path
    assert path.congestion_window > 0
    assert path.in_flight > 0
    link.run(lambda: stream_id in link.server.ended, 60)
    assert link.client.engine.path.lost > 0 or client == "aioquic"


@ours
def test_a_fin_that_is_lost_on_its_own_arrives(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server).establish()
    streams = []
    for cut in (0.001, 0.004, 0.006, 0.009, 0.02):
        stream_id = _open(link.client)
        streams.append(stream_id)
        link.client.engine.write(stream_id, BLOB[:30_000], end=False)
        link.wait(cut)
        link.cut = True
        link.client.engine.write(stream_id, b"", end=True)
        link.wait(0.05)
        link.cut = False
        link.wait(0.01)
    link.run(lambda: link.server.ended == set(streams))
