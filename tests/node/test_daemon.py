"""The life of a daemon's process, around any tree."""

from __future__ import annotations

import asyncio
import os
import signal

from actors.node.daemon import Daemon, ExitCode, Hooks
from actors.runtime import Actor, ActorSystem, ChildSpec, Supervisor
from tests.conftest import run


class Stuck(Actor):
    """Never gets ready."""

    async def init(self) -> None:
        await asyncio.Event().wait()


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
