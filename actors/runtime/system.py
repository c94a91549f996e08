"""The actor system of one event loop: the root, names, clocks and the operators' verbs.

Source: docs/runtime.md sections 1, 7 and 9.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

from loguru import logger

from .cell import Cell
from .child_spec import UNBOUNDED, ChildSpec, Restart
from .dynamic import DynamicSupervisor
from .errors import BadChildSpec, ChildRefused
from .events import DeadLetters, Event, EventStream
from .lifecycle import State
from .mailbox import Mailbox, MailboxSpec
from .messages import Down
from .monitor import add_watcher
from .owned_task import OwnedTask
from .reasons import KILLED, NOPROC, NORMAL, SHUTDOWN, ExitKind, ExitReason, shutdown
from .ref import ActorRef
from .report import Reporter
from .signals import CancelRestart, ChildExited, RestartNow
from .supervisor import Supervisor
from .timers import DeadlineQueue, Timer
from .tracebacks import one_line
from .tracing import Tracer, TraceRecord

#: Seconds between two sweeps for handlers that exceed their class's `handler_limit`.
SWEEP_PERIOD: Final = 1.0
#: Seconds a killed tree has to be gone; what does not end by then is given up.
KILLED_WITHIN: Final = 1.5

_ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class ActorSystem:
    """One supervision tree on one event loop.

    Args:
        name: the node's name, for logs and the inspector.
        seed: seeds restart jitter; None takes an unpredictable one.
        wall_clock: seconds since the epoch, for event stamps.
    """

    def __init__(
        self,
        name: str = "node",
        *,
        seed: int | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.loop = loop = asyncio.get_running_loop()
        #: The loop's clock in seconds; without the call through Python where that is all it is.
        plain = type(loop).time is asyncio.BaseEventLoop.time
        self.clock: Callable[[], float] = time.monotonic if plain else loop.time
        self.rng = random.Random(seed)  # jitter, not a secret
        self.timers = DeadlineQueue(self.loop)
        self.events = EventStream(wall_clock)
        self.dead_letters = DeadLetters(wall_clock)
        self.reporter = Reporter()
        self.no_mailbox = Mailbox(MailboxSpec(bound=0), self.loop.time)
        self.awaiting: dict[Cell, float] = {}
        #: Incarnations and owned tasks that did not end yet.
        self.living = 0
        self.owned_tasks = 0
        #: Those that were cancelled and did not end yet.
        self.dying: dict[Cell | OwnedTask, None] = {}
        self.undead = 0
        self.resource_errors = 0
        self.unowned_exceptions = 0
        self.started_at = self.loop.time()
        #: The root's exit reason, once it and everything below it ended.
        self.terminated: asyncio.Future[ExitReason] = self.loop.create_future()
        #: Until the tree is up for the first time: nobody is served yet (see `StartRefused`).
        self.starting = True
        self._root: Cell | None = None
        self._names: dict[str, Cell] = {}
        self._incarnations = 0
        self._tokens = 0
        self._sweep: Timer | None = None
        self._final: ExitReason | None = None
        self._corpses: set[asyncio.Task[Any]] = set()
        self._previous_handler: _ExceptionHandler | None = None

    # Start and stop.

    async def start(self, root: Callable[[], Supervisor], *, timeout: float = 60.0) -> None:
        """Start the tree under a fresh root supervisor and wait until it is up.

        Raises:
            TimeoutError: not up within `timeout` seconds; the tree is killed.
            ActorDown: the root gave up while starting.
        """
        self._previous_handler = self.loop.get_exception_handler()
        self.loop.set_exception_handler(self._on_unowned_exception)
        spec = ChildSpec("", root, restart=Restart.TEMPORARY, shutdown=UNBOUNDED)
        self._root = Cell(self, None, spec)
        self._root.start()
        future = self._root.start_waiter()
        try:
            async with asyncio.timeout(timeout):
                if not await future:
                    raise self._root.down()
            self.starting = False
        except BaseException:
            try:
                await self._kill_and_wait("start failed")
            finally:
                self._dispose()
            raise

    async def stop(self, reason: ExitReason = SHUTDOWN, *, timeout: float = 30.0) -> ExitReason:
        """Stop the tree in reverse start order, at most `timeout` seconds, then kill the rest.

        Returns the root's exit reason, at the latest `KILLED_WITHIN` seconds after `timeout`:
        tasks that swallow their cancellation are given up then. May be called again, also while
        another call waits.
        """
        root = self._root
        if root is None:
            return NORMAL
        root.stop(reason)
        if not await self._wait_terminated(timeout):
            self.events.publish(Event("shutdown_error", "/", 0, {"after": timeout}))
            logger.error("tree did not stop within {} s: killing what is left", timeout)
            await self._kill_and_wait("drain deadline")
        self._dispose()
        return self.terminated.result()

    async def _kill_and_wait(self, detail: str) -> None:
        self.kill_all(detail)
        if not await self._wait_terminated(KILLED_WITHIN):
            for straggler in list(self.dying):
                straggler.give_up()
        if not self.terminated.done():  # a task somebody disowned is not ours to wait for
            self.terminated.set_result(self._final or KILLED)

    async def _wait_terminated(self, timeout: float) -> bool:
        # `wait` leaves the future alone when we are cancelled.
        await asyncio.wait({self.terminated}, timeout=timeout)
        return self.terminated.done()

    def kill_all(self, detail: str = "") -> None:
        """Kill the root, and with it everything, now."""
        if self._root is not None:
            self._root.kill(detail)

    def interrupt(self) -> None:
        """A KeyboardInterrupt arrived inside an actor: the whole node stops."""
        if self._root is not None:
            self._root.stop(shutdown("keyboard interrupt"))

    def _dispose(self) -> None:
        self.timers.close()
        self._sweep = None
        if self.loop.get_exception_handler() == self._on_unowned_exception:
            self.loop.set_exception_handler(self._previous_handler)

    # What cells need.

    @property
    def actors_started(self) -> int:
        """Incarnations started so far."""
        return self._incarnations

    def next_incarnation(self) -> int:
        """A number no incarnation of this node had before."""
        self._incarnations += 1
        return self._incarnations

    def next_token(self) -> int:
        """A number for a monitor."""
        self._tokens += 1
        return self._tokens

    def note_waiting(self, cell: Cell) -> None:
        """An async handler of `cell` began: the sweep looks after it."""
        self.awaiting[cell] = self.loop.time()
        if self._sweep is None:
            self._sweep = self.timers.after(SWEEP_PERIOD, self._sweep_stuck)

    def exited(self, cell: Cell, reason: ExitReason, uptime: float) -> None:
        """An incarnation is gone: hand it to its supervisor, or finish it here."""
        self.living -= 1
        parent = cell.parent
        if parent is None:
            self.events.publish(Event("exited", "/", cell.incarnation, {"reason": str(reason)}))
            cell.close()
            self._final = reason
        elif parent.released or parent.children is None or parent.children.get(cell.id) is not cell:
            # Its supervisor ended before it, and perhaps a new one has a new child in its place.
            self.reporter.exited(parent, cell, reason, uptime, "supervisor ended")
            cell.close()
        else:
            parent.mailbox.offer_system(ChildExited(cell, reason, uptime))
        self.note_end()

    def note_end(self) -> None:
        """An incarnation or owned task ended: perhaps it was the last one."""
        final = self._final
        if final is None or self.living or self.owned_tasks or self.terminated.done():
            return
        self.terminated.set_result(final)

    def keep_undead(self, task: asyncio.Task[Any]) -> None:
        """Hold a task that cannot be ended: the loop alone would let it be collected."""
        self._corpses.add(task)
        task.add_done_callback(self._forget_corpse)

    def _forget_corpse(self, task: asyncio.Task[Any]) -> None:
        self._corpses.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its actor was reported long ago

    def register_name(self, name: str, cell: Cell) -> None:
        """Give `name` to a cell. Raises `BadChildSpec` when another live actor has it."""
        holder = self._names.get(name)
        if holder is not None and holder is not cell and not holder.released:
            raise BadChildSpec(f"name {name!r} belongs to {holder.path}")
        self._names[name] = cell

    def unregister_name(self, name: str, cell: Cell) -> None:
        """Take a name back, unless somebody else has it by now."""
        if self._names.get(name) is cell:
            del self._names[name]

    # Finding.

    @property
    def root(self) -> Cell:
        """The root's cell. Raises `RuntimeError` before `start`."""
        if self._root is None:
            raise RuntimeError("the actor system was not started")
        return self._root

    def find(self, path: str) -> Cell | None:
        """The cell at `path` now, or None."""
        cell = self._root
        for segment in path.split("/"):
            if not segment:
                continue
            if cell is None or cell.children is None:
                return None
            cell = cell.children.get(segment)
        return cell

    def ref(self, path: str) -> ActorRef | None:
        """A reference to the place `path`, or None when there is none."""
        cell = self.find(path)
        return cell.ref if cell is not None else None

    def whereis(self, name: str) -> ActorRef | None:
        """The actor registered under `name`, or None."""
        cell = self._names.get(name)
        return cell.ref if cell is not None else None

    # Children and monitors from outside.

    def start_child(self, supervisor: ActorRef, spec: ChildSpec) -> ActorRef:
        """Start a child of a dynamic supervisor, synchronously.

        Raises:
            ChildRefused: the supervisor is down, stopping, full, or has that id already.
            BadChildSpec: the spec can never work.
        """
        cell = supervisor._resolve()
        actor = cell.actor
        if actor is None or cell.state is not State.RUNNING:
            raise ChildRefused(supervisor.path, spec.id, "down")
        if not isinstance(actor, DynamicSupervisor):
            raise BadChildSpec(f"{supervisor.path} is not a dynamic supervisor")
        return actor.start_child(spec)

    def stop_child(self, ref: ActorRef, reason: ExitReason = SHUTDOWN) -> None:
        """Ask an actor to end gracefully; its supervisor decides whether it comes back."""
        ref._resolve().stop(reason)

    def monitor(self, ref: ActorRef, callback: Callable[[Down], None]) -> int:
        """As `Actor.monitor`, for code outside actors."""
        token = self.next_token()
        cell = ref._resolve()
        if cell.state is State.STOPPED:
            callback(Down(token, cell.path, cell.incarnation, NOPROC))
        else:
            add_watcher(cell, token, callback)
        return token

    def demonitor(self, ref: ActorRef, token: int) -> None:
        """Forget a monitor of code outside actors; harmless when it is used up."""
        monitors = ref._resolve().monitors
        if monitors is not None:
            monitors.pop(token, None)

    # Operators' verbs. Each answers False when nobody lives at that place.

    def kill(self, ref: ActorRef, detail: str = "", *, initiator: str = "") -> bool:
        """Kill the incarnation that runs there."""
        return ref._resolve().kill(detail, initiator)

    def crash(self, ref: ActorRef, detail: str = "", *, initiator: str = "") -> bool:
        """Make it fail as if its own code had raised."""
        return ref._resolve().crash(detail, initiator)

    def stop_actor(self, ref: ActorRef, detail: str = "", *, drain: bool = False) -> bool:
        """Ask it to end gracefully, now or after what is queued.

        A transient or temporary child that waits for its restart will not be restarted.
        """
        cell = ref._resolve()
        if cell.state is State.RESTARTING and cell.spec.restart is not Restart.PERMANENT:
            return self._order(cell, CancelRestart(cell))
        if not cell.living:
            return False
        cell.stop(ExitReason(ExitKind.SHUTDOWN, detail), drain=drain)
        return True

    def restart(self, ref: ActorRef, detail: str = "", *, initiator: str = "") -> bool:
        """End it gracefully (killed after its shutdown deadline) and start it again at once.

        A child that waits for its restart is started now. It works for every restart type and
        is not counted in the restart window. False for the root and where nobody is.
        """
        cell = ref._resolve()
        if cell.state is State.RESTARTING:
            return self._order(cell, RestartNow(cell))
        if cell.parent is None or cell.task is None:
            return False
        cell.renew = True
        cell.initiator = initiator
        cell.stop_within_deadline(ExitReason(ExitKind.SHUTDOWN, detail or "restart"))
        return True

    @staticmethod
    def _order(cell: Cell, order: object) -> bool:
        parent = cell.parent
        if parent is None or parent.released:
            return False
        parent.mailbox.offer_system(order)
        return True

    def suspend(self, ref: ActorRef, *, initiator: str = "") -> bool:
        """Stop serving its user lane."""
        cell = ref._resolve()
        done = cell.suspend()
        if done:
            fields: dict[str, object] = {"initiator": initiator}
            self.events.publish(Event("suspended", cell.path, cell.incarnation, fields))
        return done

    def resume(self, ref: ActorRef, *, initiator: str = "") -> bool:
        """Serve its user lane again."""
        cell = ref._resolve()
        done = cell.resume()
        if done:
            fields: dict[str, object] = {"initiator": initiator}
            self.events.publish(Event("resumed", cell.path, cell.incarnation, fields))
        return done

    def trace(
        self,
        ref: ActorRef,
        emit: Callable[[TraceRecord], None],
        *,
        limit: int = 1000,
        rate: int = 100,
        ttl: float = 60.0,
        subtree: bool = False,
    ) -> Tracer:
        """Report the messages an actor (or its subtree as it is now) handles.

        Ends by itself after `limit` records or `ttl` seconds; at most `rate` records a second.
        """
        tracer = Tracer(emit, limit=limit, rate=rate, ends=self.loop.time() + ttl)
        pending = [ref._resolve()]
        while pending:
            cell = pending.pop()
            cell.tracer = tracer
            if subtree and cell.children:
                pending.extend(cell.children.values())
        return tracer

    # Faults nobody owns.

    def _on_unowned_exception(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        self.unowned_exceptions += 1
        if self._previous_handler is not None:
            self._previous_handler(loop, context)
        message = str(context.get("message", ""))
        error = context.get("exception")
        text = one_line(error) if isinstance(error, BaseException) else ""
        fields: dict[str, object] = {"message": message, "error": text}
        self.events.publish(Event("unowned_exception", "/", 0, fields))
        logger.opt(exception=error if isinstance(error, BaseException) else None).error(
            "exception outside every actor: {}", message
        )

    def _sweep_stuck(self) -> None:
        now = self.loop.time()
        for cell, since in list(self.awaiting.items()):
            actor = cell.actor
            if actor is not None and now - since > actor.handler_limit:
                self.awaiting.pop(cell, None)
                cell.abort(ExitReason(ExitKind.STUCK, f"a handler waits for {now - since:.1f} s"))
        # Armed only while somebody waits: an idle node has no timer at all.
        self._sweep = self.timers.after(SWEEP_PERIOD, self._sweep_stuck) if self.awaiting else None
