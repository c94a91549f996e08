"""Streams that ended leave nothing behind in the relay and in the agents but what is declared."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path

from tests.agent.rig import agents
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload

#: Of every one of these there was one per stream, and none may be left.
KINDS = (
    "StreamPair", "Splice", "Side", "StreamEnd", "ResumableStream", "StreamPump", "OpenRequest"
)  # fmt: skip


def living() -> Counter[str]:
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects())


def test_ended_streams_are_gone(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            workload = Workload(address, history, streams=1, target=target)
            before = living()
            for half_close in (True, False):
                plans = [Plan(f"{n}", n, 3000, 3000, half_close=half_close) for n in range(30)]
                results = await asyncio.gather(*map(workload.transfer, plans))
                assert {result.outcome for result in results} == {"complete"}
            await eventually(lambda: running.streams() == 0)
            # Agents look once more whether the other one has everything.
            await eventually(lambda: living()["ResumableStream"] == before["ResumableStream"])
            after = living()
            assert {kind: after[kind] - before[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
            assert after["QuicStreamHandle"] - before["QuicStreamHandle"] <= 2
            assert running.edge.door.pairs.remembered == 60
            assert running.edge.door.ring_budget.used == 0
        await target.stop()

    run(main(), timeout=40)
