"""The TURN benchmark measures something: shape and sense of its rows, never speed."""

from __future__ import annotations

import pytest

from tools.bench.turn import measure


@pytest.mark.soak
def test_rows_name_the_servers_and_their_cost() -> None:
    measured = measure(rate=500.0, seconds=0.2, repeat=1, allocations=10)
    rows = {row["what"]: row["value"] for row in measured}
    for server in ("asyncio DatagramProtocol", "trunkline"):
        for traffic in ("batched", "single"):
            assert rows[f"{server}, {traffic} datagrams: server CPU"] > 0
            assert rows[f"{server}, {traffic} datagrams: lost"] < 100
    assert rows["trunkline: allocations per second of server CPU"] > 0
    assert rows["trunkline / asyncio DatagramProtocol, single: CPU per packet"] > 0
