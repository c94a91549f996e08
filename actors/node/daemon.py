"""The life of the process around its actor tree: start, signals, reload, drain, exit code.

Knows no doors and no settings; the composition root hands it functions.

Signals: SIGTERM and SIGINT drain (stop accepting, let streams finish up to the deadline) and then
stop the tree in order; a second one stops at once: the tree is killed. SIGHUP reloads. The drain
and the stop share one deadline; what is left after it is killed.

Exit codes are listed in docs/operations.md.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from loguru import logger

from actors.node.collector import tune_collector
from actors.node.service_manager import ServiceManager
from actors.runtime import (
    ActorDown,
    ActorSystem,
    ExitKind,
    ExitReason,
    Supervisor,
    shutdown,
)

#: Seconds the tree gets to stop in order after the drain, even when the drain used its deadline.
STOP_SECONDS = 5.0
#: Seconds the whole tree may take to come up.
START_SECONDS = 60.0


class ExitCode(IntEnum):
    """What the process ends with."""

    OK = 0
    SETTINGS = 2
    ESCALATED = 70
    RESOURCE = 71
    UNCLEAN = 75


async def _nothing(_: ActorSystem) -> None:
    """The default hook."""


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """Whether everything that was read is in force now, or nothing of it; and what or why."""

    done: bool
    text: str


async def _no_reload(_: ActorSystem) -> ReloadOutcome:
    """The default hook."""
    return ReloadOutcome(True, "nothing to reload")


@dataclass(slots=True)
class Hooks:
    """What the composition root does at the turns of the daemon's life.

    Attributes:
        ready: after the tree is up.
        drain: stop accepting and wait for streams; cancelled at the deadline.
        reload: read settings, certificates, rules again, all or none of them; what it raises
            is a bug, and is logged.
    """

    ready: Callable[[ActorSystem], Awaitable[None]] = _nothing
    drain: Callable[[ActorSystem], Awaitable[None]] = _nothing
    reload: Callable[[ActorSystem], Awaitable[ReloadOutcome]] = _no_reload


class Daemon:
    """Runs one actor tree until a signal or its own end.

    Args:
        name: node name.
        root: builds the root supervisor; called once.
        drain_seconds: current drain deadline (it may change by reload).
        hooks: see `Hooks`.
        watch: entered before the tree starts and left after it ended: what watches the loop.
        service_manager: told ready, reloading, stopping.
    """

    def __init__(
        self,
        name: str,
        root: Callable[[ActorSystem], Supervisor],
        *,
        drain_seconds: Callable[[], float],
        hooks: Hooks,
        watch: Callable[[ActorSystem], AbstractContextManager[object]] = nullcontext,
        service_manager: ServiceManager | None = None,
    ) -> None:
        self._name = name
        self._root = root
        self._drain_seconds = drain_seconds
        self._hooks = hooks
        self._watch = watch
        self._manager = service_manager or ServiceManager()
        self._stops = 0
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._reload_asked = asyncio.Event()
        #: Who waits for the next outcome; bounded by the requests of the control socket.
        self._reload_waiters: list[asyncio.Future[ReloadOutcome]] = []

    async def run(self) -> ExitCode:
        """Start, serve, stop. Returns the exit code of the process."""
        # What is loaded by now is walked before anybody waits for the loop.
        tune_collector()
        system = ActorSystem(self._name)
        with self._watch(system):
            return await self._run(system)

    async def _run(self, system: ActorSystem) -> ExitCode:
        self._install_signals(system.loop)
        background: list[asyncio.Task[None]] = []
        try:
            code = await self._start(system)
            if code is not None:
                return code
            tune_collector()
            background.append(asyncio.create_task(self._serve_reloads(system)))
            if self._manager.watchdog_seconds:
                background.append(asyncio.create_task(self._ping()))
            background.append(asyncio.create_task(self._announce(system)))
            return await self._until_stopped(system)
        finally:
            for task in background:
                task.cancel()
            self._remove_signals(system.loop)

    async def _start(self, system: ActorSystem) -> ExitCode | None:
        """Bring the tree up. The exit code, when there is none to serve: refused, or stopped."""
        start = asyncio.create_task(system.start(lambda: self._root(system), timeout=START_SECONDS))
        asked = asyncio.create_task(self._stop_asked.wait())
        either: set[asyncio.Task[Any]] = {start, asked}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.wait({start})
            logger.info("stopped while it was starting")
            return ExitCode.OK
        asked.cancel()
        try:
            start.result()
        except ActorDown as error:
            if error.reason.kind is ExitKind.REFUSED:
                logger.error("not started: {}", error.reason.detail)
            else:
                logger.error("the tree did not come up: {}", error)
            return ExitCode.RESOURCE
        except TimeoutError:
            logger.error("the tree did not come up within {:g} s", START_SECONDS)
            return ExitCode.RESOURCE
        return None

    async def _announce(self, system: ActorSystem) -> None:
        await self._hooks.ready(system)
        self._manager.ready("serving")

    async def _until_stopped(self, system: ActorSystem) -> ExitCode:
        asked = asyncio.create_task(self._stop_asked.wait())
        either: set[asyncio.Future[Any]] = {asked, system.terminated}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        if system.terminated.done():
            return self._ended_by_itself(system, system.terminated.result())
        self._manager.stopping("draining")
        deadline = time.monotonic() + self._drain_seconds()
        await self._drain(system, self._drain_seconds())
        if self._stop_now.is_set():
            logger.warning("second signal: stopping at once")
            system.kill_all("second signal")
            await system.stop(timeout=STOP_SECONDS)
            return ExitCode.OK
        left = max(STOP_SECONDS, deadline - time.monotonic())
        stopping = asyncio.create_task(system.stop(shutdown("signal"), timeout=left))
        now = asyncio.create_task(self._stop_now.wait())
        either = {stopping, now}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not stopping.done():
            logger.warning("second signal: stopping at once")
            system.kill_all("second signal")
        reason = await stopping
        logger.info("stopped: {}", reason)
        if reason.kind is ExitKind.KILLED and not self._stop_now.is_set():
            return ExitCode.UNCLEAN
        return ExitCode.OK

    @staticmethod
    def _ended_by_itself(system: ActorSystem, reason: ExitReason) -> ExitCode:
        logger.error("the tree ended by itself: {}", reason)
        return ExitCode.ESCALATED if reason.abnormal else ExitCode.OK

    async def _drain(self, system: ActorSystem, seconds: float) -> None:
        """Let work finish, until done, the deadline, or a second signal."""
        logger.info("draining, at most {:g} s", seconds)
        draining = asyncio.ensure_future(self._hooks.drain(system))
        now = asyncio.create_task(self._stop_now.wait())
        either: set[asyncio.Future[Any]] = {draining, now}
        done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if draining in done:
            error = draining.exception()
            if error is not None:
                logger.opt(exception=error).error("drain failed; stopping anyway")
        else:
            draining.cancel()
            await asyncio.wait({draining}, timeout=1.0)

    def reload(self) -> asyncio.Future[ReloadOutcome]:
        """As SIGHUP does; the outcome of a reload that begins after this call."""
        waiter: asyncio.Future[ReloadOutcome] = asyncio.get_running_loop().create_future()
        self._reload_waiters.append(waiter)
        self._reload_asked.set()
        return waiter

    async def _serve_reloads(self, system: ActorSystem) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            waiters, self._reload_waiters = self._reload_waiters, []
            self._manager.reloading(time.monotonic_ns() // 1000)
            try:
                outcome = await self._hooks.reload(system)
            except Exception as error:  # noqa: BLE001  # a pump entry: the next SIGHUP must work
                logger.opt(exception=error).error("reload failed")
                outcome = ReloadOutcome(False, f"failed: {type(error).__name__}, see the log")
            self._manager.ready("serving" if outcome.done else "serving; last reload refused")
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(outcome)

    async def _ping(self) -> None:
        while True:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog_seconds)

    # Signals.

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)

    def _remove_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        self._stops += 1
        logger.info("{} received", number.name)
        self._stop_asked.set()
        if self._stops > 1:
            self._stop_now.set()
