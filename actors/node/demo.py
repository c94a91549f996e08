"""The demo's processes: web service, provider agent, consumer agent, supervised below `/node`.

The code they run lives in tools/demo and is named as text, so that this room knows no tools.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loguru import logger

from actors.node.mounts import MountTable
from actors.node.process import ProcessSpec
from actors.runtime import ActorSystem, ChildRefused

SERVICE = "demo"
#: Seconds until the demo must answer; then the daemon says that it does not.
READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Plain values.

    Attributes:
        relay: where the relay listens.
        agents: `provider` and `consumer`: certificate, key and CA paths.
        control_socket: of the daemon.
        web, consumer: addresses; port 0 takes a free one.
        announce: prints a line to the user.
    """

    relay: tuple[str, int]
    agents: Mapping[str, tuple[str, str, str]]
    control_socket: str
    web: tuple[str, int]
    consumer: tuple[str, int]
    log_level: str
    log_format: str
    announce: Callable[[str], object]


async def run_demo(system: ActorSystem, mounts: MountTable, plan: DemoPlan) -> None:
    """Start the three processes, wait until a request passes, and print the line to curl."""
    node = system.ref("/node")
    if node is None:
        return
    web = _fixed(plan.web)
    consumer = _fixed(plan.consumer)
    # With no port free for it, the agent fails to bind and its supervisor keeps trying: say so.
    provide = [(SERVICE, *web)]
    consume = [(SERVICE, *consumer)]
    common = (plan.log_level, plan.log_format)
    specs = [
        ProcessSpec("web", "tools.demo.processes:web", (*web, plan.control_socket), *common),
        ProcessSpec(
            "provider",
            "tools.demo.processes:agent",
            (*plan.agents["provider"], plan.relay, provide, []),
            *common,
        ),
        ProcessSpec(
            "consumer",
            "tools.demo.processes:agent",
            (*plan.agents["consumer"], plan.relay, [], consume),
            *common,
        ),
    ]
    for spec in specs:
        try:
            system.start_child(node, spec.child_spec(mounts))
        except ChildRefused as refused:
            logger.error("demo: {}", refused)
            return
    url = f"http://{consumer[0]}:{consumer[1]}/"
    if await _answers(url):
        plan.announce(f"demo: curl {url}")
    else:
        logger.error("demo: {} does not answer after {:g} s", url, READY_SECONDS)


def _fixed(address: tuple[str, int]) -> tuple[str, int]:
    """Replace port 0 by a port that is free now: the processes must agree on it beforehand."""
    host, port = address
    if port:
        return address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return host, int(probe.getsockname()[1])


async def _answers(url: str) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_SECONDS
    while loop.time() < deadline:
        if await asyncio.to_thread(_fetch, url):
            return True
        await asyncio.sleep(0.2)
    return False


def _fetch(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
