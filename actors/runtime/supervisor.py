"""Static supervisors: an ordered list of children and a strategy.

The supervisor is a small convergence machine. Events (a child started, a child ended, a restart
delay is over, a stop was asked for) change what is wanted; `_converge` then takes the next step:
first stops, last child first and one at a time; then starts, first child first. It never waits
inside a handler, so a stop, a kill or another exit always gets through, also in the middle of a
restart or of the first start.

The order of `children` is start order; everything that stops goes through it backwards.

Source: docs/runtime.md section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from .actor import Actor, handles
from .cell import Cell
from .child_spec import ChildSpec, Restart
from .errors import BadChildSpec
from .events import Event
from .lifecycle import State
from .reasons import ExitKind, ExitReason, shutdown
from .restart import Intensity, RestartWindow
from .signals import CancelRestart, ChildExited, ChildStarted, RestartNow


class Strategy(Enum):
    """Who is restarted when one child has to be."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class _WakeUp:
    """A restart delay is over."""

    __slots__ = ()


class _Child:
    """What the supervisor wants of one child, beside what its cell knows."""

    __slots__ = ("alive", "attempts", "cell", "regroup", "restart_at", "stop_sent", "wanted")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.alive = False  # from its start until its ChildExited was served
        self.wanted = True  # should run
        self.regroup = False  # must stop first, because of a sibling
        self.stop_sent = False
        self.attempts = 0
        self.restart_at = 0.0


class Supervisor(Actor):
    """An actor whose only work is its children.

    Args:
        children: specs in start order.
        strategy: see `Strategy`.
        intensity: restarts it may spend; one more and it exits with `escalated`.
        auto_shutdown: end with `shutdown` when a significant child ends for good.

    Raises:
        BadChildSpec: duplicate or illegal child specs.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008  # frozen value
        auto_shutdown: bool = False,
    ) -> None:
        ids = [spec.id for spec in children]
        if len(set(ids)) != len(ids):
            raise BadChildSpec(f"duplicate child ids in {ids}")
        for spec in children:
            spec.check()
        self._specs = tuple(children)
        self._strategy = strategy
        self._window = RestartWindow(intensity)
        self._auto_shutdown = auto_shutdown
        self._children: list[_Child] = []
        self._closing: ExitReason | None = None
        self._announced = False

    @property
    def strategy_word(self) -> str:
        """The strategy, as the inspector shows it."""
        return self._strategy.value

    def init(self) -> None:
        """Create the children's cells and begin to start them."""
        cell = self._cell
        cell.children = {}
        for spec in self._specs:
            child = Cell(cell.system, cell, spec)
            cell.children[spec.id] = child
            self._children.append(_Child(child))

    def continue_(self) -> None:
        """Take the first step."""
        self._converge()

    def describe(self) -> dict[str, object]:
        """Strategy, restart window and what each child waits for."""
        now = self.now()
        return {
            "strategy": self._strategy.value,
            "window": self._window.describe(now),
            "closing": str(self._closing) if self._closing else "",
            "waiting": {
                child.cell.id: round(max(0.0, child.restart_at - now), 3)
                for child in self._children
                if child.wanted and not child.alive
            },
        }

    def on_stop(self, reason: ExitReason) -> bool:
        """Stop the children in reverse order; the supervisor ends when the last one did."""
        self._close(reason)
        return False

    @handles(ChildStarted)
    def _child_started(self, event: ChildStarted) -> None:
        if event.incarnation == event.cell.incarnation:
            self._converge()

    @handles(ChildExited)
    def _child_exited(self, event: ChildExited) -> None:
        child = self._find(event.cell)
        if child is None or event.incarnation != event.cell.incarnation:
            return
        child.alive = child.stop_sent = False
        cell, reason, uptime = event.cell, event.reason, event.uptime
        restart = cell.spec.restart
        if self._closing is not None:
            self._report(child, reason, uptime, "stopped")
            cell.close()
        elif reason.kind is ExitKind.REFUSED and self.system.starting:
            self._report(child, reason, uptime, "start refused")
            self._close(reason)
        elif child.regroup and restart is not Restart.TEMPORARY:
            cell.state = State.RESTARTING
            self._report(child, reason, uptime, "restart with group")
        elif cell.renew or (
            not child.regroup
            and (restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and reason.abnormal))
        ):
            self._plan_restart(child, reason, uptime)
        else:
            self._remove(child, reason, uptime)
        child.regroup = False
        self._converge()

    @handles(_WakeUp)
    def _wake_up(self, _: _WakeUp) -> None:
        self._converge()

    @handles(RestartNow)
    def _restart_now(self, order: RestartNow) -> None:
        child = self._find(order.cell)
        if child is not None and order.cell.state is State.RESTARTING:
            child.restart_at = order.cell.next_start = 0.0
            self._converge()

    @handles(CancelRestart)
    def _cancel_restart(self, order: CancelRestart) -> None:
        child = self._find(order.cell)
        if child is not None and order.cell.state is State.RESTARTING:
            child.wanted = False
            order.cell.close()
            self.system.events.publish(
                Event("removed", order.cell.path, order.cell.incarnation, {"supervisor": self.path})
            )
            self._converge()

    def _find(self, cell: Cell) -> _Child | None:
        return next((child for child in self._children if child.cell is cell), None)

    def _plan_restart(self, child: _Child, reason: ExitReason, uptime: float) -> None:
        """Spend one restart, or give up; with it goes the group the strategy names."""
        now = self.now()
        cell = child.cell
        cell.state = State.RESTARTING
        delay = 0.0
        if not cell.renew:
            if uptime >= cell.spec.backoff.stable_after:
                child.attempts = 0
            child.attempts += 1
            if not self._window.attempt(now):
                self._escalate(child, reason, uptime)
                return
            delay = cell.spec.backoff.delay(child.attempts, self.system.rng.uniform)
        child.restart_at = cell.next_start = now + delay
        siblings = self._children
        if self._strategy is Strategy.REST_FOR_ONE:
            siblings = siblings[siblings.index(child) + 1 :]
        group = [] if self._strategy is Strategy.ONE_FOR_ONE else siblings
        stopped = [sibling for sibling in group if sibling is not child and sibling.alive]
        for sibling in stopped:
            sibling.regroup = True
        if cell.renew:
            decision = "restart now"  # an operator's: it does not count
        else:
            decision = f"restart in {delay:.3f} s" if delay else "restart"
        self._report(child, reason, uptime, decision, siblings_stopped=len(stopped))

    def _escalate(self, child: _Child, reason: ExitReason, uptime: float) -> None:
        limits = self._window.intensity
        detail = f"{child.cell.id}: more than {limits.restarts} restarts in {limits.period:g} s"
        self._report(child, reason, uptime, "escalate")
        self.system.events.publish(
            Event("escalated", self.path, self.incarnation, {"detail": detail})
        )
        self._close(ExitReason(ExitKind.ESCALATED, detail))

    def _remove(self, child: _Child, reason: ExitReason, uptime: float) -> None:
        child.wanted = False
        cell = child.cell
        self._report(child, reason, uptime, "remove")
        cell.close()
        if cell.spec.significant and self._auto_shutdown and not child.regroup:
            self._close(shutdown(f"significant child {cell.id} ended"))

    def _report(
        self,
        child: _Child,
        reason: ExitReason,
        uptime: float,
        decision: str,
        *,
        siblings_stopped: int = 0,
    ) -> None:
        self.system.reporter.exited(
            self._cell,
            child.cell,
            reason,
            uptime,
            decision,
            attempt=child.attempts,
            window=self._window.describe(self.now()),
            siblings_stopped=siblings_stopped,
        )

    def _close(self, reason: ExitReason) -> None:
        if self._closing is None:
            self._closing = reason
            for child in self._children:
                child.wanted = False
        self._converge()

    # The machine.

    def _converge(self) -> None:
        """Take every step that is possible now: 1 stops, 2 the own end, 3 starts."""
        for child in reversed(self._children):
            if child.alive and (child.regroup or self._closing is not None):
                if not child.stop_sent:
                    child.stop_sent = True
                    child.cell.stop_within_deadline(self._stop_reason())
                return
        if self._closing is not None:
            for child in reversed(self._children):
                child.cell.close()
            self.stop(self._closing)
            return
        soonest = self._start_children()
        if soonest:
            # Never zero: a delay may be over by less than the clock can tell.
            self.start_timer(max(soonest - self.now(), 0.001), _WakeUp(), "converge")

    def _stop_reason(self) -> ExitReason:
        if self._closing is None:
            return shutdown("restart with group")
        if self._closing.kind is ExitKind.REFUSED:
            return shutdown("start refused")  # the sentence is about another child
        return self._closing

    def _start_children(self) -> float:
        """Start whoever may run now. Returns when the next restart delay ends, 0 for none."""
        # During the first start, and within a group, a child waits for the ones before it.
        ordered = self._strategy is not Strategy.ONE_FOR_ONE or not self._announced
        now = self.now()
        soonest = 0.0
        all_up = True
        for child in self._children:
            cell = child.cell
            if not child.wanted:
                continue
            if child.alive:
                if self._is_up(cell):
                    continue
            elif child.restart_at > now:
                soonest = min(soonest or child.restart_at, child.restart_at)
            else:
                if cell.state is State.RESTARTING:
                    cell.restarts += 1
                child.alive = True
                cell.start()
            all_up = False
            if ordered:
                break
        if all_up and not self._announced:
            self._announced = True
            self._cell.announce_started()
        return soonest

    @staticmethod
    def _is_up(cell: Cell) -> bool:
        if cell.state is not State.RUNNING:
            return False
        return cell.children is None or getattr(cell.actor, "_announced", True) is True
