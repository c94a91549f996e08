"""Two relays and a controller, each a process; one is killed under load, the other goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.pki.files import make_private_directory
from actors.runtime import ActorSystem
from tests.agent.rig import says
from tests.conftest import eventually, run
from tests.system.daemon import RunningDaemon, daemon
from tools.agent.settings import AgentSettings
from tools.agent.settings import Mapping as Service
from tools.agent.tree import agent_root
from tools.chaos.credentials import AgentFiles, chaos_credentials
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload

MEBIBYTE = 1 << 20
SERVICE = "verified"
CLUSTER = (
    *("--demo=cluster", "--set", "edge.listen=127.0.0.1:0"),
    *("--set", "demo.consumer_listen=127.0.0.1:0"),
)


def relays_of(running: RunningDaemon) -> tuple[tuple[str, int], ...]:
    """Where the two relays listen."""
    found = [
        running.wait_for(rf"relay r{number} on (\S+):(\d+) \(QUIC\)").groups() for number in (1, 2)
    ]
    return tuple((host, int(port)) for host, port in found)


@asynccontextmanager
async def agent(
    files: AgentFiles,
    relays: tuple[tuple[str, int], ...],
    *,
    provide: tuple[Service, ...] = (),
    consume: tuple[Service, ...] = (),
) -> AsyncIterator[ActorSystem]:
    """A connected agent of our own."""
    settings = AgentSettings(
        certificate=str(files.certificate),
        key=str(files.key),
        ca=str(files.ca),
        relays=relays,
        provide=provide,
        consume=consume,
        backoff=0.2,
        backoff_cap=1.0,
    )
    system = ActorSystem("agent")
    await system.start(lambda: agent_root(settings))
    try:
        await eventually(lambda: says(system, "/link", "ready") is True, timeout=20)
        yield system
    finally:
        await system.stop(timeout=5.0)


def consumer_address(system: ActorSystem) -> tuple[str, int]:
    """Where the consumer agent listens."""
    listeners = system.find("/listeners")
    assert listeners is not None
    assert listeners.children is not None
    place = next(iter(listeners.children.values())).path
    host, _, port = str(says(system, place, "address")).rpartition(":")
    return host, int(port)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("idle", [12.0, pytest.param(33.0, marks=pytest.mark.soak)])
def test_streams_go_on_over_the_other_relay_when_one_is_killed(tmp_path: Path, idle: float) -> None:
    """Ten streams, two of them idle (longer than halves are kept: 33 s), some half-closed."""
    plans = [
        *(Plan(f"both-{n}", n, 24 * MEBIBYTE, 24 * MEBIBYTE) for n in range(3)),
        *(Plan(f"down-{n}", 10 + n, 100, 40 * MEBIBYTE) for n in range(2)),
        *(Plan(f"up-{n}", 20 + n, 40 * MEBIBYTE, 100, half_close=True) for n in range(2)),
        Plan("half-closed", 30, 1000, 30 * MEBIBYTE, half_close=True),
        Plan("idle", 40, 500_000, 500_000, idle=idle),
        Plan("idle, half-closed", 41, 500_000, 500_000, idle=idle, half_close=True),
    ]

    async def main(running: RunningDaemon) -> None:
        history = History()
        target = Target(history)
        await target.start()
        scratch = tmp_path / "agents"
        make_private_directory(scratch)
        provider, consumer = chaos_credentials(running.state / "pki", scratch, "acme")
        there, here = Service(SERVICE, "127.0.0.1", target.port), Service(SERVICE, "127.0.0.1", 0)
        relays = relays_of(running)
        async with (
            agent(provider, relays, provide=(there,)),
            agent(consumer, relays[::-1], consume=(here,)) as system,
        ):
            load = Workload(consumer_address(system), history, streams=1, target=target)
            transfers = [asyncio.create_task(load.transfer(plan)) for plan in plans]
            await eventually(lambda: len(target.reached) >= 8, timeout=20)
            for victim in ("/node/relay-1", "/node/relay-2", "/node/relay-1"):
                await asyncio.to_thread(running.ctl, "kill", victim, "--reason", "test")
                await asyncio.sleep(6.0)
            results = [await transfer for transfer in transfers]
        assert {r.name: (r.outcome, r.detail) for r in results} == {
            plan.name: ("complete", "") for plan in plans
        }
        await target.stop()

    with daemon(tmp_path, *CLUSTER) as running:
        running.wait_for(r"demo: curl (http://\S+)")
        run(main(running), timeout=150)
        assert running.stop() == 0
