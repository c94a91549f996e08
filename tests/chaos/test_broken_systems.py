"""Systems that are really broken, each in one way: the engine runs against them and must say so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from actors.admin.process_figures import process_figures
from actors.edge.connection import agent_connection, registration
from actors.runtime import (
    Actor,
    ActorSystem,
    Backoff,
    ChildSpec,
    ExitReason,
    Supervisor,
    supervisor,
)
from actors.transport import stream as transport_stream
from tests.agent.rig import agents
from tests.chaos.in_process import InProcessControl
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.chaos import checker, stream_checks
from tools.chaos.groups import Tree
from tools.chaos.history import History, Probe
from tools.chaos.nemesis import Nemesis
from tools.chaos.workload import Plan, Target, Workload


class _Worker(Actor):
    """A sound one."""


class _Leaky(Actor):
    """Every incarnation leaves a task and a socket behind that nobody owns."""

    def __init__(self, left: list[asyncio.Task[None]], sockets: list[socket.socket]) -> None:
        self._left = left
        self._sockets = sockets

    def init(self) -> None:
        self._left.append(self.system.loop.create_task(_forever()))
        self._sockets.append(socket.socket())


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


class _Spiteful(Actor):
    """Takes somebody with it who is not in its restart group."""

    def terminate(self, reason: ExitReason) -> None:
        bystander = self.system.ref("/bystander")
        if bystander is not None and reason.abnormal:
            self.system.crash(bystander, "spite", initiator="spite")


class _Struck:
    """A small system under the nemesis, with pictures before and after."""

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self.history = History()
        self.control = InProcessControl(system, self.history)
        self.nemesis = Nemesis(self.control, seed=1, history=self.history)
        self.before = Tree()
        self.figures: dict[str, object] = {}

    async def begin(self) -> None:
        self.before = Tree.of(await self.control.tree())
        self.figures = self.now()

    def now(self) -> dict[str, object]:
        return {**process_figures(10), "timers": len(self.system.timers)}

    async def kill(self, path: str, verb: str = "crash") -> None:
        tree = Tree.of(await self.control.tree())
        action = await self.nemesis.hit(tree, path, verb)
        assert action.done
        await asyncio.sleep(0)

    async def after(self) -> Tree:
        return Tree.of(await self.control.tree())


@contextlib.asynccontextmanager
async def _small(*children: ChildSpec) -> AsyncIterator[_Struck]:
    system = ActorSystem("small")
    await system.start(lambda: Supervisor(list(children)))
    struck = _Struck(system)
    await struck.begin()
    try:
        yield struck
    finally:
        await system.stop(timeout=5.0)


def _child(name: str, factory: Callable[[], Actor] = _Worker) -> ChildSpec:
    return ChildSpec(name, factory, backoff=Backoff(base=0.001, cap=0.01))


def test_a_sound_system_passes_the_same_checks() -> None:
    async def main() -> None:
        async with _small(_child("victim"), _child("bystander")) as struck:
            await struck.kill("/victim")
            victim = struck.system.ref("/victim")
            assert victim is not None
            await victim.started(timeout=5)
            after = await struck.after()
            assert not checker.permanent_came_back(struck.before, after)
            assert not checker.bystanders_live(struck.before, after, struck.history.actions)
            assert not checker.exits_are_explained(struck.history)
            assert not checker.back_to_baseline(struck.figures, struck.now())

    run(main())


def test_a_supervisor_that_does_not_restart_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with _small(_child("victim"), _child("bystander")) as struck:
            monkeypatch.setattr(
                supervisor.Supervisor,
                "_plan_restart",
                lambda self, child, reason, uptime: setattr(child, "wanted", False),
            )
            await struck.kill("/victim")
            await eventually(lambda: not _lives(struck.system, "/victim"))
            await asyncio.sleep(0.05)
            assert checker.permanent_came_back(struck.before, await struck.after())
            monkeypatch.undo()

    run(main())


def test_an_actor_that_leaks_a_task_and_a_descriptor_is_caught() -> None:
    async def main() -> None:
        left: list[asyncio.Task[None]] = []
        sockets: list[socket.socket] = []
        async with _small(_child("victim", lambda: _Leaky(left, sockets))) as struck:
            for count in range(2, 6):
                await struck.kill("/victim", "kill")
                await eventually(lambda count=count: len(left) == count)  # type: ignore[misc]
            found = checker.back_to_baseline(struck.figures, struck.now())
        assert {text.text.split()[0] for text in found} >= {"tasks", "descriptors"}
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        for sock in sockets:
            sock.close()

    run(main())


def test_an_actor_that_takes_a_bystander_with_it_is_caught() -> None:
    async def main() -> None:
        async with _small(_child("victim", _Spiteful), _child("bystander")) as struck:
            await struck.kill("/victim")
            incarnation = struck.before.incarnation("/bystander")
            await eventually(lambda: _incarnation(struck.system, "/bystander") > incarnation)
            after = await struck.after()
            assert checker.bystanders_live(struck.before, after, struck.history.actions)
            assert checker.exits_are_explained(struck.history)

    run(main())


def _lives(system: ActorSystem, path: str) -> bool:
    ref = system.ref(path)
    return ref is not None and ref.alive


def _incarnation(system: ActorSystem, path: str) -> int:
    ref = system.ref(path)
    return ref.incarnation if ref is not None else 0


# A relay that is broken in one way, with real agents and verified streams.


@contextlib.asynccontextmanager
async def _broken_relay(pki: PkiFixture, tmp_path: Path) -> AsyncIterator[tuple[_Struck, Workload]]:
    history = History()
    target = Target(history)
    await target.start()
    async with relay(pki, tmp_path) as running, agents(running, pki, target.port) as address:
        struck = _Struck(running.system)
        struck.history = history
        struck.control = InProcessControl(running.system, history)
        struck.nemesis = Nemesis(struck.control, seed=1, history=history)
        await struck.begin()
        yield struck, Workload(address, history, target=target, seed=1)
    await target.stop()


def _connections(system: ActorSystem) -> list[agent_connection.AgentConnection]:
    place = system.find("/edge/agents")
    cells = (place.children or {}).values() if place is not None else ()
    found = [cell.actor for cell in cells]
    return [actor for actor in found if isinstance(actor, agent_connection.AgentConnection)]


async def _kill_the_pair(struck: _Struck) -> None:
    """Kill the first stream pair there is, once bytes pass it."""
    path: list[str] = []

    def carrying() -> bool:
        streams = struck.system.find("/edge/streams")
        cells = list((streams.children or {}).values()) if streams is not None else []
        path[:] = [cell.path for cell in cells if cell.resources.traffic()[0] > 100_000]
        return bool(path)

    await eventually(carrying, timeout=10)
    await struck.kill(path[0], "kill")


#: Large enough to be under way when its pair is killed.
_LARGE = Plan("large", 7, 0, 64 << 20)


def test_a_killed_pair_costs_its_stream_nothing(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with _broken_relay(pki, tmp_path) as (struck, workload):
            transfer = asyncio.create_task(workload.transfer(_LARGE))
            await _kill_the_pair(struck)
            struck.history.transfers.append(await transfer)
            assert struck.history.transfers[0].outcome == "complete"  # the agents resumed it
            assert not stream_checks.transfers_are_honest(struck.history)
            assert not stream_checks.resets_are_explained(struck.history)

    run(main(), timeout=40)


def test_a_pair_that_turns_its_death_into_a_clean_end_is_caught(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fin_instead(end: transport_stream.StreamEnd) -> None:
        if not end.settled:
            end.settled = True
            end.stream.forget_callbacks()
            end.stream.write_eof()
            end.stream.stop_sending(0)

    async def main() -> None:
        async with _broken_relay(pki, tmp_path) as (struck, workload):
            monkeypatch.setattr(transport_stream.StreamEnd, "abort", fin_instead)
            transfer = asyncio.create_task(workload.transfer(_LARGE))
            await _kill_the_pair(struck)
            struck.history.transfers.append(await transfer)
            assert struck.history.transfers[0].outcome == "truncated"
            assert stream_checks.transfers_are_honest(struck.history)

    run(main(), timeout=40)


def test_a_relay_whose_agents_are_forgotten_with_the_registry_is_caught(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that do not announce themselves again: no new stream, and the counts differ."""
    monkeypatch.setattr(registration, "ANNOUNCE_REFRESH", 3600.0)

    async def main() -> None:
        async with _broken_relay(pki, tmp_path) as (struck, workload):
            assert (await workload.transfer(workload.small_plan())).outcome == "complete"
            for actor in _connections(struck.system):
                actor.demonitor(actor._registration._registry_monitor)
            await struck.kill("/control/registry")
            transfer = await workload.transfer(workload.small_plan())
            struck.history.transfers.append(transfer)
            struck.history.probes.append(
                Probe(
                    transfer.began,
                    transfer.ended - transfer.began,
                    "" if transfer.outcome == "complete" else transfer.outcome,
                    "stream",
                )
            )
            assert stream_checks.new_streams_work(struck.history)
            registry = await struck.control.describe("/control/registry")
            described = registry["describe"]
            assert isinstance(described, dict)
            assert stream_checks.registry_counts(2, described)

    run(main(), timeout=40)
