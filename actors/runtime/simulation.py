"""A seeded event loop on a virtual clock: the main rig for testing what runs on this runtime.

Time advances only when nothing is ready, straight to the next timer, so an hour of backoffs runs
in milliseconds. Callbacks that are ready in the same loop iteration run in an order drawn from the
seed: one seed is one interleaving, and the same seed gives the same event log on the same Python
version. What cannot work on a virtual clock raises instead of hanging or lying:

- `Deadlock`: nothing is ready and no timer exists, so nothing can ever happen again;
- `Livelock`: the clock passed its limit, or stands still for MAX_TURNS loop iterations;
- `RealBlocking`: I/O, threads, `time.sleep`, or a callback that takes seconds of real time.

Source: docs/runtime.md section 10.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, SupportsIndex

from .events import Event
from .system import ActorSystem

#: Loop iterations without any progress of the clock after which it is a livelock.
MAX_TURNS: Final = 200_000
#: Virtual seconds one simulation may take, unless told otherwise.
MAX_SECONDS: Final = 24 * 3600.0
#: Real seconds one loop iteration may take.
MAX_REAL_SECONDS: Final = 5.0
#: Event fields that differ between machines, or say nothing about behaviour.
UNLOGGED_FIELDS: Final = frozenset({"traceback", "fingerprint"})


class SimulationFault(RuntimeError):
    """Root of what the simulated loop raises."""


class Deadlock(SimulationFault):
    """Nothing is ready and no timer is pending."""


class Livelock(SimulationFault):
    """It goes on for ever."""


class RealBlocking(SimulationFault):
    """Something needs the real world: I/O, a thread, a blocking call."""


class Leftovers(SimulationFault):
    """The scenario ended with tasks still running, or the loop reported a lost exception."""


class _VirtualSelector(selectors.BaseSelector):
    """Waits for nothing: moves the clock instead."""

    def __init__(self) -> None:
        self.loop: SimulationLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        self.loop.take_turn(timeout)
        return []

    def register(self, fileobj: object, events: int, data: object = None) -> NoReturn:
        raise RealBlocking(f"real I/O on {fileobj!r}")

    def unregister(self, fileobj: object) -> NoReturn:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SimulationLoop(asyncio.SelectorEventLoop):
    """A seeded event loop on a virtual clock: the main rig for testing what runs on this runtime.

    Args:
        seed: draws the order of callbacks that are ready together.
        limit: virtual seconds after which it is a `Livelock`.
    """

    def __init__(self, seed: int, *, limit: float = MAX_SECONDS) -> None:
        self._now = 0.0
        self._limit = limit
        self._order = random.Random(f"{seed} order")
        self._turns_at = 0.0
        self._still = 0
        self._turn_began = time.perf_counter()
        #: Loop iterations so far.
        self.turns = 0
        selector = _VirtualSelector()
        super().__init__(selector)
        selector.loop = self

    def run_forever(self) -> None:
        """As every loop; real time that passed while it did not run is nobody's fault."""
        self._turn_began = time.perf_counter()
        super().run_forever()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def take_turn(self, timeout: float | None) -> None:
        """Before the callbacks of one iteration: order them, or move the clock."""
        self._check_progress()
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]  # BaseEventLoop's
        if len(ready) > 1:
            handles = list(ready)
            self._order.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        if timeout is None:
            raise Deadlock(f"at {self._now:.3f} s nothing is ready and no timer is pending")
        if timeout > 0:
            # Straight to the timer: adding `timeout` could miss it by a rounding error.
            scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # BaseEventLoop's
            self._now = max(self._now, scheduled[0].when())
            if self._now > self._limit:
                raise Livelock(f"still running after {self._limit:g} virtual seconds")

    def _check_progress(self) -> None:
        self.turns += 1
        began, self._turn_began = self._turn_began, time.perf_counter()
        if self._turn_began - began > MAX_REAL_SECONDS:
            raise RealBlocking(f"one iteration took {self._turn_began - began:.1f} real seconds")
        if self._now != self._turns_at:
            self._turns_at, self._still = self._now, 0
        self._still += 1
        if self._still > MAX_TURNS:
            raise Livelock(f"{MAX_TURNS} iterations at {self._now:.3f} s, the clock stands still")

    def run_in_executor(self, executor: object, func: object, *args: object) -> NoReturn:
        """No threads here."""
        raise RealBlocking(f"{func!r} wants a thread")

    # The self-pipe wakes a selector from other threads and signals: there are none.

    def _make_self_pipe(self) -> None: ...

    def _close_self_pipe(self) -> None: ...

    def _write_to_self(self) -> None: ...


@dataclass(slots=True)
class EventLog:
    """What happened in one simulation."""

    seed: int
    lines: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: Virtual seconds, and loop iterations.
    seconds: float = 0.0
    turns: int = 0

    @property
    def digest(self) -> str:
        """Equal for equal logs."""
        return hashlib.sha256("\n".join(self.lines).encode("utf-8", "replace")).hexdigest()


class Simulation:
    """What a scenario gets: its loop, its random source, and systems whose events are logged."""

    def __init__(self, loop: SimulationLoop, seed: int) -> None:
        self.loop = loop
        #: For the scenario's own choices.
        self.rng = random.Random(f"{seed} scenario")
        self.log = EventLog(seed)
        #: What the loop's exception handler was told.
        self.problems: list[str] = []

    def system(self, name: str = "sim") -> ActorSystem:
        """A new actor system on the virtual clock. Call it inside the scenario."""
        system = ActorSystem(name, seed=self.rng.getrandbits(32), wall_clock=self.loop.time)
        system.events.subscribe(self._on_event)
        return system

    def record(self, line: str) -> None:
        """Add a line of the scenario's own to the log."""
        self.log.lines.append(f"{self.loop.time():.6f} {line}")

    def _on_event(self, event: Event) -> None:
        self.log.events.append(event)
        parts = [f"{key}={event.fields[key]}" for key in event.fields if key not in UNLOGGED_FIELDS]
        self.record(f"{event.kind} {event.path} #{event.incarnation} {' '.join(parts)}".rstrip())

    def _on_problem(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")


Scenario = Callable[[Simulation], Coroutine[Any, Any, object]]


def run_simulation(scenario: Scenario, seed: int, *, limit: float = MAX_SECONDS) -> EventLog:
    """Run `scenario(simulation)` on a fresh simulated loop and return its event log.

    Raises:
        Deadlock, Livelock, RealBlocking: see the module docstring.
        Leftovers: tasks were still running at the end, or an exception was lost.
    """
    loop = SimulationLoop(seed, limit=limit)
    simulation = Simulation(loop, seed)
    loop.set_exception_handler(simulation._on_problem)
    tasks: list[str] = []

    async def main() -> None:
        await scenario(simulation)
        await asyncio.sleep(0)  # what was cancelled last may take its last step
        this = asyncio.current_task()
        tasks.extend(task.get_name() for task in asyncio.all_tasks() if task is not this)

    with _no_sleeping(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
        simulation.log.seconds, simulation.log.turns = loop.time(), loop.turns
    if tasks or simulation.problems:
        raise Leftovers(f"seed {seed}: tasks {sorted(tasks)}, problems {simulation.problems}")
    return simulation.log


@contextmanager
def _no_sleeping() -> Iterator[None]:
    """`time.sleep` in this thread raises: it would hold up the loop for nothing."""
    real, thread = time.sleep, threading.get_ident()

    def sleep(seconds: float | SupportsIndex, /) -> None:
        if threading.get_ident() == thread:
            raise RealBlocking(f"time.sleep({seconds})")
        real(seconds)

    time.sleep = sleep
    try:
        yield
    finally:
        time.sleep = real
