"""Dynamic supervisors: many children of one kind, keyed, unordered, cheap.

`start_child` is synchronous: the child's place exists and takes messages when it returns. Each
child key has its own restart window, so that one hostile client can only end itself: over its
limit the child `gave_up` and is removed. A storm breaker for the whole supervisor pauses all
restarts (doubling from 1 to 30 s, no escalation) while too many children fail at once.

Bound: `max_children`; one more is refused with `full`.

Source: docs/runtime.md section 7.
"""

from __future__ import annotations

from typing import Final

from .actor import Actor, handles
from .cell import Cell
from .child_spec import ChildSpec, Restart
from .errors import ChildRefused
from .events import Event
from .lifecycle import State
from .reasons import ExitReason
from .ref import ActorRef
from .restart import Intensity, RestartWindow, StormBreaker
from .signals import CancelRestart, ChildExited, RestartNow

#: Children asked to stop at the same time when the supervisor itself stops.
PARALLEL_STOPS: Final = 64


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
    """Dynamic supervisors: many children of one kind, keyed, unordered, cheap.

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
        self._storm = StormBreaker()
        self._closing: ExitReason | None = None
        self._stopping: set[str] = set()
        self._to_stop: list[str] = []
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
            "storm_for": round(self._storm.remaining(self.now()), 3),
        }

    def start_child(self, spec: ChildSpec) -> ActorRef:
        """Start a child now. Called through `ActorSystem.start_child`.

        Raises:
            ChildRefused: duplicate id, full, or stopping.
            BadChildSpec: the spec can never work.
        """
        children = self._cell.children
        if children is None or self._closing is not None or self._cell.released:
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
        """Stop all children, `PARALLEL_STOPS` at a time, last started first."""
        if self._closing is None:
            self._closing = reason
            for cell in list((self._cell.children or {}).values()):
                if cell.state is State.RESTARTING:
                    self._remove(cell)
            self._to_stop = list(self._cell.children or ())
            self._stop_more()
        return False

    def _stop_more(self) -> None:
        children = self._cell.children
        assert children is not None
        assert self._closing is not None
        while self._to_stop and len(self._stopping) < PARALLEL_STOPS:
            cell = children.get(self._to_stop.pop())
            if cell is not None and cell.task is not None:
                self._stopping.add(cell.id)
                cell.stop_within_deadline(self._closing)
        if not children:
            self.stop(self._closing)

    def _remove(self, cell: Cell) -> None:
        children = self._cell.children
        if children is not None and children.get(cell.id) is cell:
            del children[cell.id]
        self._records.pop(cell.id, None)
        self._stopping.discard(cell.id)
        self.cancel_timer(cell)
        cell.close()

    @handles(ChildExited)
    def _child_exited(self, event: ChildExited) -> None:
        cell, reason = event.cell, event.reason
        if not self._has(cell) or event.incarnation != cell.incarnation:
            return
        reporter = self.system.reporter
        if self._closing is not None:
            reporter.exited(self._cell, cell, reason, event.uptime, "stopped")
            self._remove(cell)
            self._stop_more()
            return
        restart = cell.spec.restart
        if not (
            cell.renew
            or restart is Restart.PERMANENT
            or (restart is Restart.TRANSIENT and reason.abnormal)
        ):
            reporter.exited(self._cell, cell, reason, event.uptime, "remove")
            self._remove(cell)
            return
        self._plan_restart(cell, reason, event.uptime)

    def _plan_restart(self, cell: Cell, reason: ExitReason, uptime: float) -> None:
        now = self.now()
        record = self._records.get(cell.id)
        if record is None:
            record = self._records[cell.id] = _Record(self._intensity)
        cell.state = State.RESTARTING
        delay = 0.0
        decision = "restart now"  # an operator's: it does not count
        if not cell.renew:
            decision = "restart"
            if uptime >= cell.spec.backoff.stable_after:
                record.attempts = 0
            record.attempts += 1
            if record.window.attempt(now):
                delay = cell.spec.backoff.delay(record.attempts, self.system.rng.uniform)
                delay = max(delay, self._storm_delay(now))
                if delay:
                    decision = f"restart in {delay:.3f} s"
            else:
                decision = "give up"
        self.system.reporter.exited(
            self._cell,
            cell,
            reason,
            uptime,
            decision,
            attempt=record.attempts,
            window=record.window.describe(now),
        )
        if decision == "give up":
            self.gave_up += 1
            fields: dict[str, object] = {"reason": str(reason)}
            self.system.events.publish(Event("gave_up", cell.path, cell.incarnation, fields))
            self._remove(cell)
            return
        cell.next_start = now + delay
        if delay:
            self.start_timer(delay, _Due(cell), cell)
        else:
            self._restart(cell)

    def _storm_delay(self, now: float) -> float:
        """Record a restart; seconds it has to wait because too many actors fail at once."""
        pause = self._storm.restart(now, len(self._cell.children or ()))
        if pause:
            fields: dict[str, object] = {"pause": pause}
            self.system.events.publish(Event("storm", self.path, self.incarnation, fields))
        return self._spread(self._storm.remaining(now))

    def _spread(self, pause: float) -> float:
        """The end of a pause, spread over up to a second: no herd at its end."""
        return pause + self.system.rng.uniform(0.0, min(1.0, pause)) if pause else 0.0

    @handles(_Due)
    def _restart_due(self, due: _Due) -> None:
        cell = due.cell
        if self._closing is not None or not self._has(cell) or cell.state is not State.RESTARTING:
            return
        now = self.now()
        pause = self._spread(self._storm.remaining(now))
        if pause:  # a storm broke out while it waited
            cell.next_start = now + pause
            self.start_timer(pause, due, cell)
        else:
            self._restart(cell)

    @handles(RestartNow)
    def _restart_now(self, order: RestartNow) -> None:
        cell = order.cell
        if self._closing is None and self._has(cell) and cell.state is State.RESTARTING:
            self.cancel_timer(cell)
            self._restart(cell)

    @handles(CancelRestart)
    def _cancel_restart(self, order: CancelRestart) -> None:
        cell = order.cell
        if self._has(cell) and cell.state is State.RESTARTING:
            fields: dict[str, object] = {"supervisor": self.path}
            self.system.events.publish(Event("removed", cell.path, cell.incarnation, fields))
            self._remove(cell)

    def _has(self, cell: Cell) -> bool:
        children = self._cell.children
        return children is not None and children.get(cell.id) is cell

    @staticmethod
    def _restart(cell: Cell) -> None:
        cell.restarts += 1
        cell.start()
