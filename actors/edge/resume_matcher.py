"""ResumeMatcher: joins the two halves of streams that came back without their pair.

It owns nothing but a table of who waits: a half and the answer its actor is waiting for. When the
second half of an id arrives its actor is told to lead, the first one to follow. Two halves match
when they are of different agents of one tenant; any other half of the same id is refused, and
whether the stream's former agents are the same is checked before (`half`).

Killed, it forgets everything; the halves' actors notice at once and announce themselves again.

Source: protocol sheet ORP 3.7; 6.1 R3, R6.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.edge.returning import Half
from actors.runtime import DEFERRED, Actor, Deferred, MailboxSpec, Refusal, Reply, Request, handles

#: Halves waiting at most; one more is refused.
MAX_WAITING = 65_536


@dataclass(slots=True)
class Match:
    """The other half is here.

    Attributes:
        lead: True: start the pair; False: be taken by it.
        other: the other half.
    """

    lead: bool
    other: Half


@dataclass(slots=True)
class Park(Request[Match]):
    """Wait for the other half of this one's stream id.

    Refused with a text when it cannot match what is waiting. The asker's timeout is the window.
    """

    half: Half


class ResumeMatcher(Actor):
    """See the module docstring."""

    mailbox = MailboxSpec(bound=65_536)

    def __init__(self) -> None:
        #: Bound: MAX_WAITING; overflow: refuse the newest.
        self._waiting: dict[int, tuple[Half, Reply[Match]]] = {}
        self._matched = 0
        self._refused = 0

    def describe(self) -> dict[str, object]:
        """How many wait."""
        return {
            "waiting": len(self._waiting),
            "matched": self._matched,
            "refused": self._refused,
        }

    @handles(Park)
    def _park(self, message: Park) -> Match | Refusal | Deferred:
        half = message.half
        waiting = self._waiting.get(half.stream_id)
        if waiting is not None and not self._waits(*waiting):
            del self._waiting[half.stream_id]
            waiting = None
        if waiting is None:
            return self._wait(half)
        other, reply = waiting
        if other.uri == half.uri:
            # The same agent came back once more: the newer stream is the one it reads.
            del self._waiting[half.stream_id]
            other.refuse(0)
            return self._wait(half)
        if other.tenant != half.tenant:
            self._refused += 1
            return Refusal("another tenant's stream")
        del self._waiting[half.stream_id]
        self._matched += 1
        reply.send(Match(False, half))
        return Match(True, other)

    def _wait(self, half: Half) -> Refusal | Deferred:
        if len(self._waiting) >= MAX_WAITING:
            self._forget_ended()
            if len(self._waiting) >= MAX_WAITING:
                self._refused += 1
                return Refusal("too many streams wait")
        self._waiting[half.stream_id] = (half, self.defer())
        return DEFERRED

    def _forget_ended(self) -> None:
        self._waiting = {
            stream_id: entry for stream_id, entry in self._waiting.items() if self._waits(*entry)
        }

    @staticmethod
    def _waits(half: Half, reply: Reply[Match]) -> bool:
        return reply.wanted and not half.taken and not half.gone
