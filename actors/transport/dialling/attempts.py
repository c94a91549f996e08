"""Several addresses, one connection: attempts begin staggered, the first to succeed wins.

The next attempt begins when the one before has failed or `STAGGER_SECONDS` have passed; earlier
ones go on beside it. The losers are cancelled, and a connection that one of them got all the same
is discarded. How long one attempt and all of them may take is the caller's matter.

Source: RFC 8305 section 5.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from actors.transport.connection import DialFailed

#: RFC 8305 section 8, recommended.
STAGGER_SECONDS: Final = 0.25

A = TypeVar("A")
R = TypeVar("R")


async def first_to_connect(
    targets: Sequence[A],
    attempt: Callable[[A], Coroutine[Any, Any, R]],
    discard: Callable[[R], object],
    *,
    stagger: float = STAGGER_SECONDS,
) -> R:
    """What the first attempt that succeeds returns.

    Args:
        targets: what to try, the best first; not empty.
        attempt: raises OSError or DialFailed when it fails; any other exception ends them all.
        discard: closes a connection that came too late.
        stagger: seconds between two attempts; 0: all at once.

    Raises:
        OSError, DialFailed: what the attempt raised that failed last.
    """
    waiting = deque(targets)
    running: set[asyncio.Task[R]] = set()
    failure: OSError | DialFailed = OSError("nothing to dial")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(attempt(waiting.popleft())))
            pause = stagger if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
            while done:
                outcome = _outcome(done.pop(), running)
                if isinstance(outcome, _Won):
                    running |= done  # those that are not looked at any more
                    return outcome.result
                failure = outcome
                del outcome
        raise failure
    finally:
        del failure  # its traceback holds this frame, which must not hold it
        await _end(running, discard)


class _Won(Generic[R]):
    """What an attempt returned."""

    __slots__ = ("result",)

    def __init__(self, result: R) -> None:
        self.result = result


def _outcome(
    task: asyncio.Task[R], running: set[asyncio.Task[R]]
) -> _Won[R] | OSError | DialFailed:
    running.discard(task)
    try:
        return _Won(task.result())
    except (OSError, DialFailed) as error:
        return error.with_traceback(None)


async def _end(running: set[asyncio.Task[R]], discard: Callable[[R], object]) -> None:
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    while running:
        task = running.pop()
        if not task.cancelled() and task.exception() is None:
            discard(task.result())
