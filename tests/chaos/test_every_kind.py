"""One actor of every kind dies, killed and crashed: a new stream works, and nobody else is hurt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.agent.rig import agents
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos import checker, stream_checks
from tools.chaos.groups import Tree
from tools.chaos.history import History, Probe
from tools.chaos.nemesis import Nemesis
from tools.chaos.workload import Plan, Target, Workload

KINDS = (
    "/control",
    "/control/store",
    "/control/registry",
    "/control/policy",
    "/control/audit",
    "/edge",
    "/edge/listeners",
    "/edge/listeners/quic",
    "/edge/agents",
    "/edge/agents/*",
    "/edge/streams",
    "/edge/streams/*",
)


@pytest.mark.timeout(120)
def test_a_new_stream_works_after_the_death_of_any_kind(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
            control = InProcessControl(running.system, history)
            nemesis = Nemesis(control, seed=1, history=history)
            before = Tree.of(await control.tree())
            assert {path for path in KINDS if "*" not in path} <= set(before.rows)
            workload = Workload(address, history, target=target)
            direct = Workload(("127.0.0.1", target.port), history, target=target)

            async def probe(source: str, through: Workload) -> None:
                transfer = await through.transfer(through.small_plan())
                error = "" if transfer.outcome == "complete" else transfer.outcome
                seconds = transfer.ended - transfer.began
                history.probes.append(Probe(transfer.began, seconds, error, source))

            async def strike(place: str, verb: str) -> None:
                large = Plan(f"over {place} {verb}", 3, 0, 4 << 20, idle=0.2)
                over = asyncio.create_task(workload.transfer(large))
                await eventually(lambda: running.streams() == 1)
                tree = Tree.of(await control.tree())
                victim = next(p for p in tree.rows if p == place or _matches(p, place))
                assert await nemesis.budget(tree, victim) > 0
                action = await nemesis.hit(tree, victim, verb)
                assert action.done, place
                until = time.time() + 1.0
                count = len(history.probes)
                while not any(p.source == "stream" and not p.error for p in history.probes[count:]):
                    await asyncio.gather(probe("direct", direct), probe("stream", workload))
                    assert time.time() < until + 10, place
                history.transfers.append(await over)
                await eventually(lambda: running.streams() == 0)

            for verb in ("kill", "crash"):
                for place in KINDS:
                    await strike(place, verb)
            after = Tree.of(await control.tree())
            found = [
                *checker.exits_are_unique(history),
                *checker.exits_are_explained(history),
                *checker.bystanders_live(before, after, history.actions),
                *checker.permanent_came_back(before, after),
                *checker.order_holds(history, before),
                *checker.escalations_are_paid_for(history, nemesis.windows),
                *stream_checks.transfers_are_honest(history),
                *stream_checks.resets_are_explained(history),
                *stream_checks.refusals_are_explained(history),
                *stream_checks.new_streams_work(history),
            ]
            assert [str(violation) for violation in found] == []
            # Deaths that must not be noticed by a stream that runs were not.
            outcomes = {t.name.removeprefix("over "): t.outcome for t in history.transfers}
            for place in (*KINDS[:5], "/edge/listeners", "/edge/listeners/quic"):
                for verb in ("kill", "crash"):
                    assert outcomes[f"{place} {verb}"] == "complete", (place, verb)
            assert running.system.unowned_exceptions == 0
        await target.stop()

    run(main(), timeout=100)


def _matches(path: str, place: str) -> bool:
    return place.endswith("/*") and path.startswith(place[:-1])
