"""Streams over two relays survive the death of everything between their agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.edge.resume.resumed_pair import ResumedPair
from tests.agent.rig import agents
from tests.conftest import PkiFixture, eventually, run
from tests.edge.relay_rig import relays
from tests.edge.rig import Relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload

MEBIBYTE = 1 << 20


def _children(running: Relay, place: str) -> list[str]:
    cell = running.system.find(place)
    return [child.path for child in (cell.children or {}).values()] if cell is not None else []


def _kill_all(place: str, *relays: Relay) -> None:
    for running in relays:
        for path in _children(running, place):
            ref = running.system.ref(path)
            if ref is not None:
                running.system.kill(ref, initiator="test")


def _kill_doors(*relays: Relay) -> None:
    for running in relays:
        running.kill("/edge")


FAULTS: dict[str, Callable[[Relay, Relay], None]] = {
    "the link at the ingress": lambda ingress, egress: _kill_all("/edge/relays", ingress),
    "the link at the egress": lambda ingress, egress: _kill_all("/edge/relays", egress),
    "the supervisor of links": lambda ingress, egress: ingress.kill("/edge/relays"),
    "every pair of the ingress": lambda ingress, egress: _kill_all("/edge/streams", ingress),
    "every pair of the egress": lambda ingress, egress: _kill_all("/edge/streams", egress),
    "every pair of both": lambda ingress, egress: _kill_all("/edge/streams", ingress, egress),
    "the consumer's connection": lambda ingress, egress: _kill_all("/edge/agents", ingress),
    "the provider's connection": lambda ingress, egress: _kill_all("/edge/agents", egress),
    "both doors": lambda ingress, egress: _kill_doors(ingress, egress),
}


@pytest.mark.parametrize("names", [("r1", "r2"), ("r2", "r1")], ids=["up", "down"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.timeout(120)
def test_streams_over_two_relays_survive_the_death_of(
    pki: PkiFixture, tmp_path: Path, fault: str, names: tuple[str, str]
) -> None:
    """Whichever of the two relays it is that offers what waits."""

    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relays(pki, tmp_path, *names) as (ingress, egress),
            agents(ingress, pki, target.port, provider_at=egress) as address,
        ):
            workload = Workload(address, history, streams=1, target=target)
            plans = [
                Plan("both", 1, 2 * MEBIBYTE, 2 * MEBIBYTE),
                Plan("down", 2, 100, 3 * MEBIBYTE),
                Plan("up", 3, 3 * MEBIBYTE, 100, half_close=True),
                Plan("idle", 4, 5000, 5000, idle=1.5),
                Plan("half-closed", 5, 1000, 2 * MEBIBYTE, half_close=True),
            ]
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in plans]
            await eventually(lambda: egress.streams() == len(plans))
            for _ in range(3):
                await asyncio.sleep(0.3)
                if all(transfer.done() for transfer in transfers):
                    break
                FAULTS[fault](ingress, egress)
            outcomes = {}
            for transfer in transfers:
                result = await transfer
                outcomes[result.name] = (result.outcome, result.detail)
            assert outcomes == {plan.name: ("complete", "") for plan in plans}
            # Nothing is held for agents that have everything: that would take 30 s.
            await eventually(lambda: ingress.streams() == egress.streams() == 0, timeout=15)
            came_back = sum(
                one.counters.get(name, 0)
                for one in (ingress, egress)
                for name in ("streams_returned", "streams_resumed")
            )
            assert came_back
        await target.stop()

    run(main(), timeout=110)


def test_a_pair_that_dies_before_it_took_its_halves_costs_a_moment(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay that offers goes on offering: its half waits for the other one."""
    began = ResumedPair.init
    died = 0

    def init(pair: ResumedPair) -> None:
        nonlocal died
        if died < 2:
            died += 1
            raise RuntimeError("before it took the halves")
        began(pair)

    monkeypatch.setattr(ResumedPair, "init", init)

    async def main() -> None:
        target = Target(History())
        await target.start()
        async with (
            relays(pki, tmp_path, "r2", "r1") as (ingress, egress),
            agents(ingress, pki, target.port, provider_at=egress) as address,
        ):
            workload = Workload(address, History(), streams=1, target=target)
            plan = Plan("idle", 1, 5000, 5000, idle=1.0)
            transfer = asyncio.create_task(workload.transfer(plan))
            await eventually(lambda: egress.streams() == ingress.streams() == 1)
            await asyncio.sleep(0.2)
            _kill_all("/edge/streams", ingress)
            async with asyncio.timeout(15):
                assert (await transfer).outcome == "complete"
            assert died == 2
        await target.stop()

    run(main(), timeout=50)
