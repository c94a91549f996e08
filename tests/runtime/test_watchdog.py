"""A held-up loop is noticed, blamed on the right code, and in the worst case ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from loguru import logger

from actors.runtime import (
    Actor,
    ActorSystem,
    ChildSpec,
    Event,
    Request,
    Supervisor,
    handles,
)
from actors.runtime.watchdog import Watchdog
from tests.conftest import eventually, run

STALL = 0.05


@pytest.fixture
def lines() -> Iterator[list[str]]:
    collected: list[str] = []
    handler = logger.add(collected.append, format="{message} {extra}")
    logger.enable("actors.runtime")
    yield collected
    logger.remove(handler)


def _blocking_computation(seconds: float) -> None:
    time.sleep(seconds)


def _nap(done: asyncio.Event) -> None:
    _blocking_computation(6 * STALL)
    done.set()


class Nap(Request[str]):
    """Hold up the loop in the way `where` says."""

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where


class Sleeper(Actor):
    @handles(Nap)
    async def _nap(self, nap: Nap) -> str:
        done = asyncio.Event()
        if nap.where == "handler":
            _nap(done)
        elif nap.where == "task":
            self.spawn_task(self._task(done), "nap")
        else:
            asyncio.get_running_loop().call_soon(self.guard("route", _nap), done)
        await done.wait()
        return "awake"

    async def _task(self, done: asyncio.Event) -> None:
        _nap(done)


@pytest.mark.parametrize("where", ["handler", "task", "callback"])
def test_10_3_a_stall_is_logged_and_published_with_actor_and_stack(
    lines: list[str], where: str
) -> None:
    stalls: list[Event] = []

    def note(event: Event) -> None:
        if event.kind == "stalled":
            stalls.append(event)

    async def main() -> float:
        system = ActorSystem("test")
        system.events.subscribe(note)
        await system.start(lambda: Supervisor([ChildSpec("sleeper", Sleeper)]))
        try:
            with Watchdog(STALL, system=system) as watchdog:
                sleeper = system.ref("/sleeper")
                assert sleeper is not None
                await asyncio.sleep(STALL)
                assert await sleeper.ask(Nap(where), timeout=10) == "awake"
                await eventually(lambda: watchdog.stalls >= 1)
                lag = watchdog.lag()
                assert lag.stalls == watchdog.stalls
                assert 0 <= lag.p50 <= lag.p99 <= lag.worst
                assert lag.worst > STALL
                return watchdog.longest_seconds
        finally:
            await system.stop()

    assert run(main()) > STALL
    text = "".join(lines)
    assert "the event loop was held up by /sleeper" in text
    assert "_blocking_computation" in text
    assert "/sleeper" in {event.path for event in stalls}


def test_10_3_code_outside_every_actor_is_named_as_such(lines: list[str]) -> None:
    async def main() -> None:
        with Watchdog(STALL) as watchdog:
            await asyncio.sleep(STALL)
            _blocking_computation(6 * STALL)
            await eventually(lambda: watchdog.stalls >= 1)

    run(main())
    assert "held up by code outside every actor" in "".join(lines)


def test_every_stall_is_counted_and_the_loop_goes_on() -> None:
    async def main() -> int:
        with Watchdog(STALL) as watchdog:
            for expected in (1, 2):
                _blocking_computation(4 * STALL)
                await eventually(lambda: watchdog.stalls >= expected)  # noqa: B023 - awaited here
        return watchdog.stalls

    assert run(main()) >= 2


def test_stopping_twice_is_harmless_and_it_can_start_again() -> None:
    async def main() -> None:
        watchdog = Watchdog(STALL)
        watchdog.stop()
        for _ in range(2):
            watchdog.start()
            watchdog.stop()
            watchdog.stop()

    run(main())


def test_a_loop_that_hangs_is_aborted_with_all_stacks() -> None:
    code = (
        "import asyncio, time\n"
        "from actors.runtime.watchdog import Watchdog\n"
        "def stuck_in_here(): time.sleep(60)\n"
        "async def main():\n"
        "    with Watchdog(0.05, abort_seconds=0.3):\n"
        "        await asyncio.sleep(0.05)\n"
        "        stuck_in_here()\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == -signal.SIGABRT
    assert "event loop held up" in result.stderr
    assert "stuck_in_here" in result.stderr
