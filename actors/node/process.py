"""An actor that owns an operating-system process. The only file that knows aiomultiprocess.

The process is a child like any other: its exit code or signal becomes the exit reason, its
supervisor restarts it, a kill is SIGKILL, a stop is SIGTERM under the shutdown deadline. Inside
runs an actor tree of its own (worker.py), mounted at this actor's path over a socket pair.

aiomultiprocess keeps a manager process for its bookkeeping; the first construction starts it
(tens of milliseconds), so processes are made and started in a thread, never on the loop. A manager
does not notice when its parent is killed, so it is started here, to end with us. Death is
seen through the process's sentinel; `join` (which polls) is never used.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from typing import Any

import aiomultiprocess
import aiomultiprocess.core

from actors.admin.child_link import ControlLink
from actors.admin.mounts import ControlFailed, MountTable
from actors.node.parent_watch import end_with_parent
from actors.node.worker import child_main
from actors.runtime import (
    NORMAL,
    Actor,
    Backoff,
    ChildSpec,
    ExitKind,
    ExitReason,
    Restart,
    handles,
)

#: Seconds a new process may take to serve its tree; slower is reported, not killed.
GREETING_SECONDS = 20.0
#: Seconds between two looks for the exit status of a process that is ending.
REAP_SECONDS = 0.005
#: Seconds a process may take to end after SIGKILL; one that does not is stuck in the kernel.
REAP_LIMIT_SECONDS = 10.0
#: Seconds after the loss of its control link until a process that lives on is replaced.
LINK_GRACE_SECONDS = 0.5
#: Seconds between the stop request (SIGTERM) and the kill.
SHUTDOWN_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run.

    Attributes:
        name: the child's id and the name of its node.
        target: "module:function", see worker.py.
        args: plain, picklable values (sockets included).
        log_level, log_format: of the process.
    """

    name: str
    target: str
    args: tuple[Any, ...] = ()
    log_level: str = "INFO"
    log_format: str = "human"


def process_child(
    name: str,
    spec: Callable[[], ProcessSpec],
    mounts: MountTable,
    *,
    restart: Restart = Restart.PERMANENT,
    drain: float = 0.0,
) -> ChildSpec:
    """A supervised process child.

    Args:
        spec: asked at every start, when its siblings are up.
        drain: seconds its tree may take to finish what it carries, when it is stopped.
    """
    return ChildSpec(
        name,
        lambda: ProcessChild(spec(), mounts),
        restart=restart,
        shutdown=SHUTDOWN_SECONDS + drain,
        kind="process",
        backoff=Backoff(base=0.2, cap=10.0, stable_after=30.0),
    )


#: Processes are made in several threads, and share one manager.
_making_manager = threading.Lock()


def _have_manager() -> None:
    """Give aiomultiprocess a manager that ends with this process."""
    with _making_manager:
        if aiomultiprocess.core._manager is None:
            manager = SyncManager(ctx=aiomultiprocess.core.get_context())
            manager.start(initializer=end_with_parent)
            aiomultiprocess.core._manager = manager


class _Process:
    """One operating-system process as a resource: `abort` kills it, also while it is starting."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._aborted = False
        self._loop = asyncio.get_running_loop()
        self.inner: aiomultiprocess.Process | None = None

    def start(self, link: socket.socket) -> None:
        """Blocking: make and start it. Run in a thread."""
        spec = self._spec
        process = self._construct(
            (spec.name, link, spec.target, spec.args, spec.log_level, spec.log_format)
        )
        process.start()
        with self._lock:
            self.inner = process
            aborted = self._aborted
        if aborted:
            process.aio_process.kill()
            self._reap()

    def _construct(self, args: Sequence[Any]) -> aiomultiprocess.Process:
        _have_manager()
        try:
            return aiomultiprocess.Process(target=child_main, name=self._spec.name, args=args)
        except (ConnectionError, EOFError):
            # The manager process was killed: forget it, the next construction makes a new one.
            aiomultiprocess.core._manager = None
            _have_manager()
            return aiomultiprocess.Process(target=child_main, name=self._spec.name, args=args)

    @property
    def pid(self) -> int:
        """0 while it is starting."""
        return (self.inner.pid or 0) if self.inner is not None else 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.inner is not None and self.inner.aio_process.exitcode is None:
            if number is signal.SIGKILL:
                self.inner.aio_process.kill()
            else:
                self.inner.aio_process.terminate()

    def abort(self) -> None:
        """SIGKILL now; it is reaped when the kernel says so."""
        with self._lock:
            self._aborted = True
            inner = self.inner
        if inner is None or inner.aio_process.exitcode is not None:
            return
        inner.aio_process.kill()
        # In a thread, which the end of the loop waits for: it may end before the process does.
        self._loop.run_in_executor(None, self._reap)

    def _reap(self) -> None:
        """Blocking: wait for the end of a process that was killed, and let go of it."""
        inner = self.inner
        if inner is not None:
            inner.aio_process.join(REAP_LIMIT_SECONDS)
            if inner.aio_process.exitcode is not None:
                self.release()

    def release(self) -> None:
        """It ended, and nobody needs its status any more: close its descriptors."""
        inner, self.inner = self.inner, None
        if inner is not None:
            inner.aio_process.join(0)
            inner.aio_process.close()


class _Gone:
    """The process ended."""

    __slots__ = ()


class _Unlinked:
    """The control link was lost some time ago."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class ProcessChild(Actor):
    handler_limit = 120.0

    def __init__(self, spec: ProcessSpec, mounts: MountTable) -> None:
        self._spec = spec
        self._mounts = mounts
        self._stopping: ExitReason | None = None
        self._phase = "starting"

    def init(self) -> None:
        """Begin to start the process; the link exists at once."""
        ours, theirs = socket.socketpair()
        self._process = self.own(_Process(self._spec), "process")
        self._link = ControlLink(self, ours, on_lost=self.guard("link", self._link_lost))
        self.own(self._mounts.attach(self.path, self._link), "mount")
        self.spawn_task(self._start(theirs), "start")

    def describe(self) -> dict[str, object]:
        """What runs there."""
        return {
            "target": self._spec.target,
            "pid": self._process.pid,
            "phase": self._phase,
            "link": self._link.lost or "up",
        }

    async def _start(self, theirs: socket.socket) -> None:
        try:
            await asyncio.to_thread(self._process.start, theirs)
        finally:
            theirs.close()
        inner = self._process.inner
        if inner is None:
            return
        sentinel = inner.aio_process.sentinel
        self.own(_Watch(sentinel, self.guard("sentinel", self._died)), "sentinel")
        self._phase = "running"
        if self._stopping is not None:
            self._process.signal(signal.SIGTERM)
        try:
            await self._link.greeted(timeout=GREETING_SECONDS)
        except (TimeoutError, ControlFailed):
            if self._stopping is None:
                self.log.warning("{} does not serve its tree", self._spec.name)

    def on_stop(self, reason: ExitReason) -> bool:
        """SIGTERM; the actor ends when the process did."""
        self._stopping = reason
        self._phase = "stopping"
        self._process.signal(signal.SIGTERM)
        return False

    def _link_lost(self, reason: str) -> None:
        """Nobody can look into or steer the process any more: it has to be a new one.

        A process that is ending loses its link a moment before its exit status is there.
        """
        self.start_timer(LINK_GRACE_SECONDS, _Unlinked(reason), "unlinked")

    @handles(_Unlinked)
    def _unlinked(self, lost: _Unlinked) -> None:
        if self._stopping is None and self._phase != "ended":
            self.stop(ExitReason(ExitKind.CRASH, f"control link lost: {lost.reason}"))

    def _died(self) -> None:
        self.ref.tell(_Gone())

    @handles(_Gone)
    def _gone(self, _: _Gone) -> None:
        inner = self._process.inner
        code = inner.aio_process.exitcode if inner is not None else None
        if code is None and inner is not None:
            # The sentinel closes a moment before the kernel has the exit status.
            self.start_timer(REAP_SECONDS, _Gone(), "reap")
            return
        self._phase = "ended"
        self._process.release()
        if self._stopping is not None:
            self.stop(self._stopping)
        elif code == 0:
            self.stop(NORMAL)
        else:
            self.stop(ExitReason(ExitKind.CRASH, _words(code)))


class _Watch:
    """Watches a process's sentinel; calls once."""

    def __init__(self, sentinel: int, callback: Any) -> None:
        self._sentinel: int | None = sentinel
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sentinel, self._fired)

    def _fired(self) -> None:
        self.abort()
        self._callback()

    def abort(self) -> None:
        """Stop watching; idempotent."""
        if self._sentinel is not None:
            self._loop.remove_reader(self._sentinel)
            self._sentinel = None


def _words(code: int | None) -> str:
    """An exit code as an operator reads it."""
    if code is None:
        return "exit code unknown"
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


__all__ = ["ProcessChild", "ProcessSpec", "process_child"]
