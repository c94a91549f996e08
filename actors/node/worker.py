"""What runs inside a child process: its own actor tree, and the link to the parent.

The tree is built by `target`, named as "module:function": a function that takes plain, picklable
arguments and returns the child specs below the root, or a `WorkerTree`. The process ends with its
tree: on SIGTERM (after a drain, where the tree has one; a second one ends that), when the parent is
gone, or when the tree gives up (exit code 70). SIGINT is ignored, because a
terminal sends it to every process of the group and the parent decides.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from loguru import logger

from actors.admin.mounts import MountTable
from actors.admin.service import LinkServer, control_service
from actors.node.collector import tune_collector
from actors.node.early_words import log_the_uncaught
from actors.node.logging import install
from actors.runtime import ActorSystem, ChildSpec, Intensity, Restart, Supervisor

#: Seconds the tree of a child process gets to stop in order.
STOP_SECONDS = 4.0
START_SECONDS = 30.0
EXIT_ESCALATED = 70
EXIT_NOT_STARTED = 71
_PR_SET_PDEATHSIG = 1


class WorkerTree(Protocol):
    """A tree that knows its actor system, and can drain.

    Attributes:
        drain_seconds: at most.
    """

    drain_seconds: float

    def children(self, system: ActorSystem) -> Sequence[ChildSpec]:
        """The child specs below the root."""

    async def drain(self) -> None:
        """Finish what it carries; cancelled at the deadline."""

    def abort(self) -> None:
        """Release what outlives the tree."""


class _Bare:
    """Child specs that need no more than to be started and stopped."""

    drain_seconds = 0.0

    def __init__(self, specs: Sequence[ChildSpec]) -> None:
        self._specs = specs

    def children(self, _: ActorSystem) -> Sequence[ChildSpec]:
        return self._specs

    async def drain(self) -> None:
        pass

    def abort(self) -> None:
        pass


def resolve(target: str) -> Callable[..., Sequence[ChildSpec] | WorkerTree]:
    """The function named "module:function".

    Raises:
        ValueError: not of that form.
        ImportError, AttributeError: there is no such function.
    """
    module, colon, name = target.partition(":")
    if not colon:
        raise ValueError(f"target {target!r} is not module:function")
    function: Callable[..., Sequence[ChildSpec] | WorkerTree] = getattr(
        importlib.import_module(module), name
    )
    return function


async def child_main(
    name: str,
    link: socket.socket,
    target: str,
    args: Sequence[Any],
    log_level: str,
    log_format: str,
) -> None:
    """The coroutine a process child runs. Ends the process by `SystemExit` with its code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    install(log_level, log_format)
    log_the_uncaught()
    # It would log the SystemExit below as a failure; the reason is logged here already.
    logging.getLogger("aiomultiprocess").setLevel(logging.CRITICAL + 1)
    _die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stop.set)
    system = ActorSystem(name)
    service = control_service(system, MountTable())
    built = resolve(target)(*args)
    tree: WorkerTree = _Bare(built) if isinstance(built, Sequence) else built
    link_spec = ChildSpec(
        "parent-link", lambda: LinkServer(service, link, stop.set), restart=Restart.TEMPORARY
    )
    budget = Intensity(restarts=30, period=30.0)
    code = 0
    try:
        await system.start(
            lambda: Supervisor([*tree.children(system), link_spec], intensity=budget),
            timeout=START_SECONDS,
        )
    except Exception as error:  # noqa: BLE001  # reported as the exit code, whatever it was
        logger.error("{}: the tree did not come up: {}", name, error)
        code = EXIT_NOT_STARTED
    else:
        tune_collector()
        asked = asyncio.ensure_future(stop.wait())
        either: set[asyncio.Future[Any]] = {asked, system.terminated}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if system.terminated.done():
            code = EXIT_ESCALATED if system.terminated.result().abnormal else 0
        else:
            stop.clear()
            await _drain(tree, stop)
            await system.stop(timeout=STOP_SECONDS)
    tree.abort()
    if parent is not None:
        loop.remove_reader(parent.sentinel)
    if code:
        sys.exit(code)


async def _drain(tree: WorkerTree, stop: asyncio.Event) -> None:
    """Let work finish: until it has, until the deadline, or until a further stop is asked for."""
    draining = asyncio.ensure_future(tree.drain())
    again = asyncio.ensure_future(stop.wait())
    either: set[asyncio.Future[Any]] = {draining, again}
    done, pending = await asyncio.wait(
        either, timeout=tree.drain_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for future in pending:
        future.cancel()
    await asyncio.wait(either)
    if draining in done and (error := draining.exception()) is not None:
        logger.opt(exception=error).error("drain failed; stopping anyway")


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies (Linux); the sentinel covers the rest."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
