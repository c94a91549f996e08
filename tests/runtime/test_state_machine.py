"""Random trees under random orders against a model: who lives, in which incarnation, who heard.

The scenario of the simulated runs (`scenario.py`) checks invariants without knowing what should
happen. Here the model knows: after every order it says which places live on, which began a new
incarnation and which are gone, and everything the system shows must agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.runtime import (
    DEFERRED,
    Actor,
    ActorDown,
    ActorSystem,
    ChildSpec,
    Deferred,
    Down,
    Request,
    Restart,
    Strategy,
    Supervisor,
    handles,
)
from actors.runtime.cell import Cell
from actors.runtime.simulation import SimulationLoop

from .rig import AT_ONCE, MANY

#: Virtual seconds after which every order has had all its effects: no shutdown deadline is
#: ever used, as these actors stop when they are asked to.
SETTLE = 1.0
#: Virtual seconds within which an ask must hear that its target died.
AT_ONCE_SECONDS = 0.01
#: Longer than any run.
PATIENCE = 1_000_000.0


@dataclass(slots=True)
class Who(Request[int]):
    """Answered with the incarnation."""


@dataclass(slots=True)
class Never(Request[int]):
    """Its answer is deferred for ever."""


class Leaf(Actor):
    @handles(Who)
    def _who(self, _: Who) -> int:
        return self._cell.incarnation

    @handles(Never)
    def _never(self, _: Never) -> Deferred:
        self.defer()
        return DEFERRED


@dataclass(slots=True)
class Plan:
    """What a place is made of; a supervisor has a strategy."""

    restart: Restart
    strategy: Strategy | None = None
    children: tuple[Plan, ...] = ()

    def factory(self) -> Actor:
        if self.strategy is None:
            return Leaf()
        specs = [
            ChildSpec(f"c{index}", plan.factory, plan.restart, backoff=AT_ONCE)
            for index, plan in enumerate(self.children)
        ]
        return Supervisor(specs, strategy=self.strategy, intensity=MANY)


class Place:
    """The model of one place."""

    def __init__(self, path: str, plan: Plan, parent: Place | None) -> None:
        self.path = path
        self.plan = plan
        self.parent = parent
        self.alive = True
        self.suspended = False
        #: Known after the first look; 0 means: one that is larger than all seen before.
        self.incarnation = 0
        prefix = path.rstrip("/")
        self.children = [
            Place(f"{prefix}/c{index}", child, self) for index, child in enumerate(plan.children)
        ]

    def all(self) -> Iterator[Place]:
        yield self
        for child in self.children:
            yield from child.all()

    def begin(self) -> None:
        """A new incarnation, with all its children."""
        for place in self.all():
            place.alive, place.suspended, place.incarnation = True, False, 0

    def end(self) -> None:
        """Gone, with all its children."""
        for place in self.all():
            place.alive, place.suspended = False, False


@dataclass(slots=True)
class Monitor:
    """A monitor of an incarnation, and what it heard."""

    path: str
    incarnation: int
    heard: list[Down] = field(default_factory=list)


@dataclass(slots=True)
class Question:
    """An ask that was not answered at once."""

    path: str
    incarnation: int
    task: asyncio.Task[tuple[object, float]]
    deferred: bool


def ends(place: Place, *, abnormal: bool, again: bool = False) -> set[tuple[Place, bool]]:
    """Places that end when one does, each with whether it begins anew. Rules 7.1 and 9.4."""
    restart = place.plan.restart
    if not (again or restart is Restart.PERMANENT or (abnormal and restart is Restart.TRANSIENT)):
        return {(place, False)}
    assert place.parent is not None
    group = list(place.parent.children)
    if place.parent.plan.strategy is Strategy.ONE_FOR_ONE:
        group = []
    elif place.parent.plan.strategy is Strategy.REST_FOR_ONE:
        group = group[group.index(place) + 1 :]
    others = {
        (other, other.plan.restart is not Restart.TEMPORARY)
        for other in group
        if other is not place and other.alive
    }
    return {(place, True)} | others


RESTARTS = st.sampled_from(list(Restart))
TREES = st.recursive(
    st.builds(Plan, RESTARTS),
    lambda plans: st.builds(
        Plan,
        RESTARTS,
        st.sampled_from(list(Strategy)),
        st.lists(plans, min_size=1, max_size=4).map(tuple),
    ),
    max_leaves=9,
)
ROOTS = st.builds(
    Plan,
    st.just(Restart.TEMPORARY),
    st.sampled_from(list(Strategy)),
    st.lists(TREES, min_size=1, max_size=4).map(tuple),
)
#: Any place below the root, or any leaf, by number.
NUMBERS = st.integers(0, 1000)


class Trees(RuleBasedStateMachine):
    @initialize(plan=ROOTS, seed=st.integers(0, 2**16))
    def begin(self, plan: Plan, seed: int) -> None:
        self.loop = SimulationLoop(seed, limit=PATIENCE)
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.root = Place("/", plan, None)
        self.monitors: list[Monitor] = []
        self.questions: list[Question] = []
        self.cells: dict[str, Cell] = {}
        self.latest = 0
        self.acted_at = 0.0

        async def start() -> ActorSystem:
            system = ActorSystem("machine", seed=seed, wall_clock=self.loop.time)
            await system.start(partial(self._root_actor, plan))
            return system

        self.system = self.runner.run(start())
        self._settle()

    @staticmethod
    def _root_actor(plan: Plan) -> Supervisor:
        actor = plan.factory()
        assert isinstance(actor, Supervisor)
        return actor

    # Orders that end incarnations.

    @rule(number=NUMBERS)
    def kill(self, number: int) -> None:
        place = self._any(number)
        assert self.system.kill(self._cell(place).ref) is place.alive
        self._ended([place], abnormal=True)

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        place = self._any(number)
        assert self.system.crash(self._cell(place).ref, "asked for") is place.alive
        self._ended([place], abnormal=True)

    @rule(number=NUMBERS, drain=st.booleans())
    def stop(self, number: int, drain: bool) -> None:
        place = self._any(number)
        # What is queued at a suspended actor is not served, so a drain would wait for ever.
        drain = drain and not place.suspended
        assert self.system.stop_actor(self._cell(place).ref, drain=drain) is place.alive
        self._ended([place], abnormal=False)

    @rule(number=NUMBERS)
    def restart(self, number: int) -> None:
        place = self._any(number)
        assert self.system.restart(self._cell(place).ref) is place.alive
        self._ended([place], abnormal=True, again=True)

    @rule(numbers=st.lists(NUMBERS, min_size=2, max_size=4))
    def kill_leaves_in_one_turn(self, numbers: list[int]) -> None:
        places = [place for place in dict.fromkeys(map(self._leaf, numbers)) if place is not None]
        for place in places:
            assert self.system.kill(self._cell(place).ref) is place.alive
        self._ended(places, abnormal=True)

    # Orders that end nothing.

    @rule(number=NUMBERS)
    def suspend(self, number: int) -> None:
        place = self._leaf(number)
        if place is not None and place.alive:
            self.system.suspend(self._cell(place).ref)
            place.suspended = True
        self._settle()

    @rule(number=NUMBERS)
    def resume(self, number: int) -> None:
        place = self._leaf(number)
        if place is not None and place.alive:
            self.system.resume(self._cell(place).ref)
            place.suspended = False
        self._settle()

    @rule(number=NUMBERS)
    def monitor(self, number: int) -> None:
        place = self._any(number)
        # At a place that ended with its supervisor, the latest cell may be one the model never
        # saw: begun by the supervisor, and ended with it, within one turn.
        ref = self._cell(place).ref
        monitor = Monitor(place.path, ref.incarnation)
        self.system.monitor(ref, monitor.heard.append)
        self.monitors.append(monitor)
        self._settle()

    @rule(number=NUMBERS, deferred=st.booleans())
    def ask(self, number: int, deferred: bool) -> None:
        place = self._leaf(number)
        if place is None:
            return
        ref = self._cell(place).ref
        request: Request[int] = Never() if deferred else Who()

        async def outcome() -> tuple[object, float]:
            try:
                answer: object = await ref.ask(request, timeout=PATIENCE)
            except ActorDown as down:
                answer = down
            return answer, self.loop.time()

        task = self.loop.create_task(outcome())
        self.questions.append(Question(place.path, place.incarnation, task, deferred))
        self._settle()

    # What must be so after every order.

    @invariant()
    def the_tree_is_as_the_model_says(self) -> None:
        lives = 0
        for place in self.root.all():
            cell = self.system.find(place.path)
            alive = cell is not None and cell.living
            assert alive is place.alive, f"{place.path}: alive is {alive}"
            if cell is not None and alive:
                lives += 1
                assert cell.suspended is place.suspended, place.path
                assert cell.incarnation == place.incarnation, place.path
        assert self.system.living == lives
        assert not self.problems

    @invariant()
    def every_monitor_heard_exactly_once_of_a_death(self) -> None:
        living = {place.path: place.incarnation for place in self.root.all() if place.alive}
        for monitor in self.monitors:
            dead = living.get(monitor.path) != monitor.incarnation
            assert len(monitor.heard) == int(dead), monitor
            if dead:
                assert monitor.heard[0].path == monitor.path
                assert monitor.heard[0].incarnation == monitor.incarnation

    @invariant()
    def asks_are_answered_or_fail_at_once(self) -> None:
        places = {place.path: place for place in self.root.all()}
        waiting = []
        for question in self.questions:
            place = places[question.path]
            dead = not place.alive or place.incarnation != question.incarnation
            if dead:
                answer, at = question.task.result()
                assert isinstance(answer, ActorDown), question
                assert at - self.acted_at <= AT_ONCE_SECONDS, question
            elif place.suspended or question.deferred:
                assert not question.task.done(), question
                waiting.append(question)
            else:
                answer, at = question.task.result()
                assert answer == question.incarnation, question
                assert at - self.acted_at <= AT_ONCE_SECONDS, question
        self.questions = waiting

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        with self.runner:
            if hasattr(self, "system"):
                self.runner.run(self._stop())

    async def _stop(self) -> None:
        await self.system.stop()
        await asyncio.sleep(0)
        assert self.system.living == 0
        assert all(question.task.done() for question in self.questions)
        assert all(len(monitor.heard) == 1 for monitor in self.monitors)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    # Choosing, and the effects.

    def _any(self, number: int) -> Place:
        return self._pick(list(self.root.all())[1:], number)

    def _leaf(self, number: int) -> Place | None:
        leaves = [place for place in self.root.all() if place.plan.strategy is None]
        return self._pick(leaves, number) if leaves else None

    @staticmethod
    def _pick(places: Sequence[Place], number: int) -> Place:
        return places[number % len(places)]

    def _cell(self, place: Place) -> Cell:
        """The cell there; a place below a supervisor that is gone has its last one."""
        cell = self.system.find(place.path)
        if cell is not None:
            self.cells[place.path] = cell
        return self.cells[place.path]

    def _ended(self, places: Sequence[Place], *, abnormal: bool, again: bool = False) -> None:
        """Apply what the model says about ends in one turn; a parent's end covers its children."""
        outcomes: dict[Place, bool] = {}
        for place in places:
            if place.alive:
                outcomes.update(ends(place, abnormal=abnormal, again=again))
        # Deepest first: what happens to a supervisor overrules what happened below it.
        for place in sorted(outcomes, key=lambda place: -place.path.count("/")):
            if outcomes[place]:
                place.begin()
            else:
                place.end()
        self._settle()

    def _settle(self) -> None:
        """Let the order take all its effects, and learn the numbers of what began."""
        self.acted_at = self.loop.time()
        self.runner.run(asyncio.sleep(SETTLE))
        begun = [place for place in self.root.all() if place.alive and not place.incarnation]
        for place in begun:
            cell = self.system.find(place.path)
            assert cell is not None, f"nothing at {place.path}"
            assert cell.incarnation > self.latest, f"{place.path}: an old incarnation lives on"
            place.incarnation = cell.incarnation
            self.cells[place.path] = cell
        numbers = [place.incarnation for place in begun]
        assert len(set(numbers)) == len(numbers)
        self.latest = max([self.latest, *numbers])


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
