"""What the actor runtime costs, beside a bare task with a queue and future, and beside pykka.

All in one process and one run, one after the other: ratios hold, absolute figures move with the
machine. pykka is a development dependency; without it its rows are left out.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from actors.node.collector import tune_collector
from actors.runtime import (
    Actor,
    ActorRef,
    ActorSystem,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    Event,
    Intensity,
    MailboxSpec,
    Request,
    Restart,
    Supervisor,
    handles,
)

BURSTS = 400
BURST = 64
ASKS = 10_000
RESTARTS = 300

TELL = "tell and handle, bursts of 64"
QUEUE = "asyncio.Queue put and get, same bursts"
TELL_IDLE = "tell and handle, receiver idle"
ASK = "ask, receiver idle"
BARE_ASK = "task + queue + future round trip"
PYKKA_TELL = "pykka tell and handle"
PYKKA_ASK = "pykka ask"
PYKKA_TELL_ONE = "pykka tell and handle, on one CPU"
PYKKA_ASK_ONE = "pykka ask, on one CPU"
START = "start of one actor"
MEMORY = "memory of one idle actor"
PYKKA_START = "pykka start of one actor"
PYKKA_MEMORY = "pykka memory of one idle actor"
#: pykka's actors are threads: enough of them for an average, few enough for any machine.
PYKKA_ACTORS = 1000
#: Ours, and what it is compared with: each pair does the same work.
COMPARED = (
    (TELL, QUEUE),
    (ASK, BARE_ASK),
    (TELL, PYKKA_TELL),
    (ASK, PYKKA_ASK),
    (TELL, PYKKA_TELL_ONE),
    (ASK, PYKKA_ASK_ONE),
    (START, PYKKA_START),
    (MEMORY, PYKKA_MEMORY),
)


Row = dict[str, Any]


@dataclass(slots=True)
class Note:
    """A message without answer."""

    number: int


@dataclass(slots=True)
class Echo(Request[int]):
    """A message with one."""

    number: int


@dataclass(slots=True)
class Fail:
    """Makes the actor crash; `at` becomes the moment."""

    at: float = 0.0


class Probe(Actor):
    """The actor that is measured."""

    mailbox = MailboxSpec(bound=100_000)

    @handles(Note)
    def _note(self, message: Note) -> None:
        pass

    @handles(Echo)
    def _echo(self, message: Echo) -> int:
        return message.number

    @handles(Fail)
    def _fail(self, message: Fail) -> None:
        message.at = time.perf_counter()
        raise ValueError("asked for")


class Idle(Actor):
    """An actor that only exists."""

    @handles(Note)
    def _note(self, message: Note) -> None:
        pass


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _row(what: str, value: float, unit: str) -> Row:
    return {"what": what, "value": value, "unit": unit}


async def measure(actors: int) -> list[Row]:
    """Every row, in the order they are printed."""
    logger.remove()
    system = ActorSystem("bench", seed=1)
    spec = ChildSpec("probe", Probe, backoff=Backoff(base=0.0, cap=0.0, stable_after=0.0))
    children = [spec, ChildSpec("idle", lambda: DynamicSupervisor(max_children=actors + 1))]
    generous = Intensity(restarts=1_000_000, period=1.0)
    await system.start(lambda: Supervisor(children, intensity=generous))
    tune_collector()  # as the daemon does
    probe, idle = system.ref("/probe"), system.ref("/idle")
    assert probe is not None
    assert idle is not None
    rows = [
        _row(TELL, await _tells(probe), "us"),
        _row(QUEUE, await _queue(), "us"),
        _row(TELL_IDLE, await _lone_tells(probe), "us"),
        _row(ASK, await _asks(probe), "us"),
        _row(BARE_ASK, await _bare_asks(), "us"),
    ]
    running, latencies = await _restarts(system, probe), await _answers(probe)
    rows.append(_row("crash to running again, p50", statistics.median(running), "us"))
    rows.append(_row("crash to running again, p99", sorted(running)[-len(running) // 100], "us"))
    rows.append(_row("crash to next answer, p50", statistics.median(latencies), "us"))
    rows.append(_row("crash to next answer, p99", sorted(latencies)[-len(latencies) // 100], "us"))
    rows += await _population(system, idle, actors)
    await system.stop(timeout=120.0)
    rows += _pykka()
    return rows + _ratios(rows)


async def _tells(probe: ActorRef) -> float:
    await probe.ask(Echo(0), timeout=5.0)
    began = time.perf_counter()
    for _ in range(BURSTS):
        for number in range(BURST):
            probe.tell(Note(number))
        await asyncio.sleep(0)
    await probe.ask(Echo(0), timeout=5.0)
    return (time.perf_counter() - began) / (BURSTS * BURST) * 1e6


async def _lone_tells(probe: ActorRef) -> float:
    """Every message finds its receiver asleep, and is handled before the next one is sent."""
    began = time.perf_counter()
    for number in range(ASKS):
        probe.tell(Note(number))
        await asyncio.sleep(0)
    return (time.perf_counter() - began) / ASKS * 1e6


async def _queue() -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(1024)

    async def consume() -> None:
        for _ in range(BURSTS * BURST):
            await queue.get()

    consumer = asyncio.create_task(consume())
    began = time.perf_counter()
    for _ in range(BURSTS):
        for number in range(BURST):
            await queue.put(number)
        await asyncio.sleep(0)
    await consumer
    return (time.perf_counter() - began) / (BURSTS * BURST) * 1e6


async def _asks(probe: ActorRef) -> float:
    began = time.perf_counter()
    for number in range(ASKS):
        await probe.ask(Echo(number), timeout=5.0)
    return (time.perf_counter() - began) / ASKS * 1e6


async def _bare_asks() -> float:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[asyncio.Future[int] | None] = asyncio.Queue(1024)

    async def serve() -> None:
        while (future := await queue.get()) is not None:
            future.set_result(1)

    server = asyncio.create_task(serve())
    began = time.perf_counter()
    for _ in range(ASKS):
        future: asyncio.Future[int] = loop.create_future()
        await queue.put(future)
        await future
    elapsed = time.perf_counter() - began
    await queue.put(None)
    await server
    return elapsed / ASKS * 1e6


async def _restarts(system: ActorSystem, probe: ActorRef) -> list[float]:
    """From the crash until it was started again, with nobody asking meanwhile."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    fail, running = Fail(), loop.create_future()

    def started(event: Event) -> None:
        if event.kind == "started" and event.path == probe.path:
            latencies.append((time.perf_counter() - fail.at) * 1e6)
            running.set_result(None)

    token = system.events.subscribe(started)
    for _ in range(RESTARTS):
        fail, running = Fail(), loop.create_future()
        probe.tell(fail)
        await running
    system.events.unsubscribe(token)
    return latencies


async def _answers(probe: ActorRef) -> list[float]:
    """From the message that makes it crash until it answers one who keeps asking."""
    latencies: list[float] = []
    for number in range(RESTARTS):
        began = time.perf_counter()
        probe.tell(Fail())
        await asyncio.sleep(0)
        await probe.ask_again(Echo(number), timeout=5.0, pause=0.0)
        latencies.append((time.perf_counter() - began) * 1e6)
    return latencies


def _touch(size: int) -> None:
    """Make the kernel have `size` bytes of memory at hand.

    In a virtual machine the first touch of a page may be an exit to the hypervisor: half as much
    again as the actor that lives in it.
    """
    memory = bytearray(size)
    memory[::4096] = b"." * len(memory[::4096])


async def _population(system: ActorSystem, idle: ActorRef, actors: int) -> list[Row]:
    _touch(actors * 4096)
    gc.collect()
    before = _rss()
    began = time.perf_counter()
    last = idle
    for number in range(actors):
        spec = ChildSpec(f"n{number}", Idle, restart=Restart.TEMPORARY)
        last = system.start_child(idle, spec)
        if number % 1000 == 999:
            await asyncio.sleep(0)
    await last.started(timeout=60.0)
    elapsed = time.perf_counter() - began
    gc.collect()
    return [
        _row("live actors", actors, "actors"),
        _row(START, elapsed / actors * 1e6, "us"),
        _row(MEMORY, (_rss() - before) / actors, "bytes"),
    ]


def _pykka() -> list[Row]:
    """pykka in both placements of its threads; without it, or without a choice of CPUs, fewer.

    Its threads take turns anyway (one interpreter lock). On one CPU a turn is a cheap switch; on
    two, the other CPU has to be woken for every message. The kernel decides which it is, so one
    figure alone would be luck.
    """
    try:
        pykka = importlib.import_module("pykka")
    except ModuleNotFoundError:
        return []
    rows = _pykka_rows(pykka, PYKKA_TELL, PYKKA_ASK) + _pykka_population(pykka)
    if hasattr(os, "sched_setaffinity"):
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        try:
            rows += _pykka_rows(pykka, PYKKA_TELL_ONE, PYKKA_ASK_ONE)
        finally:
            os.sched_setaffinity(0, cpus)
    return rows


def _pykka_rows(pykka: Any, tell_name: str, ask_name: str) -> list[Row]:
    echo: Any = type(
        "PykkaEcho", (pykka.ThreadingActor,), {"on_receive": lambda _self, message: message}
    )

    def tells() -> None:
        # As `_tells`: the same number of messages, and the time until the last one was handled.
        for number in range(BURSTS * BURST):
            ref.tell(number)
        ref.ask(0)

    def asks() -> None:
        for number in range(ASKS):
            ref.ask(number)

    def timed(count: int, work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) / count * 1e6

    ref = echo.start()
    try:
        ref.ask(0)
        tell = timed(BURSTS * BURST, tells)
        ask = timed(ASKS, asks)
    finally:
        ref.stop()
    return [_row(tell_name, tell, "us"), _row(ask_name, ask, "us")]


def _pykka_population(pykka: Any) -> list[Row]:
    idle: Any = type("PykkaIdle", (pykka.ThreadingActor,), {})
    refs: list[Any] = []
    before = _rss()
    began = time.perf_counter()
    try:
        refs.extend(idle.start() for _ in range(PYKKA_ACTORS))
        refs[-1].proxy().actor_urn.get()  # as `_population`: the last one is up
        elapsed = time.perf_counter() - began
        used = _rss() - before
    finally:
        for ref in refs:
            ref.stop(block=False)
    return [
        _row(PYKKA_START, elapsed / PYKKA_ACTORS * 1e6, "us"),
        _row(PYKKA_MEMORY, used / PYKKA_ACTORS, "bytes"),
    ]


def _ratios(rows: list[Row]) -> list[Row]:
    """How many times cheaper ours is than what it is compared with; below 1 it costs more."""
    values = {str(row["what"]): float(row["value"]) for row in rows}
    return [
        _row(f"{theirs} / ours", values[theirs] / values[ours], "x")
        for ours, theirs in COMPARED
        if theirs in values
    ]
