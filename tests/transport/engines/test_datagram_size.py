"""The size of datagrams: found by trying, within the limit of the peer, given up when it fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from aioquic.quic.packet import QuicTransportParameters

from actors.transport.quic.datagram_size import (
    LADDER,
    MAX_PROBES,
    RAISE_PAUSE,
    WATCH_LOST,
    WATCH_SECONDS,
    BlackHole,
    DatagramSearch,
)
from actors.transport.quic.native_engine import core, handshake
from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, PAIRINGS, join
from tests.transport.engines.virtual_link import Link, Weather

BLOB = bytes(range(256)) * 4096
ours = pytest.mark.parametrize("client, server", OURS)
pairings = pytest.mark.parametrize("client, server", PAIRINGS)
BASE = QuicSettings().max_datagram
MTUS = [1280, 1452, *(pytest.param(mtu, marks=pytest.mark.soak) for mtu in (1400, 9000))]


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
    link.server.engine.write(stream_id, BLOB[: 1 << 18], end=True)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == BLOB[: 1 << 18]


@ours
@pytest.mark.parametrize("mtu", MTUS)
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


@pairings
@pytest.mark.parametrize("mtu", MTUS)
def test_what_the_path_carries_back_is_found(
    pki: PkiFixture, client: str, server: str, mtu: int
) -> None:
    link = join(pki, client, server, weather=Weather(mtu=mtu)).establish()
    for _ in range(3):
        _fetch(link)
        link.wait(0.5)
    sizes = _sizes_back(link)
    largest = max([BASE, *(size for size in (1350, 1452, 1472) if size <= mtu)])
    assert largest - 40 <= sorted(sizes)[len(sizes) // 2] <= min(mtu, max(LADDER))
    # Nothing but probes was lost.
    assert link.server.engine.path.lost <= 0 or server == "aioquic"


def _sizes_back(link: Link) -> list[int]:
    """Of the datagrams with which the server sends a blob."""
    sizes: list[int] = []
    link.on_send = lambda side, data: sizes.append(len(data)) if side is link.server else None
    _fetch(link)
    link.on_send = None
    return sizes


@pytest.mark.parametrize("client", ["native", "native-bare", "aioquic", "stock", "stock-bare"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_search_among_losses(pki: PkiFixture, client: str, seed: int) -> None:
    """What both say meanwhile, and what is lost of it, does not matter to their streams."""
    weather = Weather(mtu=1460, loss=0.1, duplicate=0.1, overtake=0.2)
    link = join(pki, client, "native", weather=weather, seed=seed)
    link.run(lambda: link.server.established is not None, 60)
    # At once: the server does not know yet what the path carries.
    stream_id = link.server.engine.open_stream()
    assert stream_id is not None
    link.server.engine.write(stream_id, BLOB[: 1 << 18], end=True)
    link.run(lambda: stream_id in link.client.ended, 300)
    assert link.client.bytes_of(stream_id) == BLOB[: 1 << 18]
    link.run(lambda: link.client.established is not None)
    _fetch(link)


@pairings
def test_a_search_that_hears_nothing_ends(pki: PkiFixture, client: str, server: str) -> None:
    """Nothing of the server arrives for a while after its handshake."""
    link = join(pki, client, server)
    link.server.on_established = link.client_addresses.clear
    link.run(lambda: link.server.established is not None)
    link.wait(1.5)
    link.client_addresses.add(link.client.address)
    link.establish()
    _fetch(link)


@pairings
def test_a_client_that_moves_during_the_search(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server)
    link.run(lambda: link.server.established is not None)
    link.move_client(("192.0.2.99", 4999))
    link.establish()
    link.client.engine.ping()
    _transfer(link)
    _fetch(link)
    assert link.server.engine.peer_address == ("192.0.2.99", 4999)


@pytest.mark.parametrize("client", ["native", "aioquic", "stock", "stock-bare"])
def test_a_server_keeps_to_what_its_peer_takes(
    pki: PkiFixture, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "apply_parameters", partial(_narrow, core.apply_parameters))
    link = join(pki, client, "native").establish()
    for _ in range(2):
        _fetch(link)
        link.wait(0.5)
    assert max(_sizes_back(link)) <= 1400


def _narrow(
    apply: Callable[[object, QuicTransportParameters], None],
    packet_core: object,
    parameters: QuicTransportParameters,
) -> None:
    parameters.max_udp_payload_size = 1400
    apply(packet_core, parameters)


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


@ours
def test_a_path_that_shrinks_does_not_hold_a_fetch(
    pki: PkiFixture, client: str, server: str
) -> None:
    """As above, with the server as the one whose datagrams are too large."""
    link = join(pki, client, server).establish()
    for _ in range(3):
        _fetch(link)
        link.wait(0.5)
    assert link.passed_longest[False] > BASE
    link.weather.mtu = BASE
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"go", end=True)
    link.run(lambda: stream_id in link.server.ended or link.client.closed is not None, 120)
    link.server.engine.write(stream_id, BLOB, end=True)
    pinged = link.now

    def over() -> bool:
        nonlocal pinged
        if link.now - pinged > 1.0:
            pinged = link.now
            link.client.engine.ping()
            link.server.engine.ping()
        return stream_id in link.client.ended or link.server.closed is not None

    link.run(over, 120)
    if server == "aioquic":
        assert link.client.bytes_of(stream_id) == BLOB
    else:
        assert link.server.closed is not None
        assert link.server.closed.code == 0x10


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
