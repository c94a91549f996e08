"""Bytes and ends of streams, on every pairing of engines."""

from __future__ import annotations

import hashlib

import pytest

from tests.conftest import PkiFixture
from tests.transport.engines.link import Weather
from tests.transport.engines.rig import join

PAIRINGS = [(c, s) for c in ("native", "aioquic") for s in ("native", "aioquic")]
BLOB = hashlib.shake_256(b"trunkline").digest(1 << 20)


@pytest.mark.parametrize("client,server", PAIRINGS)
@pytest.mark.parametrize("weather", [Weather(), Weather(0.03, 0.03, 0.1)], ids=["fair", "foul"])
def test_large_data_comes_back_unchanged(
    pki: PkiFixture, client: str, server: str, weather: Weather
) -> None:
    link = join(pki, client, server, weather=weather).establish()
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, BLOB, end=True)
    link.run(lambda: stream_id in link.client.ended, 120)
    assert link.client.bytes_of(stream_id) == BLOB
    assert link.server.bytes_of(stream_id) == BLOB
