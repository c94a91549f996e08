"""Random traffic over a bad link: every stream ends as it was meant to, and nothing is left."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from actors.transport.quic.settings import QuicSettings
from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, join
from tests.transport.engines.virtual_link import Link, Side, Weather

SETTINGS = QuicSettings(stream_window=32 * 1024, connection_window=256 * 1024)


@dataclass
class _Half:
    """What one side means to send on one stream."""

    near: Side
    far: Side
    stream_id: int
    left: bytes
    sent: bytes = b""
    end: str = ""  # "", "eof" or "reset"
    resets: bool = False


def _write(half: _Half, chance: random.Random) -> None:
    if half.end:
        return
    if half.resets and chance.random() < 0.1:
        half.near.engine.reset(half.stream_id, 77)
        half.end = "reset"
        return
    count = min(len(half.left), chance.choice([1, 100, 5000, 20000]))
    piece, half.left = half.left[:count], half.left[count:]
    last = not half.left
    half.near.engine.write(half.stream_id, piece, end=last)
    half.sent += piece
    if last:
        half.end = "eof"


def _is_through(half: _Half) -> bool:
    if half.end == "eof":
        return half.stream_id in half.far.ended
    return half.end == "reset" and half.stream_id in half.far.resets


def _stall_and_resume(link: Link, chance: random.Random) -> None:
    for side in link.sides:
        if chance.random() < 0.2 and side.received:
            side.stalled.add(chance.choice(list(side.received)))
        if chance.random() < 0.3 and side.stalled:
            side.resume(chance.choice(list(side.stalled)))


@pytest.mark.parametrize("client,server", OURS)
@pytest.mark.parametrize("seed", range(2))
def test_random_traffic(pki: PkiFixture, client: str, server: str, seed: int) -> None:
    chance = random.Random(seed)
    weather = Weather(loss=0.02, duplicate=0.02, overtake=0.05, delay=0.002)
    link = join(
        pki,
        client,
        server,
        client_settings=SETTINGS,
        server_settings=SETTINGS,
        weather=weather,
        seed=seed,
    ).establish()
    halves: list[_Half] = []
    for _ in range(30):
        opener, other = link.sides if chance.random() < 0.5 else link.sides[::-1]
        stream_id = opener.engine.open_stream()
        assert stream_id is not None
        for near, far in ((opener, other), (other, opener)):
            size = chance.choice([1, 1000, 50_000, 100_000])
            body = chance.randbytes(size)
            halves.append(_Half(near, far, stream_id, body, resets=chance.random() < 0.2))
        opener.engine.write(stream_id, b"", end=False)
    while any(not half.end for half in halves):
        for half in chance.sample(halves, 10):
            # The other side's half exists once something of the stream arrived there.
            opened = (half.stream_id & 1) == (half.near is link.server)
            if opened or half.stream_id in half.near.received:
                _write(half, chance)
            elif half.stream_id in half.near.resets:
                half.end, half.resets = "reset", True
                half.near.engine.reset(half.stream_id, 77)
        _stall_and_resume(link, chance)
        link.wait(0.01)
    for side in link.sides:
        for stream_id in list(side.stalled):
            side.resume(stream_id)
    link.run(lambda: all(_is_through(half) for half in halves), 60)
    for half in halves:
        if half.end == "eof":
            assert half.far.bytes_of(half.stream_id) == half.sent
    streams = {half.stream_id for half in halves}
    link.run(lambda: all(side.finished >= streams for side in link.sides), 60)
