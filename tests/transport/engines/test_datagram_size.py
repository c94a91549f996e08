"""The size of datagrams: found by trying, within the limit of the peer, given up when it fails."""

from __future__ import annotations

import pytest

from actors.transport.quic.datagram_size import (
    LADDER,
    MAX_PROBES,
    RAISE_PAUSE,
    WATCH_LOST,
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
#: A congestion window that nothing is acknowledged in.
SMALL = 4 * 1280


def _transfer(link: Link, times: int = 1) -> int:
    """Bytes from the client to the server on a stream of their own."""
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, times * BLOB, end=True)
    link.run(lambda: stream_id in link.server.ended, 120)
    assert link.server.bytes_of(stream_id) == times * BLOB
    return stream_id


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


def test_losses_of_large_datagrams_only_are_a_black_hole() -> None:
    def watch(lost_share: float, size: int, seconds: int) -> bool:
        hole = BlackHole(1280)
        lost = 0.0
        found = False
        for second in range(seconds):
            for _ in range(WATCH_LOST):
                lost += lost_share
                found |= hole.seen([size], int(lost), SMALL, float(second))
        return found

    assert watch(1.0, 1452, 60)
    assert not watch(0.5, 1452, 60)
    # Losses of what is small say nothing, also while large ones are sent and arrive.
    hole = BlackHole(1280)
    assert not any(hole.seen([1280], n, SMALL, n / 10) for n in range(600))
    hole = BlackHole(1280)
    assert not any(hole.seen([1280, 1452, 1452], 1 + n, SMALL, n / 10) for n in range(600))


def test_a_burst_of_losses_on_a_path_that_carries_much_is_none() -> None:
    hole = BlackHole(1280)
    large = 1 << 20
    for second in range(60):
        assert not hole.seen([1452] * 20, 20 * (second + 1), large, float(second))
    # Nor are losses of what was sent in the spell before.
    hole = BlackHole(1280)
    assert not hole.seen([1452] * 1000, 0, SMALL, 100.0)
    assert not hole.seen([1452] * 10, 0, SMALL, 108.5)
    assert not hole.seen([1452] * 10, 900, SMALL, 113.0)


def test_losses_that_are_noticed_seconds_later_count() -> None:
    hole = BlackHole(1280)
    assert not hole.seen([1452] * 100, 0, SMALL, 100.0)  # a new spell
    assert not hole.seen([1452] * 10, 0, SMALL, 100.5)
    assert hole.seen([], 105, SMALL, 104.5)
