"""The runtime's record of one place in the tree, and the verbs that act on it.

A cell lives as long as its child spec does; the actor object, its task, resources, timers and
monitors belong to one incarnation of it. `life.py` holds the task's body and the exit sequence.

Rules:
1. Admission closes in the same loop turn in which an exit is decided (`open`).
2. Kill is not a message: it releases everything at once, then cancels the task until it ends.
3. Whatever an incarnation owned is gone before anybody hears of its death.

Source: docs/runtime.md sections 3 to 7.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import context, life
from .asks import Ask, Reply
from .child_spec import ChildSpec
from .errors import ActorDown, BadChildSpec
from .events import Event
from .lifecycle import State
from .mailbox import Mailbox, MailboxSpec, Overflow
from .messages import Down, ExitSignal
from .reasons import NOPROC, NORMAL, ExitKind, ExitReason, from_exception
from .ref import ActorRef
from .resources import ResourceSet
from .signals import ChildStarted, Crash, InjectedCrash, Stop, Tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import Actor
    from .system import ActorSystem
    from .timers import Timer
    from .tracing import Tracer

    Watcher = tuple["Cell", int] | Callable[[Down], None]

#: Seconds after `kill` at which the task is cancelled again, and when it is given up as undead.
KILL_RETRIES = (0.01, 0.1, 1.0)
UNDEAD_AFTER = 5.0


class Cell:
    """See the module docstring. Public attributes are read by the runtime and inspection only."""

    __slots__ = (
        "__weakref__",
        "_ref",
        "_start_waiters",
        "abort_reason",
        "actor",
        "asks_out",
        "busy",
        "children",
        "current_ask",
        "dead",
        "deferred",
        "exit_reason",
        "expired",
        "handled",
        "id",
        "incarnation",
        "initiator",
        "last_exit",
        "last_type",
        "links",
        "mailbox",
        "monitors",
        "names",
        "next_start",
        "open",
        "parent",
        "resources",
        "restarts",
        "spec",
        "started_at",
        "state",
        "suspended",
        "system",
        "task",
        "timers",
        "tracer",
        "watching",
    )

    def __init__(self, system: ActorSystem, parent: Cell | None, spec: ChildSpec) -> None:
        self.system = system
        self.parent = parent
        self.spec = spec
        self.id = spec.id
        self.state = State.NEW
        self.open = False
        self.suspended = False
        self.incarnation = 0
        self.restarts = 0
        self.next_start = 0.0
        self.started_at = 0.0
        self.handled = 0
        self.dead = 0
        self.expired = 0
        self.busy = 0.0
        self.asks_out = 0
        self.last_type: type | None = None
        self.actor: Actor | None = None
        self.task: asyncio.Task[None] | None = None
        self.mailbox: Mailbox = system.no_mailbox
        self.resources = ResourceSet()
        self.children: dict[str, Cell] | None = None
        self.current_ask: Ask | None = None
        self.deferred: dict[Ask, None] | None = None
        self.exit_reason: ExitReason | None = None
        self.abort_reason: ExitReason | None = None
        self.last_exit: ExitReason | None = None
        self.initiator = ""
        self.monitors: dict[int, Watcher] | None = None
        self.watching: dict[int, Cell] | None = None
        self.links: dict[Cell, None] | None = None
        self.timers: dict[object, Tick] | None = None
        self.names: list[str] | None = None
        self.tracer: Tracer | None = None
        self._start_waiters: list[asyncio.Future[None]] | None = None
        self._ref: ActorRef | None = None

    # Identity.

    @property
    def path(self) -> str:
        """The place in the tree."""
        parent = self.parent
        if parent is None:
            return "/"
        prefix = parent.path
        return f"{prefix}{self.id}" if prefix == "/" else f"{prefix}/{self.id}"

    @property
    def ref(self) -> ActorRef:
        """The one reference object of this cell."""
        if self._ref is None:
            self._ref = ActorRef(self)
        return self._ref

    @property
    def kind(self) -> str:
        """worker, supervisor, or what the spec says."""
        return self.spec.kind or ("worker" if self.children is None else "supervisor")

    def is_ancestor_of(self, other: Cell) -> bool:
        """True when `other` lives below this place (or is this place)."""
        cell: Cell | None = other
        while cell is not None:
            if cell is self:
                return True
            cell = cell.parent
        return False

    # Start.

    def start(self) -> None:
        """Begin a new incarnation. The caller is the supervisor."""
        system = self.system
        self.incarnation = system.next_incarnation()
        self.state = State.STARTING
        self.exit_reason = self.abort_reason = None
        self.initiator = ""
        self.started_at = system.loop.time()
        failure: Exception | None = None
        try:
            actor = self.spec.factory()
            actor._cell = self
            self.actor = actor
            if self.mailbox is system.no_mailbox:
                self.mailbox = make_mailbox(actor, system.loop.time)
        except Exception as exc:  # reported by the task as init_failed, like a failing init
            failure = exc
            if self.mailbox is system.no_mailbox:
                self.mailbox = Mailbox(MailboxSpec(), system.loop.time)
        self.open = True
        self.task = system.loop.create_task(
            life.live(self, failure), context=context.context_for(self)
        )

    def start_waiter(self) -> asyncio.Future[None]:
        """A future completed at the next successful start, failed when the place closes."""
        future: asyncio.Future[None] = self.system.loop.create_future()
        if self._start_waiters is None:
            self._start_waiters = []
        self._start_waiters.append(future)
        return future

    def announce_started(self) -> None:
        """`init` returned (for a supervisor: all children are up)."""
        if self._start_waiters is not None:
            waiters, self._start_waiters = self._start_waiters, None
            for future in waiters:
                if not future.done():
                    future.set_result(None)
        parent = self.parent
        if parent is not None and parent.state < State.STOPPING:
            parent.mailbox.offer_system(ChildStarted(self))

    # Stop, crash, kill.

    def request_exit(self, reason: ExitReason) -> None:
        """The actor itself wants to end after the current handler."""
        if self.exit_reason is None:
            self.exit_reason = reason
            self.mailbox.wake()

    def stop(self, reason: ExitReason, *, drain: bool = False) -> None:
        """Ask for a graceful end: now, or (`drain`) after what is queued."""
        if self.state in (State.STARTING, State.RUNNING, State.DRAINING):
            self.mailbox.offer_system(Stop(reason, drain))

    def crash(self, detail: str, initiator: str = "") -> bool:
        """Make the actor fail as if its own code had raised."""
        if not State.NEW < self.state < State.STOPPING:
            return False
        self.initiator = initiator
        error = InjectedCrash(detail)
        if self.mailbox.waiter is not None or self.suspended:
            self.mailbox.offer_system(Crash(error))
        else:  # in the middle of a handler: its await is interrupted
            self.abort(from_exception(ExitKind.CRASH, error))
        return True

    def kill(self, detail: str = "", initiator: str = "") -> bool:
        """End this incarnation without asking it. False when none lives."""
        if not State.NEW < self.state <= State.STOPPING or self.abort_reason is not None:
            return False
        self.abort(ExitReason(ExitKind.KILLED, detail, initiator=initiator))
        return True

    def abort(self, reason: ExitReason) -> None:
        """Close admission, release everything, then cancel the task until it ends."""
        if self.abort_reason is not None or not State.NEW < self.state <= State.STOPPING:
            return
        self.abort_reason = reason
        life.close_admission(self, reason)
        life.release(self, reason)
        task = self.task
        if task is None:
            return
        task.cancel()
        # A task cancelled before its first step never enters `live`, so it cannot finish itself.
        task.add_done_callback(self._ended_unstarted)
        incarnation = self.incarnation
        timers = self.system.timers
        for delay in KILL_RETRIES:
            timers.after(delay, lambda: self._cancel_again(incarnation))
        timers.after(UNDEAD_AFTER, lambda: self._give_up(incarnation))

    def _ended_unstarted(self, task: asyncio.Task[None]) -> None:
        if self.task is task:
            life.finish(self, self.abort_reason or NORMAL)

    def _cancel_again(self, incarnation: int) -> None:
        if self.incarnation == incarnation and self.task is not None:
            self.task.cancel()

    def _give_up(self, incarnation: int) -> None:
        """The task swallowed every cancellation: go on without the corpse, and say so."""
        if self.incarnation != incarnation or self.task is None:
            return
        self.system.undead += 1
        self.system.events.publish(Event("undead", self.path, incarnation))
        life.finish(self, self.abort_reason or NORMAL)

    def resource_failed(self, kind: str, error: Exception, incarnation: int) -> None:
        """A guarded callback or owned task raised: the actor's exit, unless it handles it."""
        if self.incarnation != incarnation or self.state >= State.STOPPING:
            return
        if self.actor is not None:
            try:
                if self.actor.on_resource_failed(kind, error):
                    return
            except Exception as exc:  # the handler of the failure failed: that is the report
                error = exc
        self.abort(from_exception(ExitKind.RESOURCE, error, kind))

    def close(self) -> None:
        """The place is gone for good: nobody will be started here again."""
        self.state = State.STOPPED
        self.open = False
        life.discard_mailbox(self, self.down_reason())
        life.notify_monitors(self, self.down_reason())
        if self._start_waiters is not None:
            waiters, self._start_waiters = self._start_waiters, None
            for future in waiters:
                if not future.done():
                    future.set_exception(ActorDown(self.path, self.incarnation, self.down_reason()))

    # Answers about a place where nobody runs.

    def down_reason(self) -> ExitReason:
        """What a caller hears when it asks here now."""
        if self.state is State.RESTARTING:
            wait = max(0.0, self.next_start - self.system.loop.time())
            return ExitReason(ExitKind.RESTARTING, f"in {wait:.2f} s")
        return self.abort_reason or self.last_exit or self.exit_reason or NOPROC

    def closed_because(self) -> str:
        """The word for a dead letter sent here now."""
        if self.state is State.RESTARTING:
            return "restarting"
        return "stopping" if self.state is State.STOPPING else "noproc"

    def dead_letter(self, message: object, why: str) -> None:
        """Count a message that reached nobody."""
        self.dead += 1
        sender = context.current()
        self.system.dead_letters.add(
            sender.path if sender is not None else "", self.path, message, why
        )

    # Suspend.

    def suspend(self) -> bool:
        """Stop serving the user lane; messages queue up to the bound."""
        if not State.NEW < self.state < State.STOPPING:
            return False
        self.suspended = True
        return True

    def resume(self) -> bool:
        """Serve the user lane again."""
        if not self.suspended:
            return False
        self.suspended = False
        self.mailbox.wake()
        return True

    # Asks answered later.

    def defer(self) -> Reply[Any]:
        """See `Actor.defer`."""
        ask = self.current_ask
        if ask is not None:
            if self.deferred is None:
                self.deferred = {}
            self.deferred[ask] = None
        return Reply(self, ask)

    def forget_deferred(self, ask: Ask) -> None:
        """The deferred ask was answered."""
        if self.deferred is not None:
            self.deferred.pop(ask, None)

    # Timers.

    def start_timer(self, delay: float, message: object, key: object) -> Timer:
        """See `Actor.start_timer`."""
        if self.timers is None:
            self.timers = {}
        tick = Tick(key, message)
        if key is None:
            tick.key = tick
        else:
            self.cancel_timer(key)
        incarnation = self.incarnation

        def fire() -> None:
            if self.incarnation == incarnation and self.open:
                self.mailbox.offer_reserved(tick)

        tick.timer = self.system.timers.after(delay, fire)
        self.timers[tick.key] = tick
        return tick.timer

    def cancel_timer(self, key: object) -> None:
        """See `Actor.cancel_timer`."""
        if self.timers is not None:
            tick = self.timers.pop(key, None)
            if tick is not None and tick.timer is not None:
                self.system.timers.cancel(tick.timer)

    def take_tick(self, tick: Tick) -> bool:
        """True when a due tick is still wanted; it is then used up."""
        if self.timers is None or self.timers.get(tick.key) is not tick:
            return False
        del self.timers[tick.key]
        return True

    # Monitors and links.

    def monitor(self, ref: ActorRef) -> int:
        """See `Actor.monitor`."""
        token = self.system.next_token()
        target = ref._resolve()
        if self.watching is None:
            self.watching = {}
        self.watching[token] = target
        if target.state in (State.STOPPED, State.STOPPING) and target.task is None:
            self.mailbox.offer_reserved(Down(token, target.path, target.incarnation, NOPROC))
        else:
            target.add_watcher(token, (self, self.incarnation))
        return token

    def add_watcher(self, token: int, watcher: Watcher) -> None:
        """Remember whom to tell about the end of the present (or next) incarnation."""
        if self.monitors is None:
            self.monitors = {}
        self.monitors[token] = watcher

    def demonitor(self, token: int) -> None:
        """See `Actor.demonitor`."""
        if self.watching is not None:
            target = self.watching.pop(token, None)
            if target is not None and target.monitors is not None:
                target.monitors.pop(token, None)

    def link(self, ref: ActorRef) -> None:
        """See `Actor.link`."""
        other = ref._resolve()
        if not State.NEW < other.state < State.STOPPING:
            self.exit_of_link(other.path, other.incarnation, NOPROC)
            return
        for one, two in ((self, other), (other, self)):
            if one.links is None:
                one.links = {}
            one.links[two] = None

    def unlink(self, ref: ActorRef) -> None:
        """See `Actor.unlink`."""
        other = ref._resolve()
        if self.links is not None:
            self.links.pop(other, None)
        if other.links is not None:
            other.links.pop(self, None)

    def exit_of_link(self, path: str, incarnation: int, reason: ExitReason) -> None:
        """A linked actor ended with `reason`."""
        if not State.NEW < self.state < State.STOPPING or not reason.abnormal:
            return
        if self.actor is not None and self.actor.trap_exits:
            self.mailbox.offer_system(ExitSignal(path, incarnation, reason))
        else:
            self.abort(ExitReason(ExitKind.LINKED, f"{path}: {reason}"))

    # Names.

    def register_name(self, name: str) -> None:
        """See `Actor.register_name`."""
        self.system.register_name(name, self)
        if self.names is None:
            self.names = []
        self.names.append(name)


def make_mailbox(actor: Actor, clock: Callable[[], float]) -> Mailbox:
    """The mailbox its class declares."""
    spec = type(actor).mailbox
    if spec.overflow is Overflow.COALESCE and spec.key is None:
        raise BadChildSpec(f"{type(actor).__name__}: COALESCE needs a key function")
    return Mailbox(spec, clock)
