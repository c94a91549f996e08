"""Where a stream is that may change the connections it travels on, and what can be sent again.

Positions count application bytes from the start of the stream, per direction, over all streams
that carried it. A relay keeps a `ReplayPositions` for each of the two agents, an agent one for the
other.

The last bytes sent towards an agent are kept in case its connection is lost.

An agent that comes back says how much its application received; what it lacks is replayed from
here. The transport's acknowledgement is not enough to drop a byte: it may still lie unread in the
agent, at most one stream window of it. So the ring keeps that much, or less when the agent says
with a checkpoint how far it read.

All rings of a door share one budget. When it is used up rings forget their oldest bytes earlier,
and a stream whose lost bytes are forgotten is resumed from the agents' own rings, or fails.

Source: protocol sheet ORP 3.6 to 3.8; 6.1 R4.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from wire.orp.messages import StreamResume, StreamTerms


@dataclass(slots=True)
class RingBudget:
    """Bytes in all rings of a door.

    Attributes:
        limit: most bytes in all rings; a ring that would exceed it forgets old bytes first.
        used: bytes in all rings now.
    """

    limit: int
    used: int = 0


class ReplayRing:
    """The newest bytes sent one way. Holds references to chunks, and copies nothing.

    Args:
        limit: most bytes of this ring; the oldest chunk beyond it is forgotten.
        budget: shared.
        start: position of the first byte in the stream.
    """

    __slots__ = ("_budget", "_chunks", "_limit", "_size", "end")

    def __init__(self, limit: int, budget: RingBudget, start: int = 0) -> None:
        self._limit = limit
        self._budget = budget
        self._chunks: deque[bytes | memoryview] = deque()
        self._size = 0
        self.end = start  #: position behind the newest byte

    @property
    def start(self) -> int:
        """Position of the oldest byte that can be replayed."""
        return self.end - self._size

    def append(self, chunk: bytes) -> None:
        """These bytes were sent."""
        size = len(chunk)
        self.end += size
        self._size += size
        budget = self._budget
        budget.used += size
        self._chunks.append(chunk)
        if self._size > self._limit or budget.used > budget.limit:
            self._forget()

    def _forget(self) -> None:
        budget, chunks = self._budget, self._chunks
        while chunks and (self._size > self._limit or budget.used > budget.limit):
            size = len(chunks.popleft())
            self._size -= size
            budget.used -= size

    def trim(self, position: int) -> None:
        """The agent's application received everything before `position`."""
        chunks = self._chunks
        while chunks and self.start + len(chunks[0]) <= position:
            size = len(chunks.popleft())
            self._size -= size
            self._budget.used -= size

    def since(self, position: int) -> list[bytes | memoryview] | None:
        """The bytes from `position` on; None: not all of them are here."""
        if not self.start <= position <= self.end:
            return None
        skip = position - self.start
        result: list[bytes | memoryview] = []
        for chunk in self._chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
            else:
                result.append(memoryview(chunk)[skip:] if skip else chunk)
                skip = 0
        return result

    def clear(self) -> None:
        """Nothing will be replayed any more."""
        self._budget.used -= self._size
        self._size = 0
        self._chunks.clear()


class ReplayPositions:
    """Both directions between us and one agent.

    Args:
        ring: what was sent towards the agent; its end is our position.
        received: application bytes that came from the agent before.

    Attributes:
        received: application bytes that came from the agent.
        confirmed: up to where its application has what we sent, as far as it said.
        fin_confirmed: it said that our FIN came, too.
    """

    __slots__ = ("confirmed", "fin_confirmed", "received", "ring")

    def __init__(self, ring: ReplayRing, received: int = 0) -> None:
        self.ring = ring
        self.received = received
        self.confirmed = ring.end
        self.fin_confirmed = False

    @property
    def sent(self) -> int:
        """Application bytes sent towards the agent."""
        return self.ring.end

    def confirm(self, received: int, *, ended: bool = False) -> None:
        """Its application has everything before this position, and the FIN if `ended`.

        A position that is not between the last one and what we sent says nothing: the agent may
        have got more by another path.
        """
        self.fin_confirmed = self.fin_confirmed or ended
        if self.confirmed < received <= self.sent:
            self.confirmed = received
            self.ring.trim(received)

    def has_everything(self, *, fin: bool) -> bool:
        """True when it confirmed all that was sent; with `fin`, the FIN as well."""
        return self.confirmed == self.sent and (self.fin_confirmed or not fin)

    def fits(self, sent: int, received: int, *, told: bool = True) -> bool:
        """True when an agent with these positions can go on from ours.

        Args:
            sent: application bytes it ever sent; we have a prefix of them.
            received: application bytes it received; the rest must be in the ring.
            told: False: it will not hear what we have, so we must have everything.
        """
        enough = sent >= self.received if told else sent == self.received
        return enough and self.ring.start <= received <= self.ring.end

    def resume(self, stream_id: int, terms: StreamTerms | None = None) -> StreamResume:
        """Our positions, for an agent, or for a relay that judges by the terms."""
        return StreamResume(stream_id, self.sent, self.received, terms)
