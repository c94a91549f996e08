"""ResumeMatcher: joins the two halves of streams that came back without their pair.

It owns nothing but a table of who waits: halves and the answers their actors are waiting for. When
a half arrives that fits one, its actor is told to lead, the other to follow. Two halves fit when
they are of different agents of one tenant, of the stream's own agents as far as one of them knows,
and policy did not part them before. Those that do not fit wait beside each other: whoever claims
another one's stream keeps nobody from it.

Killed, it forgets everything; the halves' actors notice at once and announce themselves again.

Source: protocol sheet ORP 3.7; 6.1 R3, R6.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.edge.resume.returning import ResumingStream
from actors.runtime import DEFERRED, Actor, Deferred, MailboxSpec, Refusal, Reply, Request, handles

#: Halves waiting at most; one more is refused.
MAX_WAITING = 65_536
#: Of one stream id; more than two only where somebody claims a stream that is not its own.
MAX_PER_STREAM = 8


@dataclass(slots=True)
class Match:
    """The other half is here.

    Attributes:
        lead: True: start the pair; False: be taken by it.
        other: the other half.
    """

    lead: bool
    other: ResumingStream


@dataclass(slots=True)
class Park(Request[Match]):
    """Wait for the other half of this one's stream id.

    Refused with a text when it cannot match what is waiting. The asker's timeout is the window.
    """

    half: ResumingStream


@dataclass(slots=True)
class Leave:
    """This half does not wait any more."""

    half: ResumingStream


class ResumeMatcher(Actor):
    mailbox = MailboxSpec(bound=65_536)

    def __init__(self) -> None:
        #: By tenant and stream id. Bounds: MAX_WAITING in all, MAX_PER_STREAM; overflow: refuse
        #: the newest.
        self._waiting: dict[tuple[str, int], list[tuple[ResumingStream, Reply[Match]]]] = {}
        self._total = 0
        self._matched = 0
        self._refused = 0

    def describe(self) -> dict[str, object]:
        """How many wait."""
        return {
            "waiting": self._total,
            "matched": self._matched,
            "refused": self._refused,
        }

    @handles(Park)
    def _park(self, message: Park) -> Match | Refusal | Deferred:
        half = message.half
        key = half.tenant, half.stream_id
        waiting = []
        for entry in self._waiting.get(key, ()):
            if not self._waits(*entry):
                continue
            if entry[0].uri == half.uri:
                # The same agent came back once more: the newer stream is the one it reads.
                entry[0].refuse(0)
            else:
                waiting.append(entry)
        for entry in waiting:
            other, reply = entry
            if half.may_meet(other):
                waiting.remove(entry)
                self._keep(key, waiting)
                self._matched += 1
                reply.send(Match(False, half))
                return Match(True, other)
        self._keep(key, waiting)
        if self._total >= MAX_WAITING:
            for ended in list(self._waiting):
                self._keep(ended, [one for one in self._waiting[ended] if self._waits(*one)])
        if self._total >= MAX_WAITING or len(waiting) >= MAX_PER_STREAM:
            self._refused += 1
            return Refusal("too many streams wait")
        self._keep(key, [*waiting, (half, self.defer())])
        return DEFERRED

    @handles(Leave)
    def _leave(self, message: Leave) -> None:
        key = message.half.tenant, message.half.stream_id
        self._keep(key, [one for one in self._waiting.get(key, ()) if one[0] is not message.half])

    def _keep(
        self, key: tuple[str, int], waiting: list[tuple[ResumingStream, Reply[Match]]]
    ) -> None:
        self._total += len(waiting) - len(self._waiting.pop(key, ()))
        if waiting:
            self._waiting[key] = waiting

    @staticmethod
    def _waits(half: ResumingStream, reply: Reply[Match]) -> bool:
        return reply.wanted and not half.taken and not half.gone
