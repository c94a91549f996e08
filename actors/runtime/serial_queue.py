"""A bounded queue of slow errands of one actor, run one after the other by one owned task.

Data-plane callbacks are synchronous; what they want from other actors (confirm a REGISTER, find
the peer of a stream) goes here, in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from actors.runtime.actor import Actor

T = TypeVar("T")


class SerialQueue(Generic[T]):
    """A bounded queue of slow errands of one actor, run one after the other by one owned task.

    Args:
        actor: the owner; a failing errand is its exit.
        name: of the task.
        run: one errand.
        bound: errands waiting; one more is refused (`add` answers False).
    """

    def __init__(
        self, actor: Actor, name: str, run: Callable[[T], Awaitable[None]], *, bound: int
    ) -> None:
        self._actor: Actor | None = actor
        self._name = name
        self._run: Callable[[T], Awaitable[None]] | None = run
        self._bound = bound
        self._waiting: list[T] = []  # short, and empty nearly always: a deque is ten times as large
        self._running = False
        actor.own(self, f"{name} queue")

    def abort(self) -> None:
        """The owner ended: hold nothing of it, or it would wait for the garbage collector."""
        self._waiting.clear()
        self._actor = self._run = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, errand: T) -> bool:
        """Queue one. False when the bound is reached."""
        if self._actor is None or len(self._waiting) >= self._bound:
            return False
        self._waiting.append(errand)
        if not self._running:
            self._running = True
            self._actor.spawn_task(self._work(), self._name)
        return True

    async def _work(self) -> None:
        try:
            while self._waiting and self._run is not None:
                await self._run(self._waiting.pop(0))
        finally:
            self._running = False
