"""What a datagram costs in the aioquic engine, in function calls: the same on every machine.

The limits are what was counted with aioquic 1.7 on Python 3.11, plus five per cent.
"""

from __future__ import annotations

import pytest

from tests.conftest import PkiFixture
from tests.transport.engines.rig import identity
from tools.bench.call_counts import Calls, calls_per_datagram

#: By streams that have bytes to send.
COUNTED = {
    1: Calls(sending=62.6, sending_c=59.4, receiving=52.3, receiving_c=49.0),
    100: Calls(sending=63.5, sending_c=61.3, receiving=57.1, receiving_c=52.8),
    1000: Calls(sending=66.8, sending_c=64.9, receiving=61.3, receiving_c=56.0),
}


@pytest.mark.parametrize("streams", COUNTED)
def test_a_datagram_costs_no_more_calls_than_it_did(pki: PkiFixture, streams: int) -> None:
    counted = calls_per_datagram(identity(pki, pki.relay), streams)
    limits = [1.05 * each for each in COUNTED[streams]]
    assert all(one <= limit for one, limit in zip(counted, limits, strict=True)), counted


def test_the_cost_hardly_grows_with_the_streams(pki: PkiFixture) -> None:
    few = calls_per_datagram(identity(pki, pki.relay), 1)
    many = calls_per_datagram(identity(pki, pki.relay), 1000)
    assert sum(many) <= 1.2 * sum(few)
