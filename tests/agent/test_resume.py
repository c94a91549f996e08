"""Real agents keep their streams while everything between them dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.rig import agents
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload

MEBIBYTE = 1 << 20


def _children(running: Relay, place: str) -> list[str]:
    cell = running.system.find(place)
    return [child.path for child in (cell.children or {}).values()] if cell is not None else []


def _kill_all(running: Relay, place: str) -> None:
    for path in _children(running, place):
        ref = running.system.ref(path)
        if ref is not None:
            running.system.kill(ref, initiator="test")


FAULTS: dict[str, Callable[[Relay], None]] = {
    "every pair": lambda running: _kill_all(running, "/edge/streams"),
    "the supervisor of pairs": lambda running: running.kill("/edge/streams"),
    "one agent connection": lambda running: running.kill(_children(running, "/edge/agents")[0]),
    "every agent connection": lambda running: _kill_all(running, "/edge/agents"),
    "the whole door": lambda running: running.kill("/edge"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.timeout(120)
def test_streams_in_flight_survive_the_death_of(
    pki: PkiFixture, tmp_path: Path, fault: str
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            workload = Workload(address, history, streams=1, target=target)
            plans = [
                Plan("both", 1, 2 * MEBIBYTE, 2 * MEBIBYTE),
                Plan("down", 2, 100, 3 * MEBIBYTE),
                Plan("up", 3, 3 * MEBIBYTE, 100, half_close=True),
                Plan("idle", 4, 5000, 5000, idle=1.5),
                Plan("half-closed", 5, 1000, 2 * MEBIBYTE, half_close=True),
            ]
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in plans]
            await eventually(lambda: running.streams() == len(plans))
            for _ in range(4):
                await asyncio.sleep(0.25)
                if all(transfer.done() for transfer in transfers):
                    break
                if _children(running, "/edge/agents"):
                    FAULTS[fault](running)
            outcomes = {}
            for transfer in transfers:
                result = await transfer
                outcomes[result.name] = (result.outcome, result.detail)
            assert outcomes == {plan.name: ("complete", "") for plan in plans}
            await eventually(lambda: running.streams() == 0, timeout=40)
        await target.stop()

    run(main(), timeout=110)
