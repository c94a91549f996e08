"""Flow control: credit follows consumption, and a stalled reader stops its own writer only."""

from __future__ import annotations

import hashlib

import pytest

from actors.transport.quic.aioquic_engine import AioquicEngine
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, PAIRINGS, join
from tests.transport.engines.virtual_link import Link, Side, Weather

pairings = pytest.mark.parametrize("client,server", PAIRINGS)
#: With our own clients the same is in test_flow.
stock = pytest.mark.parametrize("client,server", [("stock", "native"), ("stock", "aioquic")])
WINDOW = 64 * 1024
SMALL = QuicSettings(stream_window=WINDOW, connection_window=8 * WINDOW)
BLOB = hashlib.shake_256(b"credit").digest(1 << 20)


def _open(side: Side) -> int:
    stream_id = side.engine.open_stream()
    assert stream_id is not None
    return stream_id


def _arrived(link: Link, stream_id: int) -> int:
    return len(link.server.bytes_of(stream_id))


@pairings
def test_a_stalled_reader_bounds_what_the_other_side_sends(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server, server_settings=SMALL).establish()
    stream_id = _open(link.client)
    link.server.stalled.add(stream_id)
    link.client.engine.write(stream_id, BLOB, end=True)
    link.wait(6.0)
    assert _arrived(link, stream_id) == WINDOW
    link.server.resume(stream_id)
    link.run(lambda: stream_id in link.server.ended)
    assert link.server.bytes_of(stream_id) == BLOB


@pairings
def test_credit_is_given_for_what_was_consumed_and_no_more(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server, server_settings=SMALL).establish()
    stream_id = _open(link.client)
    link.server.stalled.add(stream_id)
    link.client.engine.write(stream_id, BLOB, end=True)
    for step in range(1, 5):
        link.run(lambda step=step: _arrived(link, stream_id) == step * WINDOW)  # type: ignore[misc]
        link.wait(1.0)
        assert _arrived(link, stream_id) == step * WINDOW
        link.server.engine.consume(stream_id, WINDOW)


@stock
def test_siblings_of_a_stalled_stream_do_not_notice(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server, server_settings=SMALL).establish()
    stalled = _open(link.client)
    link.server.stalled.add(stalled)
    link.client.engine.write(stalled, BLOB, end=True)
    others = [_open(link.client) for _ in range(20)]
    for stream_id in others:
        link.client.engine.write(stream_id, BLOB[: 4 * WINDOW], end=True)
    link.run(lambda: link.server.ended == set(others))
    assert _arrived(link, stalled) == WINDOW
    assert all(link.server.bytes_of(s) == BLOB[: 4 * WINDOW] for s in others)


@stock
@pytest.mark.parametrize("seed", range(3))
def test_lost_credit_is_repeated(pki: PkiFixture, client: str, server: str, seed: int) -> None:
    tiny = QuicSettings(stream_window=16 * 1024, connection_window=64 * 1024)
    weather = Weather(loss=0.15, duplicate=0.05, overtake=0.1)
    link = join(pki, client, server, server_settings=tiny, weather=weather, seed=seed)
    link.establish(60)
    stream_id = _open(link.client)
    link.client.engine.write(stream_id, BLOB[: 1 << 18], end=True)
    link.run(lambda: stream_id in link.server.ended, 300)
    assert link.server.bytes_of(stream_id) == BLOB[: 1 << 18]


@pairings
def test_credit_lost_while_the_link_is_cut_arrives_later(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server, server_settings=SMALL).establish()
    stream_id = _open(link.client)
    link.server.stalled.add(stream_id)
    link.client.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: _arrived(link, stream_id) == WINDOW)
    link.wait(1.0)
    link.cut = True
    link.server.resume(stream_id)
    link.wait(2.0)
    link.cut = False
    link.run(lambda: stream_id in link.server.ended)
    assert link.server.bytes_of(stream_id) == BLOB


@pytest.mark.parametrize("server", ["native", "aioquic"])
def test_a_peer_that_ignores_its_limit_is_closed(pki: PkiFixture, server: str) -> None:
    link = join(pki, "aioquic", server, server_settings=SMALL).establish()
    stream_id = _open(link.client)
    link.server.stalled.add(stream_id)
    engine = link.client.engine
    assert isinstance(engine, AioquicEngine)
    engine._quic._streams[stream_id].max_stream_data_remote = 1 << 30
    engine.write(stream_id, BLOB, end=True)
    link.run(lambda: link.client.closed is not None)
    assert link.server.closed is not None
    assert link.client.closed is not None
    assert link.server.closed.code == link.client.closed.code == 3
    assert not link.server.closed.peer
    assert link.client.closed.peer


@pytest.mark.parametrize("client,server", OURS)
def test_a_connection_whose_window_is_used_up_still_sends(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = join(pki, client, server, client_settings=SMALL, server_settings=SMALL).establish()
    # More than the server's connection window is on its way to readers that do not read.
    for _ in range(12):
        stream_id = _open(link.client)
        link.server.stalled.add(stream_id)
        link.client.engine.write(stream_id, BLOB[:WINDOW], end=True)
    link.wait(2.0)
    # What the server sends meets one stalled reader, and two that read.
    stalled, first, second = (_open(link.server) for _ in range(3))
    link.client.stalled.add(stalled)
    for stream_id in (stalled, first, second):
        link.server.engine.write(stream_id, BLOB[: 4 * WINDOW], end=True)
    link.run(lambda: link.client.ended == {first, second}, 60)
    assert len(link.client.bytes_of(stalled)) == WINDOW
    link.client.resume(stalled)
    link.run(lambda: stalled in link.client.ended, 60)
    for stream_id in list(link.server.stalled):
        link.server.resume(stream_id)
    link.run(lambda: len(link.server.ended) == 12, 60)
