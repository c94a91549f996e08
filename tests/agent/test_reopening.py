"""A stream whose path dies while it is opened is opened again at once: its user only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.runtime import ActorSystem
from tests.agent.rig import agent_systems
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, relay
from tools.chaos.history import History
from tools.chaos.workload import Plan, Target, Workload


def _kill_all(running: Relay, place: str) -> None:
    cell = running.system.find(place)
    assert cell is not None
    for child in list((cell.children or {}).values()):
        running.kill(child.path)


FAULTS: dict[str, Callable[[Relay], None]] = {
    "the pair": lambda running: _kill_all(running, "/edge/streams"),
    "the supervisor of pairs": lambda running: running.kill("/edge/streams"),
    "every agent connection": lambda running: _kill_all(running, "/edge/agents"),
    "the supervisor of connections": lambda running: running.kill("/edge/agents"),
    "the door": lambda running: running.kill("/edge"),
}
#: Whose silence keeps the opening where the fault is to find it.
HOLDS = {"before policy answered": "policy", "before the provider accepted": "provider"}


def _hold(running: Relay, provider: ActorSystem, where: str, held: bool) -> None:
    system, place = (
        (running.system, "/control/policy") if where == "policy" else (provider, "/link")
    )
    ref = system.ref(place)
    assert ref is not None
    assert (system.suspend if held else system.resume)(ref)


@pytest.mark.parametrize("moment", HOLDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_an_opening_survives_the_death_of(
    pki: PkiFixture, tmp_path: Path, fault: str, moment: str
) -> None:
    async def main() -> None:
        history = History()
        target = Target(history)
        await target.start()
        async with (
            relay(pki, tmp_path) as running,
            agent_systems(running, pki, target.port) as (address, (provider, _)),
        ):
            _hold(running, provider, HOLDS[moment], held=True)
            workload = Workload(address, history, streams=1, target=target)
            transfer = asyncio.create_task(workload.transfer(Plan("new", 1, 5000, 5000)))
            await eventually(lambda: running.streams() == 1)
            FAULTS[fault](running)
            _hold(running, provider, HOLDS[moment], held=False)
            outcome = await transfer
            assert (outcome.outcome, outcome.detail) == ("complete", "")
            # The lost one's other half was looked for, and let go.
            await eventually(lambda: running.streams() == 0, timeout=15)
        await target.stop()

    run(main(), timeout=50)
