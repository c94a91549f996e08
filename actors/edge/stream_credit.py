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

from actors.edge.messages import OpenTowards
from actors.runtime import DEFERRED, Actor, Deferred, Refusal, Reply
from actors.transport.claim import StreamClaim
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
    """The openings of one connection.

    Args:
        owner: answers `OpenTowards` with `open`, handles `StarvedCheck`, calls `serve`.
        counters: of the door.
    """

    def __init__(self, owner: Actor, connection: Connection, counters: Counter[str]) -> None:
        # Weakly: it holds us, and would wait for the garbage collector with its connection.
        self._owner: Actor = weakref.proxy(owner)
        self._connection = connection
        self._counters = counters
        self._waiting: list[tuple[StreamClaim, Reply[None]]] = []
        self._checking = False

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, message: OpenTowards) -> Refusal | Deferred | None:
        """The answer to `OpenTowards`."""
        if self._connection.closed is not None:
            return Refusal(CLOSED)
        if not message.claim.wanted:
            return None
        stream = self._connection.open_stream()
        if stream is not None:
            message.claim.put(stream)
            return None
        self._counters["provider_credit_exhausted"] += 1
        if len(self._waiting) >= MAX_WAITING:
            return Refusal("too many streams wait for credit")
        self._waiting.append((message.claim, self._owner.defer()))
        if self._leaks and not self._checking:
            self._checking = True
            self._owner.start_timer(RECYCLE_AFTER, StarvedCheck(), "stream credit")
        return DEFERRED

    def serve(self) -> None:
        """The agent gave credit back."""
        while self._waiting:
            if not self._waiting[0][0].wanted:
                self._waiting.pop(0)
                continue
            stream = self._connection.open_stream()
            if stream is None:
                return
            claim, reply = self._waiting.pop(0)
            claim.put(stream)
            reply.send(None)

    @property
    def _leaks(self) -> bool:
        return self._connection.withheld >= RECYCLE_SHARE

    def starved(self) -> bool:
        """True when the connection is of no use any more; whoever waits was told then."""
        self._checking = False
        self.serve()
        if not self._waiting or not self._leaks:
            return False
        waiting, self._waiting = self._waiting, []
        for _, reply in waiting:
            reply.send(Refusal(RECYCLED))
        return True
