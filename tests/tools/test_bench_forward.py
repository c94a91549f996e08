"""The forward benchmark measures something: shape and sense of its rows, never speed."""

from __future__ import annotations

from tools.bench.forward import measure_kills, measure_throughput


def test_throughput_rows_name_both_relays_and_their_cost() -> None:
    rows = {row["what"]: row["value"] for row in measure_throughput(0.1, 1)}
    for relay in ("asyncio DatagramProtocol", "forward plane"):
        for traffic in ("batched", "single"):
            assert rows[f"{relay}, {traffic} datagrams: forwarded"] > 0
            assert rows[f"{relay}, {traffic} datagrams: relay CPU"] > 0
    assert rows["forward plane / DatagramProtocol, batched: packets/s"] > 0


def test_a_killed_allocation_forwards_again() -> None:
    rows = {row["what"]: row["value"] for row in measure_kills(1)}
    assert rows["allocation killed under traffic: kills"] == 1
    assert rows["datagrams lost"] < rows["datagrams sent"] / 2
