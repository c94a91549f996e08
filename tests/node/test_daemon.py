"""The life of a daemon's process, around any tree."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Iterator

import pytest

from actors.node.daemon import Daemon, ExitCode, Hooks
from actors.runtime import Actor, ActorSystem, ChildSpec, Supervisor
from tests.conftest import eventually, run


class Stuck(Actor):
    """Never gets ready."""

    async def init(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _own_thresholds() -> Iterator[None]:
    """A daemon sets the collector for its process."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_the_collector_walks_what_was_loaded_before_anybody_waits_for_the_loop() -> None:
    """That took long enough for a warning about the loop in a healthy start."""
    frozen: list[int] = []

    def root(_: ActorSystem) -> Supervisor:
        frozen.append(gc.get_freeze_count())
        return Supervisor([ChildSpec("stuck", Stuck, start_timeout=60.0)])

    async def main() -> None:
        gc.unfreeze()
        loaded = len(gc.get_objects())
        daemon = Daemon("test", root, drain_seconds=lambda: 1.0, hooks=Hooks())
        running = asyncio.create_task(daemon.run())
        await eventually(lambda: frozen)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running is ExitCode.OK
        assert frozen[0] > 0.9 * loaded

    run(main())


def test_a_signal_ends_a_start_that_hangs() -> None:
    async def main() -> None:
        ready: list[str] = []

        async def note(_: ActorSystem) -> None:
            ready.append("ready")

        daemon = Daemon(
            "test",
            lambda _: Supervisor([ChildSpec("stuck", Stuck, start_timeout=60.0)]),
            drain_seconds=lambda: 1.0,
            hooks=Hooks(ready=note),
        )
        running = asyncio.create_task(daemon.run())
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        assert await running is ExitCode.OK
        assert not ready

    run(main())
