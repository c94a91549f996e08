"""Trees that child processes of the tests run; named by "module:function"."""

from __future__ import annotations

import asyncio
import os
import signal

from actors.runtime import Actor, ChildSpec, Supervisor


class Sleeper(Actor):
    """Does nothing, visibly."""

    def describe(self) -> dict[str, object]:
        """Which process."""
        return {"pid": os.getpid()}


class Ends(Actor):
    """Ends its process in one of several ways, once it runs."""

    def __init__(self, how: str) -> None:
        self._how = how

    def init(self) -> None:
        """End it soon."""
        self.spawn_task(self._end(), "end")

    async def _end(self) -> None:
        await asyncio.sleep(0.05)
        if self._how == "zero":
            os._exit(0)
        if self._how == "three":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, self._how))


class Stubborn(Actor):
    """Does not let SIGTERM end the process."""

    def init(self) -> None:
        """Ignore it, for good."""
        loop = self.system.loop
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def sleeper() -> list[ChildSpec]:
    """/app/sleeper."""
    return [ChildSpec("app", lambda: Supervisor([ChildSpec("sleeper", Sleeper)]))]


def ends(how: str) -> list[ChildSpec]:
    """/ends."""
    return [ChildSpec("ends", lambda: Ends(how))]


def stubborn() -> list[ChildSpec]:
    """/stubborn."""
    return [ChildSpec("stubborn", Stubborn)]


def broken() -> list[ChildSpec]:
    """Nothing: it raises."""
    raise RuntimeError("no tree today")
