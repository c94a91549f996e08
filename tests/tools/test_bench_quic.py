"""`trunkline bench quic` end to end, small."""

from __future__ import annotations

import pytest

from tools.bench.quic_daemon import measure


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_the_daemon_carries_the_load_and_every_figure_is_there() -> None:
    rows = list(measure(["native"], ["bare"], [3], ["both"], 4, rounds=2))
    transfer = rows[0]
    assert (transfer["engine"], transfer["client"]) == ("native", "bare")
    assert (transfer["streams"], transfer["direction"]) == (3, "both")
    assert transfer["gbit_s_high"] >= transfer["gbit_s"] >= transfer["gbit_s_low"] > 0
    assert transfer["p99_ms"] >= transfer["p50_ms"] > 0
    assert {row["what"] for row in rows[1:]} == {
        "64-byte round trip",
        "stream opens",
        "handshakes",
    }
