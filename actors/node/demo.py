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

from actors.admin.mounts import ControlFailed, MountTable
from actors.node.process import ProcessSpec, process_child
from actors.runtime import ChildSpec, naming
from actors.transport.addresses import bind_error, to_bind

SERVICE = "demo"
#: Seconds until the demo must answer; then the daemon says that it does not.
READY_SECONDS = 60.0
#: For an agent to say how it is.
ASK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Plain values.

    Attributes:
        relays: where relays listen.
        agents: `provider` and `consumer`: certificate, key and CA paths.
        control_socket: of the daemon.
        web, consumer: addresses.
    """

    relays: tuple[tuple[str, int], ...]
    agents: Mapping[str, tuple[str, str, str]]
    control_socket: str
    web: tuple[str, int]
    consumer: tuple[str, int]
    log_level: str
    log_format: str


def demo_children(plan: Callable[[], DemoPlan], mounts: MountTable) -> list[ChildSpec]:
    """The three processes; `plan` is asked when they start, after the relay listens."""

    def web() -> ProcessSpec:
        now = plan()
        return ProcessSpec(
            "web",
            "tools.demo.processes:web",
            (*now.web, now.control_socket),
            now.log_level,
            now.log_format,
        )

    def agent(name: str) -> Callable[[], ProcessSpec]:
        def spec() -> ProcessSpec:
            now = plan()
            provide = [(SERVICE, *now.web)] if name == "provider" else []
            consume = [(SERVICE, *now.consumer)] if name == "consumer" else []
            return ProcessSpec(
                name,
                "tools.demo.processes:agent",
                (*now.agents[name], now.relays, provide, consume),
                now.log_level,
                now.log_format,
            )

        return spec

    return [
        process_child("web", web, mounts),
        process_child("provider", agent("provider"), mounts),
        process_child("consumer", agent("consumer"), mounts),
    ]


async def announce_demo(
    mounts: MountTable, consumer: tuple[str, int], announce: Callable[[str], object]
) -> None:
    """Wait until a request passes, and print the line to curl."""
    url = f"http://{consumer[0]}:{consumer[1]}/"
    if await _answers(mounts, url):
        announce(f"demo: curl {url}")
    else:
        logger.error("demo: {} does not answer after {:g} s", url, READY_SECONDS)


def fixed_port(
    address: tuple[str, int],
    setting: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> tuple[str, int]:
    """An address that processes listen at which agree on it beforehand: port 0 becomes a free one.

    Args:
        setting: the dotted key it came from.

    Raises:
        StartRefused: nobody can listen there now.
    """
    host, port = address
    family, where = to_bind(host, port)
    transport = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
    with naming(setting), socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener does
        try:
            probe.bind(where)
        except OSError as error:
            raise bind_error(error, host, port, transport) from None
        return host, port or int(probe.getsockname()[1])


async def _answers(mounts: MountTable, url: str) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_SECONDS
    while loop.time() < deadline:
        # Asked before the provider has registered, the relay would refuse, and both would say so.
        if await _connected(mounts) and await asyncio.to_thread(_fetch, url):
            return True
        await asyncio.sleep(0.2)
    return False


async def _connected(mounts: MountTable) -> bool:
    """Whether both agents have a relay that knows what they offer."""
    for name in ("provider", "consumer"):
        mount = mounts.at(f"/node/{name}")
        if mount is None:
            return False
        call = mount.call("describe", {"path": "/link"})
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await call.result()
        except (ControlFailed, TimeoutError):
            return False
        finally:
            call.cancel()
        described = answer.get("describe")
        if not (isinstance(described, Mapping) and described.get("ready")):
            return False
    return True


def _fetch(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3.0) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
