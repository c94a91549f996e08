"""The process under measurement: the forward plane's actors, or the same thing as a protocol class.

Started by `tools.bench.forward` with one end of a pipe. It sends `Ready`, then answers every
`Snapshot` with its counters, kills an allocation on `Kill`, and ends when the pipe closes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from struct import Struct
from typing import Any

from loguru import logger

from actors.edge.forward.messages import Grant, Member
from actors.edge.forward.settings import ForwardSettings
from actors.edge.forward.tree import forward_place, forward_spec
from actors.runtime import Actor, ActorSystem, ChildSpec, Intensity, Supervisor
from actors.transport.udp import bind_udp

#: Pairs beside the measured one, so that one killed allocation is not a fifth of all children.
IDLE_PAIRS = 150
_PREFIX = Struct("!I")


@dataclass(slots=True)
class Ready:
    """Where to send, and the ids of both sides."""

    address: tuple[str, int]
    ids: tuple[int, int]


@dataclass(slots=True)
class Snapshot:
    """Ask for counters."""


@dataclass(slots=True)
class Kill:
    """Kill the allocation of the receiving side; answered with the time of it."""


@dataclass(slots=True)
class Counters:
    """Since the start of the process."""

    forwarded: int
    cpu_seconds: float


def run_relay(pipe: Connection, method: str, cpu: int | None) -> None:
    """Entry of the child process. `method` is `plane` or `protocol`."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    asyncio.run(_plane(pipe) if method == "plane" else _protocol(pipe))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _serve(pipe: Connection, ready: Ready, answer: Any) -> None:
    """Answer what comes through the pipe until it closes."""
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            pipe.send(answer(pipe.recv()))
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            closed.set_result(None)

    loop.add_reader(pipe.fileno(), readable)
    pipe.send(ready)
    await closed


class _Peer(Actor):
    """Stands for a stream pair and for the agents' connections: it only has to live."""


async def _plane(pipe: Connection) -> None:
    """The real actors."""
    system = ActorSystem("bench")
    place = forward_place(
        system, ForwardSettings(listen=("127.0.0.1", 0), idle=86_400.0), "/forward"
    )
    children = [ChildSpec("peer", _Peer), forward_spec(place)]
    await system.start(lambda: Supervisor(children, intensity=Intensity(100, 1.0)))
    try:
        peer = system.ref("/peer")
        assert peer is not None
        member = Member("", peer, "127.0.0.1")
        grants = [
            await place.registry().ask(Grant(number, peer, (member, member)), timeout=5.0)
            for number in range(IDLE_PAIRS + 1)
        ]
        cell = system.find("/forward/allocations")
        assert cell is not None
        assert cell.children is not None
        receiving = [child.path for child in cell.children.values()][1]

        def answer(request: object) -> object:
            if isinstance(request, Kill):
                ref = system.ref(receiving)
                assert ref is not None
                at = time.monotonic()
                system.kill(ref, initiator="bench")
                return at
            sock = place.table.socket
            return Counters(sock.datagrams_out if sock is not None else 0, _cpu_seconds())

        address = place.table.address
        assert address is not None
        await _serve(pipe, Ready((address[0], address[1]), grants[0].record.ids), answer)
    finally:
        await system.stop(timeout=5.0)


class _Relay(asyncio.DatagramProtocol):
    """The forward plane as one would write it first."""

    def __init__(self) -> None:
        self.addresses: dict[int, tuple[str, int]] = {}
        self.forwarded = 0
        self.transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        (target,) = _PREFIX.unpack_from(data)
        if not target:
            self.addresses[_PREFIX.unpack_from(data, 4)[0]] = addr
            return
        destination = self.addresses.get(target)
        if destination is not None:
            self.transport.sendto(data[4:], destination)
            self.forwarded += 1


async def _protocol(pipe: Connection) -> None:
    sock = bind_udp("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    transport, relay = await loop.create_datagram_endpoint(_Relay, sock=sock)
    relay.transport = transport
    try:
        await _serve(
            pipe,
            Ready(sock.getsockname(), (1, 2)),
            lambda _: Counters(relay.forwarded, _cpu_seconds()),
        )
    finally:
        transport.close()
        await asyncio.sleep(0)
