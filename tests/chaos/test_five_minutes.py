"""Two agents and ten streams while some actor of the tree dies every second, for minutes."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.agent.rig import agents
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos.groups import Tree
from tools.chaos.history import History
from tools.chaos.nemesis import Nemesis
from tools.chaos.workload import Plan, Target, Workload

SECONDS = float(os.environ.get("TRUNKLINE_SOAK_SECONDS", "300"))
STREAMS = 10


def plan_of(number: int, choice: random.Random) -> Plan:
    """Some idle for longer than agents and relays wait, some half-closed, some busy."""
    size = int(2 ** choice.uniform(10, 22))
    idle = 35.0 if number % 5 == 0 else choice.uniform(0.0, 3.0)
    return Plan(f"{number}", number, size, size // 2, idle=idle, half_close=number % 3 == 0)


@pytest.mark.soak
def test_every_stream_is_byte_exact(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history, choice = History(), random.Random(1)
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            control = InProcessControl(running.system, history)
            nemesis = Nemesis(control, seed=1, history=history)
            workload = Workload(address, history, streams=1, target=target)
            until = time.monotonic() + SECONDS
            numbers = iter(range(1, 1 << 30))

            async def slot() -> None:
                while time.monotonic() < until:
                    history.transfers.append(
                        await workload.transfer(plan_of(next(numbers), choice))
                    )

            slots = [asyncio.create_task(slot()) for _ in range(STREAMS)]
            await eventually(lambda: running.streams() >= STREAMS, timeout=10)
            before = set(Tree.of(await control.tree()).rows)
            while time.monotonic() < until:
                await nemesis.strike()
                await asyncio.sleep(1.0)
            await asyncio.gather(*slots)
            await eventually(lambda: running.streams() == 0, timeout=45)
            outcomes = Counter(transfer.outcome for transfer in history.transfers)
            sys.stdout.write(f"{len(history.actions)} deaths, {dict(outcomes)}\n")
            # A stream that never was may be refused; one that was is never cut, short or wrong.
            assert outcomes["complete"] > STREAMS
            assert set(outcomes) <= {"complete", "refused"}, [
                transfer for transfer in history.transfers if transfer.outcome != "complete"
            ]
            missing = {p for p in before if "~" not in p} - set(Tree.of(await control.tree()).rows)
            assert not missing
        await target.stop()

    run(main(), timeout=SECONDS + 150)
