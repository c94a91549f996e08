"""Streams for others: claims served in order, none for those that gave up, nothing orphaned."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from actors.runtime import (
    Actor,
    ActorSystem,
    AskFailed,
    ChildSpec,
    Deferred,
    Refusal,
    Request,
    Restart,
    Supervisor,
    handles,
)
from actors.transport.claim import ClaimQueue, OpenTowards, claim_stream
from actors.transport.stream import Stream
from tests.conftest import eventually, run


class Given:
    """What there is of a stream here: who has it, and how it ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.code: int | None = None

    def abort(self, code: int) -> None:
        """Reset it."""
        self.code = code


class Credit:
    """Beside the queue's actor: gives stream credit."""


class Holder(Actor):
    """Has the connection: a list of streams it may open."""

    def __init__(self, allowed: deque[Given]) -> None:
        self.allowed = allowed
        self.queue = ClaimQueue(self, self._open, bound=2, crowded="crowded")

    def _open(self) -> Stream | None:
        return cast(Stream, self.allowed.popleft()) if self.allowed else None

    @handles(OpenTowards)
    def _towards(self, message: OpenTowards) -> Refusal | Deferred | None:
        return self.queue.open(message)

    @handles(Credit)
    def _credit(self, _: Credit) -> None:
        self.queue.serve()


class Wanted(Request[int]):
    """To an asker: get a stream within so many seconds. The answer: its number, or -1."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Asker(Actor):
    """Wants streams."""

    @handles(Wanted)
    async def _wanted(self, message: Wanted) -> int:
        holder = self.system.ref("/holder")
        assert holder is not None
        try:
            stream = await claim_stream(self, holder, timeout=message.seconds, code=9)
        except AskFailed:
            return -1
        return cast(Given, stream).number


def test_claims_wait_for_credit_in_order_and_those_given_up_get_none() -> None:
    async def main() -> None:
        allowed: deque[Given] = deque()
        system = ActorSystem("test")
        specs = [ChildSpec("holder", lambda: Holder(allowed))]
        specs += [ChildSpec(f"asker{n}", Asker, restart=Restart.TEMPORARY) for n in range(4)]
        await system.start(lambda: Supervisor(specs))
        holder = system.ref("/holder")
        assert holder is not None
        cell = system.find("/holder")
        assert cell is not None
        actor = cell.actor
        assert isinstance(actor, Holder)

        async def ask(number: int, seconds: float) -> int:
            ref = system.ref(f"/asker{number}")
            assert ref is not None
            return await ref.ask(Wanted(seconds), timeout=10.0)

        impatient = asyncio.ensure_future(ask(0, 0.05))
        await eventually(lambda: len(actor.queue) == 1)
        patient = asyncio.ensure_future(ask(1, 5.0))
        await eventually(lambda: len(actor.queue) == 2)
        assert await ask(2, 5.0) == -1  # crowded
        assert await impatient == -1
        allowed.append(Given(1))
        holder.tell(Credit())
        assert await patient == 1
        assert not actor.queue
        # An asker that dies while it waits: its stream is not opened at all.
        doomed = asyncio.ensure_future(ask(3, 5.0))
        await eventually(lambda: len(actor.queue) == 1)
        dying = system.ref("/asker3")
        assert dying is not None
        system.kill(dying)
        assert isinstance((await asyncio.gather(doomed, return_exceptions=True))[0], AskFailed)
        allowed.append(Given(2))
        holder.tell(Credit())
        await eventually(lambda: not actor.queue)
        assert [one.number for one in allowed] == [2]
        await system.stop(timeout=5.0)

    run(main())
