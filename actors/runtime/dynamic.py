"""Dynamic supervisors: many children of one kind, keyed, unordered, cheap.

`start_child` is synchronous: the child's place exists and takes messages when it returns. Each
child key has its own restart window, so that one hostile client can only end itself: over its
limit the child `gave_up` and is removed. A storm breaker for the whole supervisor pauses all
restarts (doubling from 1 to 30 s, no escalation) after more than `STORM_RESTARTS` in `STORM_PERIOD`
seconds.

Bound: `max_children`; one more is refused with `full`.

Source: docs/runtime.md section 7.
"""

from __future__ import annotations

from collections import deque

from .actor import Actor, handles
from .cell import Cell
from .child_spec import UNBOUNDED, ChildSpec, Restart
from .errors import ChildRefused
from .events import Event
from .lifecycle import State
from .reasons import ExitReason, shutdown
from .ref import ActorRef
from .restart import Intensity, RestartWindow
from .signals import ChildExited, ChildStarted
from .supervisor import shutdown_seconds

STORM_RESTARTS = 50
STORM_PERIOD = 10.0
STORM_PAUSE = 1.0
STORM_PAUSE_CAP = 30.0
#: Children asked to stop at the same time when the supervisor itself stops.
PARALLEL_STOPS = 64


class _Record:
    """Restart book-keeping of a child that was restarted at least once."""

    __slots__ = ("attempts", "window")

    def __init__(self, intensity: Intensity) -> None:
        self.window = RestartWindow(intensity)
        self.attempts = 0


class _Due:
    """The restart delay of a child is over."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


class DynamicSupervisor(Actor):
    """See the module docstring.

    Args:
        max_children: most children at any time.
        intensity: restarts per child key before it is given up.
    """

    def __init__(
        self,
        *,
        max_children: int = 100_000,
        intensity: Intensity = Intensity(3, 10.0),  # noqa: B008  # frozen value
    ) -> None:
        self._max_children = max_children
        self._intensity = intensity
        self._records: dict[str, _Record] = {}
        self._closing: ExitReason | None = None
        self._stopping: set[str] = set()
        self._to_stop: list[str] = []
        self._recent: deque[float] = deque(maxlen=STORM_RESTARTS + 1)
        self._storm_until = 0.0
        self._storm_pause = STORM_PAUSE
        self.gave_up = 0
        self.started = 0

    #: As the inspector shows it.
    strategy_word = "dynamic"

    def init(self) -> None:
        """No children yet."""
        self._cell.children = {}

    def continue_(self) -> None:
        """A dynamic supervisor is up as soon as it runs."""
        self._cell.announce_started()

    def describe(self) -> dict[str, object]:
        """Limits and counters."""
        return {
            "strategy": "dynamic",
            "children": len(self._cell.children or ()),
            "max_children": self._max_children,
            "started": self.started,
            "gave_up": self.gave_up,
            "storm_for": round(max(0.0, self._storm_until - self.now()), 3),
        }

    def start_child(self, spec: ChildSpec) -> ActorRef:
        """Start a child now. Called through `ActorSystem.start_child`.

        Raises:
            ChildRefused: duplicate id, full, or stopping.
            BadChildSpec: the spec can never work.
        """
        children = self._cell.children
        if children is None or self._closing is not None:
            raise ChildRefused(self.path, spec.id, "stopping")
        if spec.id in children:
            raise ChildRefused(self.path, spec.id, "duplicate")
        if len(children) >= self._max_children:
            raise ChildRefused(self.path, spec.id, "full")
        spec.check()
        cell = children[spec.id] = Cell(self._cell.system, self._cell, spec)
        self.started += 1
        cell.start()
        return cell.ref

    def on_stop(self, reason: ExitReason) -> bool:
        """Stop all children, `PARALLEL_STOPS` at a time."""
        if self._closing is None:
            self._closing = reason
            self._to_stop = list(self._cell.children or ())
            for cell in list((self._cell.children or {}).values()):
                if cell.state is State.RESTARTING:
                    self._remove(cell)
            self._stop_more()
        return False

    def _stop_more(self) -> None:
        children = self._cell.children
        assert children is not None
        while self._to_stop and len(self._stopping) < PARALLEL_STOPS:
            cell = children.get(self._to_stop.pop())
            if cell is not None and cell.task is not None:
                self._stopping.add(cell.id)
                self._stop_child(cell)
        if not children and self._closing is not None:
            self.stop(self._closing)

    def _stop_child(self, cell: Cell) -> None:
        deadline = shutdown_seconds(cell)
        if deadline <= 0:
            cell.kill("brutal kill")
            return
        cell.stop(self._closing or shutdown(""))
        if deadline != UNBOUNDED:
            incarnation = cell.incarnation

            def overdue() -> None:
                if cell.incarnation == incarnation:
                    cell.kill(f"after {deadline:g} s")

            self.system.timers.after(deadline, overdue)

    def _remove(self, cell: Cell) -> None:
        children = self._cell.children
        if children is not None and children.get(cell.id) is cell:
            del children[cell.id]
        self._records.pop(cell.id, None)
        self._stopping.discard(cell.id)
        cell.close()

    @handles(ChildStarted)
    def _child_started(self, event: ChildStarted) -> None:
        """Nothing waits for a dynamic child."""

    @handles(ChildExited)
    def _child_exited(self, event: ChildExited) -> None:
        cell, reason = event.cell, event.reason
        children = self._cell.children
        if (
            children is None
            or children.get(cell.id) is not cell
            or event.incarnation != cell.incarnation
        ):
            return
        reporter = self.system.reporter
        if self._closing is not None:
            reporter.exited(self._cell, cell, reason, event.uptime, "stopped")
            self._remove(cell)
            self._stop_more()
            return
        restart = cell.spec.restart
        if not (restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and reason.abnormal)):
            reporter.exited(self._cell, cell, reason, event.uptime, "remove")
            self._remove(cell)
            return
        now = self.now()
        record = self._records.get(cell.id)
        if record is None:
            record = self._records[cell.id] = _Record(self._intensity)
        if event.uptime >= cell.spec.backoff.stable_after:
            record.attempts = 0
        record.attempts += 1
        cell.state = State.RESTARTING
        if not record.window.attempt(now):
            self.gave_up += 1
            reporter.exited(self._cell, cell, reason, event.uptime, "give up")
            self.system.events.publish(
                Event("gave_up", cell.path, cell.incarnation, {"reason": str(reason)})
            )
            self._remove(cell)
            return
        delay = cell.spec.backoff.delay(record.attempts, self.system.rng.uniform)
        delay = max(delay, self._storm_delay(now))
        cell.next_start = now + delay
        decision = f"restart in {delay:.3f} s" if delay else "restart"
        reporter.exited(self._cell, cell, reason, event.uptime, decision)
        if delay:
            self.start_timer(delay, _Due(cell), ("restart", cell.id))
        else:
            self._restart(cell)

    def _storm_delay(self, now: float) -> float:
        """Seconds every restart has to wait because too many actors restart at once."""
        self._recent.append(now)
        if now < self._storm_until:
            return self._storm_until - now
        if len(self._recent) <= STORM_RESTARTS or now - self._recent[0] > STORM_PERIOD:
            if self._storm_until and now - self._storm_until > STORM_PERIOD:
                self._storm_pause, self._storm_until = STORM_PAUSE, 0.0
            return 0.0
        pause = self._storm_pause
        self._storm_pause = min(STORM_PAUSE_CAP, pause * 2)
        self._storm_until = now + pause
        self._recent.clear()
        self.system.events.publish(Event("storm", self.path, self.incarnation, {"pause": pause}))
        return pause

    @handles(_Due)
    def _restart_due(self, due: _Due) -> None:
        cell = due.cell
        if self._closing is None and cell.state is State.RESTARTING:
            self._restart(cell)

    @staticmethod
    def _restart(cell: Cell) -> None:
        cell.restarts += 1
        cell.start()
