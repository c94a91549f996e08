"""Random trees under random orders: the scenario of the simulated runs.

One seed draws the tree, the behaviour of every actor, and what a few drivers do to them: tell, ask,
kill, crash, suspend, resume, restart, stop, start children. At the end the tree is stopped, and the
ledger goes to the checkers.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial

from actors.runtime import (
    KILL,
    ActorRef,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    Down,
    DynamicSupervisor,
    Event,
    Intensity,
    Restart,
    RuntimeFault,
    Strategy,
    Supervisor,
    inspection,
)
from actors.runtime.simulation import EventLog, Scenario, Simulation, run_simulation

from .invariants import Violation, check_cells, check_run, releases_before_reports
from .world import KINDS, Do, Fail, Ledger, Note, Question, Subject, Work, ask

#: Virtual seconds of orders, and the deadline of the final stop.
BUSY_SECONDS = 12.0
STOP_SECONDS = 8.0
DRIVERS = 3


@dataclass(slots=True)
class Outcome:
    """One run, for the checkers."""

    log: EventLog
    ledger: Ledger
    violations: list[Violation]


class Drawer:
    """Draws a tree of specs from a seed."""

    def __init__(self, rng: random.Random, ledger: Ledger) -> None:
        self.rng = rng
        self.ledger = ledger
        #: Paths of static supervisors, with what they were made of.
        self.strategies: dict[str, tuple[Strategy, Intensity, tuple[str, ...]]] = {}
        self.dynamic: list[str] = []

    def worker(self, name: str) -> ChildSpec:
        rng = self.rng
        kind, wild = rng.choice(KINDS), rng.random() < 0.4
        seed = rng.getrandbits(32)
        restart = rng.choice((Restart.PERMANENT, Restart.PERMANENT, *Restart))
        return ChildSpec(
            name,
            partial(self.subject, kind, seed, wild),
            restart=restart,
            shutdown=rng.choice((None, None, 1.0, KILL)),
            significant=restart is not Restart.PERMANENT and rng.random() < 0.3,
            mailbox=rng.choice(("drop", "drop", "keep")),
            start_timeout=2.0,
            backoff=Backoff(base=0.1, cap=2.0, stable_after=5.0),
        )

    def subject(self, kind: type[Subject], seed: int, wild: bool) -> Subject:
        return kind(self.ledger, random.Random(f"{seed} {len(self.ledger.begun)}"), wild)

    def supervisor(self, path: str, depth: int) -> partial[Supervisor]:
        rng = self.rng
        specs: list[ChildSpec] = []
        for index in range(rng.randint(1, 4)):
            name = f"c{index}"
            below = f"{path.rstrip('/')}/{name}"
            draw = rng.random()
            if depth > 0 and draw < 0.35:
                specs.append(
                    ChildSpec(name, self.supervisor(below, depth - 1), rng.choice(list(Restart)))
                )
            elif draw < 0.5:
                self.dynamic.append(below)
                limit = Intensity(2, 5.0)
                factory = partial(DynamicSupervisor, max_children=6, intensity=limit)
                specs.append(ChildSpec(name, factory))
            else:
                specs.append(self.worker(name))
        strategy = rng.choice(list(Strategy))
        intensity = Intensity(rng.randint(1, 8), rng.choice((2.0, 10.0)))
        if path == "/" and rng.random() < 0.9:
            intensity = Intensity(1000, 1.0)  # most runs last until they are stopped
        self.strategies[path] = strategy, intensity, tuple(spec.id for spec in specs)
        return partial(
            Supervisor,
            specs,
            strategy=strategy,
            intensity=intensity,
            auto_shutdown=rng.random() < 0.2,
        )


class Driver:
    """Gives random orders to random actors until its time is over."""

    def __init__(self, number: int, sim: Simulation, system: ActorSystem, drawer: Drawer) -> None:
        self.sender = f"driver {number}", 0
        self.rng = random.Random(f"{sim.log.seed} driver {number}")
        self.sim = sim
        self.system = system
        self.drawer = drawer
        self.ledger = drawer.ledger
        self.numbers: dict[str, int] = {}
        self.children = 0

    async def run(self) -> None:
        end = self.sim.loop.time() + BUSY_SECONDS
        while self.sim.loop.time() < end and not self.system.terminated.done():
            await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.01, 0.2, 1.0)))
            refs = [cell.ref for cell in inspection.walk(self.system.root)]
            for _ in range(self.rng.randint(1, 6)):
                await self.order(self.rng.choice(refs), refs)

    async def order(self, ref: ActorRef, refs: list[ActorRef]) -> None:
        rng, system = self.rng, self.system
        draw = rng.random()
        if draw < 0.30:
            self.tell_number(ref)
        elif draw < 0.45:
            await self.ask(ref, refs)
        elif draw < 0.60:
            what = rng.choice(("own", "timer", "task", "watch", "unwatch", "link", "note", "name"))
            ref.try_tell(Do(what, rng.choice(refs)))
        elif draw < 0.66:
            swallow = rng.choice((0, 0, 0, 1, 3, 9))
            ref.try_tell(Work(rng.choice((0.0, 0.1, 1.0, 1.0, 30.0)), swallow))
        elif draw < 0.72:
            ref.try_tell(Fail(rng.choice(("raise", "task", "guard", "exit", "cancelled", "late"))))
        elif draw < 0.74:
            ref.try_tell(Do("stop"))
        elif draw < 0.78 and ref.path != "/":
            system.kill(ref, "driver", initiator="driver")
        elif draw < 0.82 and ref.path != "/":
            system.crash(ref, "driver")
        elif draw < 0.86:
            if system.suspend(ref):
                self.sim.loop.call_later(rng.uniform(0.0, 2.0), system.resume, ref)
        elif draw < 0.88:
            system.restart(ref)
        elif draw < 0.90 and ref.path != "/":
            system.stop_actor(ref, "driver", drain=rng.random() < 0.5)
        elif draw < 0.92:
            token = system.monitor(ref, self.on_down)
            if rng.random() < 0.3:
                system.demonitor(ref, token)
        elif draw < 0.94:
            self.send(ref)
        else:
            self.start_child()

    def on_down(self, down: Down) -> None:
        self.sim.record(f"down {down.path} #{down.incarnation} {down.reason}")

    def tell_number(self, ref: ActorRef) -> None:
        number = self.numbers[ref.path] = self.numbers.get(ref.path, 0) + 1
        ref.try_tell(Note(self.sender, number))

    def send(self, ref: ActorRef) -> None:
        number = self.numbers[ref.path] = self.numbers.get(ref.path, 0) + 1
        try:
            ref.tell(Note(self.sender, number))
        except RuntimeFault:
            pass

    async def ask(self, ref: ActorRef, refs: list[ActorRef]) -> None:
        rng = self.rng
        how = rng.choice(("now", "now", "refuse", "fail", "defer", "forget"))
        onward = tuple(rng.choice(refs) for _ in range(rng.choice((0, 0, 1, 3))))
        question = Question(rng.getrandbits(16), how, rng.choice((0.0, 0.0, 0.3)), onward)
        timeout = rng.choice((0.05, 0.5, 2.0))
        if rng.random() < 0.2:  # an asker that gives up
            asking = asyncio.ensure_future(
                ask(self.ledger, ref, question, timeout, self.sim.loop.time())
            )
            await asyncio.sleep(rng.choice((0.0, 0.05)))
            asking.cancel()
            await asyncio.wait({asking})
            return
        await ask(self.ledger, ref, question, timeout, self.sim.loop.time())

    def start_child(self) -> None:
        supervisor = self.system.ref(self.rng.choice(self.drawer.dynamic or ["/nowhere"]))
        if supervisor is None:
            return
        self.children += 1
        name = f"d{self.sender[0][-1]}-{self.children % 4}"
        try:
            self.system.start_child(supervisor, self.drawer.worker(name))
        except ChildRefused:
            pass


def make_scenario(ledger: Ledger, seed: int, violations: list[Violation]) -> Scenario:
    """The scenario of one seed."""

    async def scenario(sim: Simulation) -> None:
        drawer = Drawer(sim.rng, ledger)
        system = sim.system()
        root = drawer.supervisor("/", depth=2)
        watch = StructureWatch(system, ledger, violations)
        try:
            await system.start(root, timeout=30.0)
        except (RuntimeFault, TimeoutError) as error:
            sim.record(f"start failed: {type(error).__name__}")
        else:
            drivers = [Driver(number, sim, system, drawer) for number in range(DRIVERS)]
            await asyncio.gather(*(driver.run() for driver in drivers))
            watch.look()
            began = sim.loop.time()
            if sim.rng.random() < 0.1:
                system.kill_all("driver")
            reason = await system.stop(timeout=STOP_SECONDS)
            sim.record(f"stopped: {reason}")
            if sim.loop.time() - began > STOP_SECONDS + 2.0:
                violations.append(Violation(10, f"stop took {sim.loop.time() - began} s"))
        await settle(system)
        violations.extend(check_run(sim.log, ledger, system, drawer.strategies))

    return scenario


async def settle(system: ActorSystem) -> None:
    """Let tasks that swallow cancellations run out: they are nobody's any more."""
    while system._corpses:
        for task in list(system._corpses):
            task.cancel()
        await asyncio.sleep(0.1)


class StructureWatch:
    """Looks at every cell whenever an event is published."""

    def __init__(self, system: ActorSystem, ledger: Ledger, violations: list[Violation]) -> None:
        self._system = system
        self._ledger = ledger
        self._violations = violations
        self._events = 0
        system.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        self._events += 1
        self._violations.extend(releases_before_reports(event, self._ledger))
        if self._events % 16 == 0 and event.kind == "started":  # between two callbacks
            self.look()

    def look(self) -> None:
        self._violations.extend(check_cells(self._system))


def run_seed(seed: int) -> Outcome:
    """Run one seed and judge it."""
    ledger = Ledger(seed)
    violations: list[Violation] = []
    log = run_simulation(make_scenario(ledger, seed, violations), seed)
    return Outcome(log, ledger, violations)
