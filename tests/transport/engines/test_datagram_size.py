"""The size of datagrams: found by trying, within the limit of the peer, given up when it fails."""

from __future__ import annotations

import pytest

from actors.transport.quic.datagram_size import (
    LADDER,
    MAX_PROBES,
    RAISE_PAUSE,
    WATCH_LOST,
    WATCH_SECONDS,
    BlackHole,
    DatagramSearch,
)
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.link import Link, Weather
from tests.transport.engines.rig import OURS, join

BLOB = bytes(range(256)) * 4096
ours = pytest.mark.parametrize("client, server", OURS)
BASE = QuicSettings().max_datagram


def _transfer(link: Link, times: int = 1) -> int:
    """Bytes from the client to the server on a stream of their own."""
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, times * BLOB, end=True)
    link.run(lambda: stream_id in link.server.ended, 120)
    assert link.server.bytes_of(stream_id) == times * BLOB
    return stream_id


def _fetch(link: Link) -> None:
    """Bytes from the server to the client."""
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"go", end=True)
    link.run(lambda: stream_id in link.server.ended, 120)
    link.server.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == BLOB


@ours
@pytest.mark.parametrize("mtu", [1280, 1400, 1452, 9000])
def test_what_the_path_carries_is_found(
    pki: PkiFixture, client: str, server: str, mtu: int
) -> None:
    link = join(pki, client, server, weather=Weather(mtu=mtu)).establish()
    for _ in range(3):
        _transfer(link)
        link.wait(0.5)
    found = link.passed_longest[True]
    # At least what the two ladders have in common, at most what passes.
    assert found >= max([BASE, *(size for size in (1350, 1452, 1472) if size <= mtu)]) - 40
    assert link.longest <= max(LADDER)


@ours
def test_what_the_path_carries_back_is_found_by_aioquic_only(
    pki: PkiFixture, client: str, server: str
) -> None:
    """A server of the native engine keeps to the base size (decision 63)."""
    link = join(pki, client, server).establish()
    for _ in range(3):
        _fetch(link)
        link.wait(0.5)
    assert (link.passed_longest[False] > BASE) == (server == "aioquic")


@ours
def test_nothing_larger_is_tried_when_it_is_turned_off(
    pki: PkiFixture, client: str, server: str
) -> None:
    settings = QuicSettings(max_probed=0)
    link = join(pki, client, server, client_settings=settings, server_settings=settings)
    _transfer(link.establish())
    assert link.longest <= BASE


@ours
def test_a_path_that_shrinks_does_not_hold_a_transfer(
    pki: PkiFixture, client: str, server: str
) -> None:
    """aioquic's datagrams shrink; the native connection ends and says why, so it can be resumed."""
    link = join(pki, client, server).establish()
    for _ in range(3):
        _transfer(link)
        link.wait(0.5)
    assert link.passed_longest[True] > BASE
    link.weather.mtu = BASE
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, BLOB, end=True)
    # Small packets of both sides go on all the time, so it is no idle timeout that ends this.
    pinged = link.now

    def over() -> bool:
        nonlocal pinged
        if link.now - pinged > 1.0:
            pinged = link.now
            link.client.engine.ping()
            link.server.engine.ping()
        return stream_id in link.server.ended or link.client.closed is not None

    link.run(over, 120)
    if client == "aioquic":
        assert link.server.bytes_of(stream_id) == BLOB
    else:
        assert link.client.closed is not None
        assert link.client.closed.code == 0x10


def test_the_search_goes_up_the_ladder_and_stops_at_the_ceiling() -> None:
    search = DatagramSearch(1280, 1452)
    now = 0.0
    tried = []
    while size := search.probe(now):
        assert search.probe(now) == 0  # one at a time
        tried.append(size)
        search.acknowledged(size, now)
        now += 1.0
    assert tried == [1350, 1420, 1452]
    assert search.size == 1452


def test_a_size_that_fails_is_left_for_long() -> None:
    search = DatagramSearch(1280, 1472)
    now = 0.0
    for _ in range(MAX_PROBES):
        assert search.probe(now) == 1350
        search.lost(now)
        now += 1.0
    assert search.probe(now) == 0
    assert search.size == 1280
    assert search.probe(now + RAISE_PAUSE) == 1350


def test_the_peers_limit_holds_for_the_base_as_well() -> None:
    search = DatagramSearch(1280, 1472)
    search.limit(1200)
    assert search.size == 1200
    assert search.probe(0.0) == 0
    assert not search.shrink(1.0)


def test_a_search_that_lost_its_path_begins_again_later() -> None:
    search = DatagramSearch(1280, 1472)
    search.acknowledged(search.probe(0.0), 0.0)
    assert search.shrink(1.0)
    assert search.size == 1280
    assert search.probe(2.0) == 0
    assert not search.shrink(2.0)


def _vanishes(size: int, acknowledged_share: float, seconds: float) -> bool:
    """Ten datagrams a second; what is not acknowledged is lost."""
    hole = BlackHole(1280)
    hole.vanish(1, 0, 0.0)  # one arrived, once
    acknowledged, lost = 1.0, 0.0
    for tick in range(int(seconds * 10)):
        if hole.vanish(int(acknowledged), int(lost), tick / 10):
            return True
        hole.sent([size], int(lost), tick / 10)
        acknowledged += acknowledged_share
        lost += 1 - acknowledged_share
    return False


def test_large_datagrams_of_which_none_is_acknowledged_are_a_black_hole() -> None:
    assert _vanishes(1452, 0.0, WATCH_SECONDS + 1)
    assert not _vanishes(1452, 0.0, WATCH_SECONDS)
    # Losses of what is small say nothing, and of large ones little while others arrive.
    assert not _vanishes(1280, 0.0, 60)
    assert not _vanishes(1452, 0.1, 60)


def test_an_outage_is_no_black_hole() -> None:
    # Nothing is acknowledged, so nothing counts as lost yet.
    hole = BlackHole(1280)
    assert not hole.vanish(1, 0, 0)
    for second in range(60):
        assert not hole.vanish(1, 0, second)
        hole.sent([1452], 0, second)
    # It is over: something large arrives with the first acknowledgements.
    assert not hole.vanish(2, 59, 61)


def test_probes_that_are_lost_are_no_black_hole_whatever_else_is() -> None:
    # Nothing large was ever carried.
    hole = BlackHole(1280)
    for second in range(60):
        hole.sent([1472], 10 * second, second)
        assert not hole.vanish(-9 * second, 10 * second + 10, second)
    # Few large ones are sent, and small ones are lost.
    hole = BlackHole(1280)
    assert not hole.vanish(1, 0, 0)
    hole.sent([1472] * (WATCH_LOST - 1), 0, 1)
    assert not hole.vanish(1 - 100, 100, 60)


def test_losses_from_before_do_not_count() -> None:
    hole = BlackHole(1280)
    hole.sent([1452] * 100, 0, 1)
    assert not hole.vanish(50, 50, 2)
    hole.sent([1452] * WATCH_LOST, 50, 100)
    assert not hole.vanish(50, 50 + WATCH_LOST - 1, 200)
    assert hole.vanish(50, 50 + WATCH_LOST, 200)
    hole.arrives()
    assert not hole.vanish(50, 500, 300)
