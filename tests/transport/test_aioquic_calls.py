"""What a datagram costs in the aioquic engine, in function calls: the same on every machine.

The limits are what was counted with aioquic 1.7 on Python 3.11 and 3.13, plus five per cent.
"""

from __future__ import annotations

import pytest

from tests.conftest import PkiFixture
from tests.transport.engines.rig import identity
from tools.bench.call_counts import Calls, calls_per_datagram

#: Counted: 70 and 63 for sending, 64 and 54 for receiving.
LIMIT = Calls(sending=73, sending_c=67, receiving=67, receiving_c=57)


@pytest.mark.parametrize("streams", [1, 100, 1000])
def test_a_datagram_costs_no_more_calls_than_it_did(pki: PkiFixture, streams: int) -> None:
    counted = calls_per_datagram(identity(pki, pki.relay), streams)
    assert all(one <= limit for one, limit in zip(counted, LIMIT, strict=True)), counted


def test_the_cost_does_not_grow_with_the_streams(pki: PkiFixture) -> None:
    few = calls_per_datagram(identity(pki, pki.relay), 1)
    many = calls_per_datagram(identity(pki, pki.relay), 1000)
    assert sum(many) <= 1.15 * sum(few)
