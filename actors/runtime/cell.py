"""The runtime's record of one place in the tree, and the verbs that act on it.

A cell lives as long as its child spec does; the actor object, its task, resources, timers and
monitors belong to one incarnation of it. `life.py` holds the task's body, `ending.py` the exit
sequence, `monitor.py` monitors and links.

Rules:
1. Admission closes in the same loop turn in which an exit is decided (`open`).
2. Kill is not a message: it releases everything at once, then cancels the task until it ends.
3. Whatever an incarnation owned is gone before anybody hears of its death, and from then on
   (`released`) it cannot acquire anything, even while its code still runs.
4. Every message the mailbox accepted is counted once:
   received = handled + expired + failed + dropped + (dead - late) + queued.

Source: docs/runtime.md sections 3 to 8.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import context, ending, life
from .asks import Ask, Reply
from .child_spec import UNBOUNDED, ChildSpec
from .errors import ActorDown, BadChildSpec, StartRefused
from .lifecycle import State
from .mailbox import Mailbox, MailboxSpec, Overflow
from .monitor import notify_monitors
from .reasons import NOPROC, ExitKind, ExitReason, from_exception
from .ref import ActorRef
from .resources import NO_RESOURCES, Resource, ResourceSet
from .signals import ChildStarted, Crash, InjectedCrash, Stop, Tick
from .timers import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import Actor
    from .ending import Remains
    from .monitor import Watcher
    from .system import ActorSystem
    from .tracing import Tracer


class Cell:
    """The runtime's record of one place in the tree, and the verbs that act on it. Public
    attributes are read by the runtime and inspection only.
    """

    __slots__ = (
        "__weakref__",
        "_path",
        "_ref",
        "_start_waiters",
        "abort_reason",
        "actor",
        "asks_out",
        "begun",
        "busy",
        "children",
        "current_ask",
        "dead",
        "deferred",
        "doom",
        "exit_reason",
        "expired",
        "failed",
        "handled",
        "id",
        "incarnation",
        "initiator",
        "last_exit",
        "last_type",
        "late",
        "links",
        "mailbox",
        "monitors",
        "names",
        "next_start",
        "open",
        "parent",
        "released",
        "remains",
        "renew",
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
        self.released = True
        #: The task of this incarnation took its first step.
        self.begun = False
        self.suspended = False
        self.incarnation = 0
        self.restarts = 0
        self.next_start = 0.0
        self.started_at = 0.0
        #: Messages taken from the user lane and given to a handler.
        self.handled = 0
        #: Dead letters of this place, and those of them that its mailbox never accepted.
        self.dead = 0
        self.late = 0
        #: Asks, ticks and `Down`s nobody wanted any more when their turn came.
        self.expired = 0
        #: Asks that were queued when an incarnation ended.
        self.failed = 0
        self.busy = 0.0
        self.asks_out = 0
        self.last_type: type | None = None
        self.actor: Actor | None = None
        self.task: asyncio.Task[None] | None = None
        self.mailbox: Mailbox = system.no_mailbox
        self.resources = NO_RESOURCES
        self.children: dict[str, Cell] | None = None
        self.current_ask: Ask | None = None
        self.deferred: dict[Ask, None] | None = None
        self.exit_reason: ExitReason | None = None
        self.abort_reason: ExitReason | None = None
        self.last_exit: ExitReason | None = None
        self.remains: Remains | None = None
        self.initiator = ""
        #: An operator wants a new incarnation after this one's end, whatever its restart type.
        self.renew = False
        #: The pending shutdown deadline, or the next cancellation of a killed task.
        self.doom: Timer | None = None
        self.monitors: dict[int, Watcher] | None = None
        self.watching: dict[int, Cell] | None = None
        self.links: dict[Cell, None] | None = None
        self.timers: dict[object, Tick] | None = None
        self.names: list[str] | None = None
        self.tracer: Tracer | None = None
        self._start_waiters: list[asyncio.Future[bool]] | None = None
        self._ref: ActorRef | None = None
        self._path = ""

    # Identity.

    @property
    def path(self) -> str:
        """The place in the tree."""
        path = self._path
        if not path:
            parent = self.parent
            if parent is None:
                path = "/"
            else:
                prefix = parent._path or parent.path
                path = f"/{self.id}" if prefix == "/" else f"{prefix}/{self.id}"
            self._path = path
        return path

    @property
    def ref(self) -> ActorRef:
        """The one reference object of this cell; a place that is gone keeps none."""
        ref = self._ref
        if ref is None:
            ref = ActorRef(self)
            if self.state is not State.STOPPED:
                self._ref = ref
        return ref

    @property
    def kind(self) -> str:
        """worker, supervisor, or what the spec says."""
        return self.spec.kind or ("worker" if self.children is None else "supervisor")

    @property
    def living(self) -> bool:
        """True while an incarnation is starting, running or draining."""
        return State.NEW < self.state < State.STOPPING

    @property
    def shutdown_seconds(self) -> float:
        """The shutdown deadline: the spec's, or the default of its type."""
        if self.spec.shutdown is not None:
            return self.spec.shutdown
        return UNBOUNDED if self.children is not None else 5.0

    def is_ancestor_of(self, other: Cell) -> bool:
        """True when `other` lives below this place (or is this place)."""
        cell: Cell | None = other
        while cell is not None:
            if cell is self:
                return True
            cell = cell.parent
        return False

    def ghost(self) -> Cell:
        """A dead stand-in for this incarnation, for code that outlives it."""
        ghost = Cell(self.system, self.parent, self.spec)
        ghost.state = State.STOPPED
        ghost.incarnation = self.incarnation
        return ghost

    # Start.

    def start(self) -> None:
        """Begin a new incarnation. The caller is the supervisor."""
        system = self.system
        self.incarnation = system.next_incarnation()
        self.state = State.STARTING
        self.exit_reason = self.abort_reason = self.remains = None
        self.initiator = ""
        self.renew = False
        self.started_at = system.clock()
        failure: ExitReason | None = None
        try:
            actor = self.spec.factory()
            if getattr(actor, "_cell", None) is not None:
                raise BadChildSpec(f"child {self.id}: its factory returned a used actor")
            if self.mailbox is system.no_mailbox:
                self.mailbox = make_mailbox(actor, system.loop.time)
            actor._cell = self
            self.actor = actor
        except StartRefused as exc:
            failure = ExitReason(ExitKind.REFUSED, str(exc))
        except (Exception, SystemExit) as exc:  # noqa: BLE001  # the task reports it as init_failed
            failure = from_exception(ExitKind.INIT_FAILED, exc, "factory")
        if self.mailbox is system.no_mailbox:
            self.mailbox = Mailbox(MailboxSpec(), system.loop.time)
        self.open = True
        self.released = False
        self.begun = False
        system.living += 1
        self.task = system.loop.create_task(
            life.live(self, failure), name=self.path, context=context.context_for(self)
        )

    def start_waiter(self) -> asyncio.Future[bool]:
        """A future: True at the next successful start, False when the place closes."""
        future: asyncio.Future[bool] = self.system.loop.create_future()
        if self._start_waiters is None:
            self._start_waiters = []
        self._start_waiters.append(future)
        return future

    def announce_started(self) -> None:
        """`init` returned (for a supervisor: all children are up)."""
        self._wake_start_waiters(True)
        parent = self.parent
        if parent is not None and parent.living:
            supervisor = parent.actor
            if supervisor is not None and ChildStarted in supervisor._handlers:
                parent.mailbox.offer_system(ChildStarted(self))

    def _wake_start_waiters(self, started: bool) -> None:
        waiters, self._start_waiters = self._start_waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(started)

    # Stop, crash, kill.

    def request_exit(self, reason: ExitReason) -> None:
        """The actor itself wants to end after the current handler."""
        if self.exit_reason is None and self.living:
            self.exit_reason = reason
            if self.spec.mailbox != "keep":
                ending.shut(self)
            self.mailbox.wake()

    def stop(self, reason: ExitReason, *, drain: bool = False) -> None:
        """Ask for a graceful end: now, or (`drain`) after what is queued.

        A drain closes admission at once; a supervisor stops its children instead.
        """
        if not self.living:
            return
        drain = drain and self.children is None
        if drain and self.state is State.RUNNING:
            self.drain()
        self.mailbox.offer_system(Stop(reason, drain))

    def drain(self) -> None:
        """Take no more messages; end with `normal` when the queued ones are served."""
        self.state = State.DRAINING
        ending.shut(self)

    def stop_within_deadline(self, reason: ExitReason) -> None:
        """What a supervisor does to end a child: a request, and the kill when it is overdue."""
        deadline = self.shutdown_seconds
        if deadline <= 0:
            self.kill("brutal kill")
            return
        self.stop(reason)
        if deadline < UNBOUNDED and self.task is not None and self.abort_reason is None:
            timers = self.system.timers
            if self.doom is not None:
                timers.cancel(self.doom)
            self.doom = timers.after(deadline, lambda: self.kill(f"after {deadline:g} s"))

    def crash(self, detail: str, initiator: str = "") -> bool:
        """Make the actor fail as if its own code had raised."""
        if not self.living:
            return False
        self.initiator = initiator
        error = InjectedCrash(detail)
        if self.state is State.STARTING:
            self.abort(from_exception(ExitKind.INIT_FAILED, error))
        elif self in self.system.awaiting:  # in the middle of a handler: its await is interrupted
            self.abort(from_exception(ExitKind.CRASH, error))
        else:
            self.mailbox.offer_system(Crash(error))
        return True

    def kill(self, detail: str = "", initiator: str = "") -> bool:
        """End this incarnation without asking it. False when none lives."""
        if self.task is None or self.abort_reason is not None:
            return False
        self.abort(ExitReason(ExitKind.KILLED, detail, initiator=initiator))
        return True

    def abort(self, reason: ExitReason) -> None:
        """Close admission, release everything, then cancel the task until it ends."""
        ending.abort(self, reason)

    def give_up(self) -> None:
        """Go on without an incarnation that was killed and whose task does not end."""
        ending.give_up(self)

    def resource_failed(self, kind: str, error: BaseException, incarnation: int) -> None:
        """A guarded callback or owned task raised: the actor's exit, unless it handles it."""
        if self.incarnation != incarnation or not self.living:
            return
        if self.actor is not None and isinstance(error, Exception):
            try:
                if self.actor.on_resource_failed(kind, error):
                    return
            except Exception as exc:  # noqa: BLE001  # failing to handle it: that is the report
                error = exc
        self.abort(from_exception(ExitKind.RESOURCE, error, kind))

    def close(self) -> None:
        """The place is gone for good: nobody will be started here again. Idempotent."""
        if self.state is State.STOPPED:
            return
        self.state = State.STOPPED
        self.open = False
        reason = self.last_exit or NOPROC
        ending.discard_mailbox(self, reason)
        notify_monitors(self, reason)
        self._wake_start_waiters(False)
        self.tracer = None
        self._ref = None  # the reference points here; both ways would be a cycle

    # Answers about a place where nobody runs.

    def down_reason(self) -> ExitReason:
        """What a caller hears when it asks here now."""
        if self.state is State.RESTARTING:
            wait = max(0.0, self.next_start - self.system.clock())
            return ExitReason(ExitKind.RESTARTING, f"in {wait:.2f} s")
        if self.state is State.DRAINING:
            return ExitReason(ExitKind.SHUTDOWN, "draining")
        return self.abort_reason or self.exit_reason or self.last_exit or NOPROC

    def down(self) -> ActorDown:
        """The exception for a caller that asks here now."""
        return ActorDown(self.path, self.incarnation, self.down_reason())

    def closed_because(self) -> str:
        """The word for a dead letter sent here now."""
        if self.state is State.RESTARTING:
            return "restarting"
        if self.state is State.DRAINING:
            return "draining"
        return "noproc" if self.state in (State.NEW, State.STOPPED) else "stopping"

    def dead_letter(self, message: object, why: str) -> None:
        """Count a message that was sent here and not accepted."""
        self.dead += 1
        self.late += 1
        sender = context.current()
        self.system.dead_letters.add(
            sender.path if sender is not None else "", self.path, message, why
        )

    def unhandled(self, message: object) -> None:
        self.handled -= 1
        self.bury(message, "unhandled")

    def bury(self, message: object, why: str) -> None:
        """Count a message that was accepted here and reached no handler."""
        self.dead += 1
        self.system.dead_letters.add("", self.path, message, why)

    # Suspend.

    def suspend(self) -> bool:
        """Stop serving the user lane; messages queue up to the bound."""
        if not self.living:
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

    # What the actor acquires.

    def own(self, resource: Resource, kind: str) -> None:
        """Take ownership. An incarnation that was released already gets rid of it at once."""
        if self.released:
            resource.abort()
            return
        if self.resources is NO_RESOURCES:
            self.resources = ResourceSet()
        self.resources.add(resource, kind)

    def register_name(self, name: str) -> None:
        if self.released:
            return
        self.system.register_name(name, self)
        if self.names is None:
            self.names = []
        self.names.append(name)

    def defer(self) -> Reply[Any]:
        ask = self.current_ask
        if ask is not None:
            if self.deferred is None:
                self.deferred = {}
            self.deferred[ask] = None
            ask.holder = self
        return Reply(ask)

    def forget_deferred(self, ask: Ask) -> None:
        """The deferred ask was answered, or nobody waits for it any more."""
        ask.holder = None
        if self.deferred is not None:
            self.deferred.pop(ask, None)

    # Timers.

    def start_timer(self, delay: float, message: object, key: object) -> Timer:
        if self.released:
            return Timer(None)
        if key is not None:
            self.cancel_timer(key)
        tick = Tick(key, message)

        def due() -> None:
            if self.open:
                self.mailbox.offer_reserved(tick)

        timer = tick.timer = self.system.timers.after(delay, due)
        tick.key = timer if key is None else key
        if self.timers is None:
            self.timers = {}
        self.timers[tick.key] = tick
        return timer

    def cancel_timer(self, key: object) -> None:
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


def make_mailbox(actor: Actor, clock: Callable[[], float]) -> Mailbox:
    """The mailbox its class declares."""
    spec = type(actor).mailbox
    if spec.overflow is Overflow.COALESCE and spec.key is None:
        raise BadChildSpec(f"{type(actor).__name__}: COALESCE needs a key function")
    if spec.bound < 1:
        raise BadChildSpec(f"{type(actor).__name__}: a mailbox needs a bound of at least 1")
    return Mailbox(spec, clock)
