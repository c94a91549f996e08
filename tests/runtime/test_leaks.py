"""Nothing is left of an incarnation: tasks, loop handles and objects, after 10 000 of them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass

from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    ActorSystem,
    ChildSpec,
    Down,
    DynamicSupervisor,
    ExitReason,
    MailboxSpec,
    Request,
    Restart,
    handles,
)
from actors.runtime.asks import Ask
from actors.runtime.cell import Cell
from actors.runtime.mailbox import Mailbox
from actors.runtime.owned_task import OwnedTask
from actors.runtime.signals import Notice, Tick
from actors.runtime.simulation import Simulation, run_simulation
from actors.runtime.timers import Timer

from .rig import AT_ONCE, at, tree

CYCLES = 10_000
#: So many live at the same time.
BATCH = 50
#: Cycles before the baseline is taken: caches and the event ring are full then.
WARM_UP = 20 * BATCH
#: Virtual seconds, more than a run takes.
LATER = 80_000.0
WATCHED = (
    Actor,
    ActorRef,
    Ask,
    Cell,
    Down,
    ExitReason,
    Mailbox,
    MailboxSpec,
    Notice,
    OwnedTask,
    Tick,
    Timer,
    asyncio.Task,
    asyncio.Future,
)


@dataclass(slots=True)
class Fail:
    """Makes the actor crash."""


@dataclass(slots=True)
class Hang(Request[int]):
    """Never answered."""


class Thing:
    """A resource that counts."""

    alive = 0

    def __init__(self) -> None:
        Thing.alive += 1

    def abort(self) -> None:
        Thing.alive -= 1


class Busy(Actor):
    """Has one of everything that can leak."""

    def __init__(self, peer: ActorRef | None) -> None:
        self._peer = peer

    def init(self) -> None:
        self.own(Thing())
        self.start_timer(LATER, Fail(), "later")
        self.spawn_task(self._sleep(), "sleeper")
        self.register_name(f"busy {self.path}")
        if self._peer is not None:
            self.monitor(self._peer)

    async def _sleep(self) -> None:
        await asyncio.sleep(LATER)

    @handles(Fail)
    def _fail(self, _: Fail) -> None:
        raise ValueError("asked for")

    @handles(Hang)
    async def _hang(self, _: Hang) -> int:
        await asyncio.sleep(20.0)
        return 0

    @handles(Down)
    def _down(self, _: Down) -> None: ...


def census(loop: asyncio.AbstractEventLoop, system: ActorSystem) -> Counter[str]:
    """How many there are of everything that may not pile up."""
    gc.collect()
    counts: Counter[str] = Counter()
    for item in gc.get_objects():
        for kind in WATCHED:
            if isinstance(item, kind):
                counts[kind.__name__] += 1
    counts["tasks"] = len(asyncio.all_tasks())
    # The loop itself forgets cancelled timers late, but never has many.
    scheduled = loop._scheduled  # type: ignore[attr-defined]  # BaseEventLoop's
    counts["loop timers"] = sum(not handle.cancelled() for handle in scheduled)
    counts["names"] = len(system._names)
    counts["living"] = system.living
    counts["owned tasks"] = system.owned_tasks
    counts["things"] = Thing.alive
    counts["dying"] = len(system.dying)
    counts["awaiting"] = len(system.awaiting)
    return counts


async def settled(sim: Simulation, system: ActorSystem, *, within: float = 120.0) -> Counter[str]:
    """The census after everything that was under way had its time."""
    await asyncio.sleep(within)
    sim.log.events.clear()
    sim.log.lines.clear()
    return census(sim.loop, system)


async def batch(system: ActorSystem, first: int) -> None:
    """Start, use and end BATCH actors, in every way there is."""
    supervisor, peer = at(system, "/many"), at(system, "/peer")
    ends: list[asyncio.Future[Down]] = []
    asks: list[asyncio.Task[int]] = []
    refs: list[ActorRef] = []
    for number in range(first, first + BATCH):
        spec = ChildSpec(f"n{number}", lambda: Busy(peer), Restart.TEMPORARY, backoff=AT_ONCE)
        ref = system.start_child(supervisor, spec)
        refs.append(ref)
    await refs[-1].started(timeout=5.0)
    for number, ref in enumerate(refs):
        end: asyncio.Future[Down] = system.loop.create_future()
        system.monitor(ref, end.set_result)
        ends.append(end)
        if number % 2:
            asks.append(system.loop.create_task(ref.ask(Hang(), timeout=60.0)))
    await asyncio.sleep(0.001)
    for number, ref in enumerate(refs):
        match number % 5:
            case 0:
                ref.tell(Fail())
            case 1:
                system.kill(ref)
            case 2:
                system.stop_actor(ref)
            case 3:
                system.crash(ref, "asked for")
            case _:
                system.restart(ref)
    async with asyncio.timeout(60.0):
        await asyncio.wait(ends)
    for again in refs[4::5]:
        await again.started(timeout=5.0)
        system.kill(again)
    for ask in asks:
        try:
            await ask
        except ActorDown:
            continue


def assert_same(before: Counter[str], after: Counter[str]) -> None:
    grown = {key: (before[key], after[key]) for key in after if after[key] > before[key]}
    assert not grown, f"grown (before, after): {grown}"


def test_6_2_nothing_is_left_after_10_000_starts_and_ends() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(
            sim,
            ChildSpec("peer", lambda: Busy(None)),
            ChildSpec("many", lambda: DynamicSupervisor(max_children=2 * BATCH)),
        )
        for first in range(0, WARM_UP, BATCH):
            await batch(system, first)
        before = await settled(sim, system)
        for first in range(WARM_UP, WARM_UP + CYCLES, BATCH):
            await batch(system, first)
        assert_same(before, await settled(sim, system))
        assert system.actors_started > WARM_UP + CYCLES
        await system.stop()

    run_simulation(scenario, 1)
    assert Thing.alive == 0


def test_7_1_nothing_is_left_after_10_000_restarts_of_one_place() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(
            sim,
            ChildSpec("peer", lambda: Busy(None)),
            ChildSpec("phoenix", lambda: Busy(None), backoff=AT_ONCE),
        )
        phoenix = at(system, "/phoenix")

        async def lives(count: int) -> None:
            for _ in range(count):
                phoenix.tell(Fail())
                began = system.actors_started
                while system.actors_started == began:
                    await asyncio.sleep(0.001)
                await phoenix.started(timeout=5.0)

        await lives(WARM_UP)
        before = await settled(sim, system)
        await lives(CYCLES)
        assert_same(before, await settled(sim, system))
        assert system.actors_started > WARM_UP + CYCLES
        await system.stop()

    run_simulation(scenario, 1)
    assert Thing.alive == 0
