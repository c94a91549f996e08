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

from actors.node.watchdog import Watchdog
from tests.conftest import eventually, run

STALL = 0.05


@pytest.fixture
def lines() -> Iterator[list[str]]:
    collected: list[str] = []
    handler = logger.add(collected.append, format="{message} {extra}")
    yield collected
    logger.remove(handler)


def _blocking_computation(seconds: float) -> None:
    time.sleep(seconds)


def test_a_stall_is_logged_with_task_and_stack(lines: list[str]) -> None:
    async def handler() -> None:
        _blocking_computation(6 * STALL)

    async def main() -> Watchdog:
        with Watchdog(STALL) as watchdog:
            await asyncio.sleep(STALL)
            await asyncio.create_task(handler(), name="/edge/streams/7")
            await eventually(lambda: watchdog.stalls >= 1)
        return watchdog

    watchdog = run(main())
    assert watchdog.longest_seconds > STALL
    text = "".join(lines)
    assert "the event loop was held up" in text
    assert "_blocking_computation" in text
    assert "/edge/streams/7" in text


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
        "from actors.node.watchdog import Watchdog\n"
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
    assert "event loop held up for" in result.stderr
    assert "stuck_in_here" in result.stderr
