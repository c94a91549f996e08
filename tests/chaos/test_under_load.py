"""Actors die under byte-verified streams through real agents; the verdict must be clean."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.agent.rig import agents
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos import checker, stream_checks
from tools.chaos.groups import Tree
from tools.chaos.history import History
from tools.chaos.nemesis import Nemesis, almost_kill
from tools.chaos.workload import Target, Workload


def _judge(history: History, before: Tree, after: Tree, nemesis: Nemesis) -> list[str]:
    found = [
        *checker.exits_are_unique(history),
        *checker.exits_are_explained(history),
        *checker.bystanders_live(before, after, history.actions),
        *checker.permanent_came_back(before, after),
        *checker.windows_hold(history, nemesis.windows),
        *checker.mailboxes_are_bounded(history),
        *checker.order_holds(history, before),
        *stream_checks.transfers_are_honest(history),
        *stream_checks.resets_are_explained(history),
        *stream_checks.refusals_are_explained(history),
    ]
    return [str(violation) for violation in found]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_verified_streams_while_actors_die(
    pki: PkiFixture, tmp_path: Path, seed: int
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            control = InProcessControl(running.system, history)
            before = Tree.of(await control.tree())
            workload = Workload(
                address, history, target=target, streams=50, seed=seed, largest=1 << 18
            )
            load = asyncio.create_task(workload.run())
            nemesis = Nemesis(control, seed=seed, history=history)
            await eventually(lambda: len(history.transfers) >= 50, timeout=30)
            for _ in range(20):
                await nemesis.strike()
                await asyncio.sleep(0.15)
            count = len(history.transfers)
            complete = [t for t in history.transfers if t.outcome == "complete"]
            assert complete
            # New streams complete after the last death.
            await eventually(
                lambda: any(t.outcome == "complete" for t in history.transfers[count:]), timeout=20
            )
            workload.stop()
            await load
            await eventually(lambda: running.streams() == 0)
            after = Tree.of(await control.tree())
            assert _judge(history, before, after, nemesis) == []
            assert running.system.unowned_exceptions == 0
        await target.stop()

    run(main(), timeout=100)


@pytest.mark.timeout(120)
def test_every_supervisor_one_restart_below_its_limit_still_serves(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            control = InProcessControl(running.system, history)
            nemesis = Nemesis(control, seed=1, history=history)
            kills = await almost_kill(nemesis, control, spare=("/control",))
            assert kills > 0
            workload = Workload(address, history, target=target, streams=5, seed=1, largest=1 << 16)
            transfers = [await workload.transfer(workload.plan(1)) for _ in range(5)]
            assert [t.outcome for t in transfers] == ["complete"] * 5
        await target.stop()

    run(main(), timeout=100)
