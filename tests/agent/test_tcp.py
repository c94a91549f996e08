"""Agents whose network lets no UDP through: the same streams over TCP, and back."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from actors.edge.settings import EdgeSettings
from actors.runtime import ActorSystem
from tests.agent.rig import agent_systems, says
from tests.agent.test_resume import FAULTS, _children
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, relay
from tools.chaos.history import History, Transfer
from tools.chaos.workload import Plan, Target, Workload

MEBIBYTE = 1 << 20
#: Nobody answers here.
BLOCKED = (("127.0.0.1", 9),)
PLANS = [
    Plan("both", 1, 2 * MEBIBYTE, 2 * MEBIBYTE),
    Plan("down", 2, 100, 3 * MEBIBYTE),
    Plan("up", 3, 3 * MEBIBYTE, 100, half_close=True),
    Plan("idle", 4, 5000, 5000, idle=1.0),
    Plan("half-closed", 5, 1000, 2 * MEBIBYTE, half_close=True),
]


def _kill_listener(running: Relay) -> None:
    running.kill("/edge/listeners/tcp")


FAULTS_TOO = {**FAULTS, "the listener": _kill_listener}
COMPLETE = {plan.name: ("complete", "") for plan in PLANS}


def _on_quic(system: ActorSystem) -> bool:
    return says(system, "/link", "transport") == "quic"


def _connected_again(system: ActorSystem, before: object) -> bool:
    again = says(system, "/link", "connections") != before
    return again and says(system, "/link", "ready") is True


async def outcomes(transfers: list[asyncio.Task[Transfer]]) -> dict[str, tuple[str, str]]:
    results = [await transfer for transfer in transfers]
    return {r.name: (r.outcome, r.detail) for r in results}


@pytest.mark.parametrize("fault", ["none", *FAULTS_TOO])
@pytest.mark.timeout(120)
def test_streams_over_tcp_survive_the_death_of(pki: PkiFixture, tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path, tcp=True) as running,
            agent_systems(
                running,
                pki,
                target.port,
                provider_relays=BLOCKED,
                consumer_relays=BLOCKED,
                relays_tcp=tuple(running.edge.tcp_addresses),
                dial_timeout=0.3,
                backoff=0.05,
            ) as (address, systems),
        ):
            assert [says(one, "/link", "transport") for one in systems] == ["tcp", "tcp"]
            workload = Workload(address, history, streams=1, target=target)
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in PLANS]
            await eventually(lambda: running.streams() == len(PLANS))
            for _ in range(3 if fault != "none" else 0):
                await asyncio.sleep(0.3)
                if all(transfer.done() for transfer in transfers):
                    break
                if _children(running, "/edge/agents"):
                    FAULTS_TOO[fault](running)
            assert await outcomes(transfers) == COMPLETE
            await eventually(lambda: running.streams() == 0, timeout=40)
        await target.stop()

    run(main(), timeout=110)


@pytest.mark.timeout(120)
def test_agents_fill_the_gap_that_a_relay_cannot(pki: PkiFixture, tmp_path: Path) -> None:
    """What a relay took is not what the other agent received: it may be lost with the relay's."""

    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        keeps_nothing = EdgeSettings(region="local", replay_bytes=1)
        async with (
            relay(pki, tmp_path, tcp=True, settings=keeps_nothing) as running,
            agent_systems(
                running,
                pki,
                target.port,
                provider_relays=BLOCKED,
                consumer_relays=BLOCKED,
                relays_tcp=tuple(running.edge.tcp_addresses),
                dial_timeout=0.2,
                backoff=0.05,
            ) as (address, systems),
        ):
            workload = Workload(address, history, streams=1, target=target)
            transfers = [asyncio.create_task(workload.transfer(plan)) for plan in PLANS]
            await eventually(lambda: running.streams() == len(PLANS))
            for _ in range(4):
                await asyncio.sleep(0.1)
                if all(transfer.done() for transfer in transfers):
                    break
                before = [says(one, "/link", "connections") for one in systems]
                FAULTS_TOO["every agent connection"](running)
                for one, count in zip(systems, before, strict=True):
                    await eventually(partial(_connected_again, one, count))
            assert await outcomes(transfers) == COMPLETE
            await eventually(lambda: running.streams() == 0, timeout=40)
        await target.stop()

    run(main(), timeout=110)


@pytest.mark.timeout(60)
def test_when_udp_passes_again_the_streams_go_on_over_quic(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with relay(pki, tmp_path, tcp=True) as running:
            address = running.address
            running.edge.endpoints[0].detach()  # UDP is blocked
            async with agent_systems(
                running,
                pki,
                target.port,
                provider_relays=(address,),
                consumer_relays=(address,),
                relays_tcp=tuple(running.edge.tcp_addresses),
                dial_timeout=0.3,
                return_after=0.5,
                return_cap=0.5,
            ) as (local, systems):
                assert [says(one, "/link", "transport") for one in systems] == ["tcp", "tcp"]
                workload = Workload(local, history, streams=1, target=target)
                plans = [*PLANS, Plan("long", 6, 1000, 1000, idle=4.0)]
                transfers = [asyncio.create_task(workload.transfer(plan)) for plan in plans]
                await eventually(lambda: running.streams() == len(plans))
                running.edge.endpoints[0].attach(address)
                for one in systems:
                    await eventually(partial(_on_quic, one))
                expected = {**COMPLETE, "long": ("complete", "")}
                assert await outcomes(transfers) == expected
                await eventually(lambda: running.streams() == 0, timeout=40)
                assert running.counters.get("streams_returned", 0) > 0
        await target.stop()

    run(main(), timeout=50)
