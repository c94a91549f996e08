"""What runs inside a child process: its own actor tree, and the link to the parent.

The tree is built by `target`, named as "module:function": a function that takes plain, picklable
arguments and returns the child specs below the root, or a function that makes them when it is given
the actor system. The process ends with its tree: on SIGTERM,
when the parent is gone, or when the tree gives up (exit code 70). SIGINT is ignored, because a
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
from typing import Any

from loguru import logger

from actors.node.admin import LinkServer, control_service
from actors.node.collector import tune_collector
from actors.node.logging import install
from actors.node.mounts import MountTable
from actors.runtime import ActorSystem, ChildSpec, Intensity, Restart, Supervisor

#: Seconds the tree of a child process gets to stop in order.
STOP_SECONDS = 4.0
START_SECONDS = 30.0
EXIT_ESCALATED = 70
EXIT_NOT_STARTED = 71
_PR_SET_PDEATHSIG = 1


Specs = Sequence[ChildSpec]


def resolve(target: str) -> Callable[..., Specs | Callable[[ActorSystem], Specs]]:
    """The function named "module:function".

    Raises:
        ValueError: not of that form.
        ImportError, AttributeError: there is no such function.
    """
    module, colon, name = target.partition(":")
    if not colon:
        raise ValueError(f"target {target!r} is not module:function")
    function: Callable[..., Specs | Callable[[ActorSystem], Specs]] = getattr(
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
    # It would log the SystemExit below as a failure; the reason is logged here already.
    logging.getLogger("aiomultiprocess").setLevel(logging.CRITICAL + 1)
    _die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stop.set)
    system = ActorSystem(name)
    service = control_service(system, MountTable())
    built = resolve(target)(*args)
    specs = built(system) if callable(built) else built
    link_spec = ChildSpec(
        "parent-link", lambda: LinkServer(service, link, stop.set), restart=Restart.TEMPORARY
    )
    budget = Intensity(restarts=30, period=30.0)
    code = 0
    try:
        await system.start(
            lambda: Supervisor([*specs, link_spec], intensity=budget), timeout=START_SECONDS
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
            await system.stop(timeout=STOP_SECONDS)
    if parent is not None:
        loop.remove_reader(parent.sentinel)
    if code:
        sys.exit(code)


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies (Linux); the sentinel covers the rest."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
