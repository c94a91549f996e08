"""The class actors derive from: handlers, life-cycle hooks, and the services of the runtime.

An actor handles one message at a time. A handler is a method marked with `@handles(Type)`, sync
or async; what it returns answers an ask. It must not wait for anything unbounded: long work is a
child, an owned task (`spawn_task`) or a guarded callback.

Source: docs/runtime.md sections 3 to 6.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeAlias, TypeVar

from loguru import logger

from . import monitor as monitors
from .asks import Reply
from .errors import BadChildSpec
from .events import Event, Subscription
from .mailbox import MailboxSpec
from .owned_task import OwnedTask
from .reasons import NORMAL, ExitReason

if TYPE_CHECKING:
    from loguru import Logger

    from .cell import Cell
    from .ref import ActorRef
    from .resources import Resource
    from .system import ActorSystem
    from .timers import Timer

F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")
T = TypeVar("T")
ResourceT = TypeVar("ResourceT", bound="Resource")

#: What `Actor.guard` is to those that take it as an argument: it wraps a callback, under the name
#: of its kind, and a failure of the callback is then its owner's.
Guard: TypeAlias = Callable[[str, Callable[..., Any]], Callable[..., Any]]


def unguarded(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The `Guard` of callbacks without an owner: a failure is the event loop's to report."""
    del kind
    return function


def handles(*message_types: type) -> Callable[[F], F]:
    """Mark a method as the handler of these message types (exact types, not subclasses).

    A subclass that overrides the method overrides the handler, with or without the decorator.
    """

    def mark(method: F) -> F:
        method.__handles__ = message_types  # type: ignore[attr-defined]  # read by Actor only
        return method

    return mark


class Actor:
    """Base class of every actor. Subclasses must not override `__init_subclass__`."""

    #: Bound and overflow policy of the mailbox.
    mailbox: ClassVar[MailboxSpec] = MailboxSpec()
    #: True: an abnormal exit of a linked actor arrives as `ExitSignal` instead of killing.
    trap_exits: ClassVar[bool] = False
    #: Longest time one async handler (or `continue_`) may take before the actor is `stuck`.
    handler_limit: ClassVar[float] = 30.0

    _handlers: ClassVar[dict[type, Callable[[Any, Any], object]]] = {}
    _cell: Cell

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        names: dict[type, str] = {}
        for base in reversed(cls.__mro__):
            own: set[type] = set()
            for name, attribute in vars(base).items():
                for message_type in getattr(attribute, "__handles__", ()):
                    if message_type in own:
                        raise BadChildSpec(
                            f"{base.__name__} has two handlers for {message_type.__name__}"
                        )
                    own.add(message_type)
                    names[message_type] = name
        # By name, so that a method overridden without the decorator is the one that is called.
        cls._handlers = {kind: getattr(cls, name) for kind, name in names.items()}

    # Hooks.

    def init(self) -> Awaitable[None] | None:
        """Acquire resources. Must be quick and must not wait for the network.

        A supervisor hears `started` when this returned; raising means `init_failed`.
        """

    def continue_(self) -> Awaitable[None] | None:
        """Slow set-up, run before the first message; the supervisor does not wait for it."""

    def terminate(self, reason: ExitReason) -> Awaitable[None] | None:
        """Say goodbye. Runs for stop, drain and crash, not for kill; must not acquire."""

    def describe(self) -> dict[str, object]:
        """State for the inspector: small, JSON-able, synchronous; never secrets or payload.

        Called once `init` has returned, so what that sets may be relied on.
        """
        return {}

    def on_resource_failed(self, kind: str, error: Exception) -> bool:
        """A pump, route or owned task failed. True: handled; False: the actor ends."""
        return False

    def on_stop(self, reason: ExitReason) -> bool:
        """A graceful stop was asked for. True: stop now; False: `stop()` follows by itself."""
        return True

    def unhandled(self, message: object) -> None:
        """A message without handler: counted as a dead letter, the actor lives."""
        self._cell.unhandled(message)

    # Services.

    @property
    def ref(self) -> ActorRef:
        """The address of this actor."""
        return self._cell.ref

    @property
    def path(self) -> str:
        """Its place in the tree."""
        return self._cell.path

    @property
    def system(self) -> ActorSystem:
        """The actor system it lives in."""
        return self._cell.system

    @property
    def incarnation(self) -> int:
        """The number of this incarnation, unique within the node."""
        return self._cell.incarnation

    @property
    def log(self) -> Logger:
        """A logger bound to the actor's path."""
        return logger.bind(actor=self._cell.path)

    def now(self) -> float:
        """The loop's monotonic clock, seconds."""
        return self._cell.system.clock()

    def stop(self, reason: ExitReason = NORMAL) -> None:
        """End after the current handler. Messages are refused from now on."""
        self._cell.request_exit(reason)

    def own(self, resource: ResourceT, kind: str = "") -> ResourceT:
        """Own a resource: it is aborted when this incarnation ends, however it ends.

        Code that still runs after its incarnation was killed cannot acquire anything: what it
        owns then is aborted at once.
        """
        self._cell.own(resource, kind or type(resource).__name__)
        return resource

    def disown(self, resource: Resource) -> None:
        """Stop owning a resource, without aborting it."""
        self._cell.resources.discard(resource)

    def spawn_task(self, coroutine: Coroutine[Any, Any, object], name: str) -> OwnedTask:
        """Run a linked task: its failure is this actor's exit, the actor's end cancels it."""
        return OwnedTask(self._cell, coroutine, name)

    def guard(self, kind: str, function: Callable[P, T]) -> Callable[P, T | None]:
        """Wrap a data-plane callback: an exception in it is an exit of this actor.

        The wrapper returns None then. `kind` names the pump or route in the report.
        """
        cell = self._cell
        incarnation = cell.incarnation

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
            try:
                return function(*args, **kwargs)
            except (Exception, SystemExit, CancelledError) as exc:  # noqa: BLE001  # see below
                # The guard's purpose. A plain function cannot be cancelled: a CancelledError
                # here is its own failure. SystemExit would end the process.
                cell.resource_failed(kind, exc, incarnation)
                return None

        return guarded

    def defer(self) -> Reply[Any]:
        """Answer the ask being handled later: keep the `Reply`, return `DEFERRED`."""
        return self._cell.defer()

    def start_timer(self, delay: float, message: object, key: object = None) -> Timer:
        """Deliver `message` to this actor after `delay` seconds, in a reserved slot.

        A timer with a key replaces the pending one of the same key. Timers die with the
        incarnation. `delay` must be finite.
        """
        return self._cell.start_timer(delay, message, key)

    def cancel_timer(self, key: object) -> None:
        """Cancel the timer with this key; its tick will not arrive, even if already due.

        For a timer without key: pass what `start_timer` returned.
        """
        self._cell.cancel_timer(key)

    def monitor(self, ref: ActorRef) -> int:
        """Get exactly one `Down(token, ...)` when `ref`'s incarnation ends. Returns the token.

        Between two incarnations the monitor waits for the next one; at an unknown place the
        `Down` comes at once with reason `noproc`.
        """
        return monitors.monitor(self._cell, ref._resolve())

    def demonitor(self, token: int) -> None:
        """Forget a monitor; a `Down` already queued is not delivered either."""
        monitors.demonitor(self._cell, token)

    def link(self, ref: ActorRef) -> None:
        """Share fate: an abnormal exit of either ends the other with `linked`."""
        monitors.link(self._cell, ref._resolve())

    def unlink(self, ref: ActorRef) -> None:
        """Undo `link`."""
        monitors.unlink(self._cell, ref._resolve())

    def register_name(self, name: str) -> None:
        """Let `system.whereis(name)` find this actor, until it ends."""
        self._cell.register_name(name)

    def subscribe(self, accept: Callable[[Event], bool]) -> Subscription:
        """Receive every future `Event` that `accept` takes, as a message; dropped when full."""
        cell = self._cell
        wanted = self.guard("subscription", accept)

        def deliver(event: Event) -> None:
            if cell.open and wanted(event):
                cell.mailbox.offer(event)

        events = cell.system.events
        return self.own(Subscription(events, events.subscribe(deliver)), "subscription")


#: The frame of a guarded callback; the watchdog recognizes it and reads `cell`.
GUARD_FRAME = next(
    constant
    for constant in Actor.guard.__code__.co_consts
    if isinstance(constant, CodeType) and constant.co_name == "guarded"
)
