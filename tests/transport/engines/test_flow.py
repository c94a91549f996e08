"""Credit follows consumption: a stalled reader stops its own writer and nobody else."""

from __future__ import annotations

import hashlib

import pytest

from actors.transport.quic.native_engine import engine as native_engine
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import join
from tests.transport.engines.virtual_link import Link, Weather

PAIRINGS = [(c, s) for c in ("native", "aioquic") for s in ("native", "aioquic")]
WINDOW = 64 * 1024
SMALL = QuicSettings(stream_window=WINDOW, connection_window=1 << 20)
BLOB = hashlib.shake_256(b"flow").digest(400_000)
FOUL = Weather(0.03, 0.05, 0.2)


def small(
    pki: PkiFixture, client: str, server: str, weather: Weather | None = None, seed: int = 1
) -> Link:
    return join(
        pki,
        client,
        server,
        client_settings=SMALL,
        server_settings=SMALL,
        weather=weather,
        seed=seed,
    ).establish()


def opened(link: Link) -> int:
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    return stream_id


@pytest.mark.parametrize("client,server", PAIRINGS)
def test_a_stalled_stream_is_bounded_by_its_window_and_its_siblings_go_on(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = small(pki, client, server)
    stalled = opened(link)
    link.server.stalled.add(stalled)
    link.client.engine.write(stalled, BLOB, end=True)
    link.wait(2.0)
    assert len(link.server.bytes_of(stalled)) == WINDOW
    siblings = [opened(link) for _ in range(20)]
    for sibling in siblings:
        link.client.engine.write(sibling, BLOB, end=True)
    link.run(lambda: set(siblings) <= link.server.ended, 60)
    assert all(link.server.bytes_of(sibling) == BLOB for sibling in siblings)
    assert len(link.server.bytes_of(stalled)) == WINDOW
    link.server.resume(stalled)
    link.run(lambda: stalled in link.server.ended, 60)
    assert link.server.bytes_of(stalled) == BLOB


@pytest.mark.parametrize("client,server", PAIRINGS)
# 11: a lost probe among losses of small packets.
@pytest.mark.parametrize(
    "seed", [11, *(pytest.param(n, marks=pytest.mark.soak) for n in (0, 1, 2, 3))]
)
def test_no_credit_is_lost_in_foul_weather(
    pki: PkiFixture, client: str, server: str, seed: int
) -> None:
    """Every announcement of a limit may be lost, doubled or overtaken."""
    link = small(pki, client, server, FOUL, seed)
    link.server.echo = True
    streams = [opened(link) for _ in range(5)]
    for stream_id in streams:
        link.client.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: set(streams) <= link.client.ended, 300)
    for stream_id in streams:
        assert link.client.bytes_of(stream_id) == BLOB
        assert link.server.bytes_of(stream_id) == BLOB


@pytest.mark.parametrize("client,server", PAIRINGS)
def test_the_connection_window_bounds_all_streams_together(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = small(pki, client, server)
    streams = [opened(link) for _ in range(40)]
    link.server.stalled.update(streams)
    for stream_id in streams:
        link.client.engine.write(stream_id, BLOB, end=True)
    link.wait(3.0)
    held = sum(len(link.server.bytes_of(stream_id)) for stream_id in streams)
    assert SMALL.connection_window <= held <= 2 * SMALL.connection_window
    for stream_id in streams:
        link.server.resume(stream_id)
    link.run(lambda: set(streams) <= link.server.ended, 120)
    assert all(link.server.bytes_of(stream_id) == BLOB for stream_id in streams)


@pytest.mark.parametrize("client,server", PAIRINGS)
def test_streams_given_up_half_way_give_their_credit_back(
    pki: PkiFixture, client: str, server: str
) -> None:
    link = small(pki, client, server)
    for number in range(60):
        stream_id = opened(link)
        link.client.engine.write(stream_id, BLOB, end=False)
        link.wait(0.05)
        if number % 2:
            link.client.engine.reset(stream_id, 7)
            link.run(lambda stream_id=stream_id: stream_id in link.server.resets)  # type: ignore[misc]
        else:
            link.server.engine.stop_sending(stream_id, 8)
            link.server.engine.release_credit(stream_id)
            link.run(lambda stream_id=stream_id: stream_id in link.client.stops)  # type: ignore[misc]
        link.server.engine.reset(stream_id, 9)
        link.server.stalled.add(stream_id)
    last = opened(link)
    link.client.engine.write(last, BLOB, end=True)
    link.run(lambda: last in link.server.ended, 60)
    assert link.server.bytes_of(last) == BLOB


@pytest.mark.parametrize("client,server", PAIRINGS)
def test_a_slow_reader_gets_everything(pki: PkiFixture, client: str, server: str) -> None:
    link = small(pki, client, server, Weather(0.05, 0.0, 0.1))
    stream_id = opened(link)
    link.server.stalled.add(stream_id)
    link.client.engine.write(stream_id, BLOB, end=True)
    for _ in range(400):
        link.wait(0.05)
        left = link.server.unconsumed.get(stream_id, 0)
        step = min(left, 3000)
        link.server.unconsumed[stream_id] = left - step
        link.server.engine.consume(stream_id, step)
        if stream_id in link.server.ended:
            break
    assert link.server.bytes_of(stream_id) == BLOB


@pytest.mark.parametrize("client,server", [p for p in PAIRINGS if "native" in p])
@pytest.mark.parametrize("weather", [Weather(), FOUL], ids=["fair", "foul"])
def test_credit_survives_key_updates(
    pki: PkiFixture,
    client: str,
    server: str,
    weather: Weather,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_engine, "KEY_UPDATE_PACKETS", 60)
    link = small(pki, client, server, weather)
    link.server.echo = True
    stream_id = opened(link)
    link.client.engine.write(stream_id, BLOB * 3, end=True)
    link.run(lambda: stream_id in link.client.ended, 300)
    assert link.client.bytes_of(stream_id) == BLOB * 3
