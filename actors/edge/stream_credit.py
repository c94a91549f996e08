"""Streams towards an agent: opened at once, or when the agent gives stream credit back.

Agents of the reference leak credit: they do not read streams to their end in forward mode, after a
reject, or when one went peer to peer. When it is used up nobody can reach them any more. A new
connection has all of it, and the agent registers and resumes on it: the connection is *recycled*.
Whoever waits for a stream then is told, and asks the agent's next connection.

Source: protocol sheet ORP 1.5; 6.1 R11; 6.5 A10.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Final

from actors.runtime import DEFERRED, Actor, Deferred, Refusal
from actors.transport.claim import ClaimQueue, OpenTowards
from actors.transport.connection import Connection

#: Openings that wait for one agent's credit; one more is refused.
MAX_WAITING = 1024
#: A connection is recycled when streams that are over hold this share of its credit, and a new one
#: still finds none after so many seconds.
RECYCLE_SHARE = 0.9
RECYCLE_AFTER = 0.25
#: What those that wait are told.
RECYCLED: Final = "recycled"
#: What those are told that come when the connection is over.
CLOSED: Final = "closed"


class StarvedCheck:
    """A stream has waited for credit: does the agent give any back?"""

    __slots__ = ()


class StreamCredit:
    """The openings of one agent's connection.

    Args:
        owner: answers `OpenTowards` with `open`, handles `StarvedCheck`, calls `serve`.
        counters: of the door.
    """

    def __init__(self, owner: Actor, connection: Connection, counters: Counter[str]) -> None:
        # Weakly: it holds us, and would wait for the garbage collector with its connection.
        self._owner: Actor = weakref.proxy(owner)
        self._connection = connection
        self._counters = counters
        self._waiting = ClaimQueue(
            owner,
            connection.open_stream,
            bound=MAX_WAITING,
            crowded="too many streams wait for credit",
        )
        #: The agent gave credit back: to whoever waits longest.
        self.serve = self._waiting.serve
        self._checking = False

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, message: OpenTowards) -> Refusal | Deferred | None:
        """The answer to `OpenTowards`."""
        if self._connection.closed is not None:
            return Refusal(CLOSED)
        answer = self._waiting.open(message)
        if answer is None:
            return None
        self._counters["provider_credit_exhausted"] += 1
        if answer is DEFERRED and self._leaks and not self._checking:
            self._checking = True
            self._owner.start_timer(RECYCLE_AFTER, StarvedCheck(), "stream credit")
        return answer

    @property
    def _leaks(self) -> bool:
        return self._connection.withheld >= RECYCLE_SHARE

    def starved(self) -> bool:
        """True when the connection is of no use any more; whoever waits was told then."""
        self._checking = False
        self.serve()
        if not self._waiting or not self._leaks:
            return False
        self._waiting.refuse(RECYCLED)
        return True
