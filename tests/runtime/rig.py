"""What the tests of single rules share: an actor that runs any function, and small trees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.runtime import (
    Actor,
    ActorRef,
    ActorSystem,
    Backoff,
    ChildSpec,
    Down,
    Event,
    ExitReason,
    ExitSignal,
    Intensity,
    Request,
    Restart,
    Strategy,
    Supervisor,
    handles,
)
from actors.runtime.cell import Cell
from actors.runtime.simulation import Simulation, run_simulation

T = TypeVar("T")
Scenario = Callable[[Simulation], Coroutine[Any, Any, object]]

#: Seeds, so interleavings, in which every rule is tried.
SEEDS = range(6)


def everywhere(scenario: Scenario, *, seeds: Sequence[int] = SEEDS) -> None:
    """Run a scenario in several interleavings on the virtual clock."""
    for seed in seeds:
        run_simulation(scenario, seed, limit=3600.0)


@dataclass(slots=True)
class Say:
    """Written into the journal."""

    text: str


@dataclass(slots=True)
class Call:
    """Run `function(actor)` as the handler; what it returns is awaited when it can be."""

    function: Callable[[Probe], object]


@dataclass(slots=True)
class Get(Request[Any]):
    """As `Call`; the result answers the ask."""

    function: Callable[[Probe], object]


@dataclass(slots=True)
class Stranger(Request[int]):
    """A message no probe has a handler for."""


class Probe(Actor):
    """Writes down what happens to it, and does what it is told.

    Args:
        journal: lines `<path> <what>`, shared by all probes of a test.
        on_init, on_continue, on_terminate: run in these hooks.
    """

    def __init__(
        self,
        journal: list[str],
        *,
        on_init: Callable[[Probe], Awaitable[None] | None] | None = None,
        on_continue: Callable[[Probe], Awaitable[None] | None] | None = None,
        on_terminate: Callable[[Probe, ExitReason], Awaitable[None] | None] | None = None,
    ) -> None:
        self.journal = journal
        self.on_init = on_init
        self.on_continue = on_continue
        self.on_terminate = on_terminate
        self.kept: list[object] = []

    def write(self, what: str) -> None:
        self.journal.append(f"{self.path} {what}")

    def init(self) -> Awaitable[None] | None:
        self.write("init")
        return self.on_init(self) if self.on_init is not None else None

    def continue_(self) -> Awaitable[None] | None:
        return self.on_continue(self) if self.on_continue is not None else None

    def terminate(self, reason: ExitReason) -> Awaitable[None] | None:
        self.write(f"terminate {reason.kind.value}")
        return self.on_terminate(self, reason) if self.on_terminate is not None else None

    @handles(Say)
    def _say(self, message: Say) -> None:
        self.write(message.text)

    @handles(Call)
    def _call(self, message: Call) -> object:
        return message.function(self)

    @handles(Get)
    def _get(self, message: Get) -> object:
        return message.function(self)

    @handles(Down)
    def _down(self, down: Down) -> None:
        self.write(f"down {down.path} {down.reason}")

    @handles(ExitSignal)
    def _exit_signal(self, signal: ExitSignal) -> None:
        self.write(f"exit {signal.path} {signal.reason}")


class TrappingProbe(Probe):
    """Hears of the ends of its links."""

    trap_exits = True


class Thing:
    """A resource that writes down its release."""

    def __init__(self, journal: list[str], name: str, *, fails: bool = False) -> None:
        self.journal = journal
        self.name = name
        self.fails = fails

    def abort(self) -> None:
        self.journal.append(f"released {self.name}")
        if self.fails:
            raise OSError(f"cannot release {self.name}")


#: Restarts that never wait and never run out.
AT_ONCE = Backoff(base=0.0)
MANY = Intensity(10_000, 1.0)


def probe(
    name: str,
    journal: list[str],
    *,
    kind: type[Probe] = Probe,
    restart: Restart = Restart.TEMPORARY,
    on_init: Callable[[Probe], Awaitable[None] | None] | None = None,
    on_continue: Callable[[Probe], Awaitable[None] | None] | None = None,
    on_terminate: Callable[[Probe, ExitReason], Awaitable[None] | None] | None = None,
    **more: Any,
) -> ChildSpec:
    """The spec of a probe; temporary and without restart delay unless told otherwise."""

    def make() -> Probe:
        return kind(journal, on_init=on_init, on_continue=on_continue, on_terminate=on_terminate)

    more.setdefault("backoff", AT_ONCE)
    return ChildSpec(name, make, restart, **more)


async def tree(
    sim: Simulation,
    *children: ChildSpec,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    intensity: Intensity = MANY,
    auto_shutdown: bool = False,
) -> ActorSystem:
    """A running system with these children below the root."""
    system = sim.system()
    await system.start(
        lambda: Supervisor(
            children, strategy=strategy, intensity=intensity, auto_shutdown=auto_shutdown
        )
    )
    return system


def at(system: ActorSystem, path: str) -> ActorRef:
    """The reference of a place that must exist."""
    ref = system.ref(path)
    assert ref is not None, f"nothing at {path}"
    return ref


def cell_at(system: ActorSystem, path: str) -> Cell:
    """The cell of a place that must exist."""
    cell = system.find(path)
    assert cell is not None, f"nothing at {path}"
    return cell


async def end_of(system: ActorSystem, ref: ActorRef, *, within: float = 60.0) -> Down:
    """Wait for the end of the incarnation that lives there."""
    future: asyncio.Future[Down] = system.loop.create_future()
    system.monitor(ref, future.set_result)
    async with asyncio.timeout(within):
        return await future


async def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait, in virtual time, until a condition holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.001)


def reports(sim: Simulation, path: str) -> list[Event]:
    """The `exited` events of a place, in order."""
    return [event for event in sim.log.events if event.kind == "exited" and event.path == path]


def decisions(sim: Simulation, path: str) -> list[object]:
    """What supervisors decided about a place, in order."""
    return [event.fields["decision"] for event in reports(sim, path)]


def kinds(sim: Simulation) -> list[str]:
    """The kinds of all events, in order."""
    return [event.kind for event in sim.log.events]


async def swallow(times: int, journal: list[str] | None = None) -> None:
    """Wait for ever, through that many cancellations."""
    while True:
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            if journal is not None:
                journal.append("swallowed" if times else "cancelled")
            if times <= 0:
                raise
            times -= 1


async def bury(system: ActorSystem) -> None:
    """End the tasks that were given up, as the simulation wants none left."""
    while system._corpses:
        for task in list(system._corpses):
            task.cancel()
        await asyncio.sleep(0.01)
