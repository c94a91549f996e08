"""A stream that came back, until it has its other half: the object, and the actor that owns it.

The actor looks for a live pair of the stream id, which takes the half; else it waits at the matcher
for the other agent's half. Whoever leads a match starts the pair, which takes both. Taking is one
step of one object, so a half always has exactly one owner, and the death of the matcher costs
nobody anything: the halves announce themselves again.

Source: protocol sheet ORP 3.7, 3.10; 6.1 R3, R6.
"""

from __future__ import annotations

from actors.control.messages import Decision
from actors.edge.context import EdgeContext
from actors.edge.messages import Denied, Rejoin
from actors.edge.opening.stream_policy import judge, judge_halves, provided, unknown
from actors.edge.pair_table import PairRow
from actors.edge.relays.offering import Offered, offer
from actors.edge.resume.matcher import Leave, Match, Park
from actors.edge.resume.resumed_pair import ResumedPair
from actors.edge.resume.returning import ResumingStream
from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    ActorSystem,
    AskTimeout,
    ChildRefused,
    ChildSpec,
    MailboxFull,
    MailboxSpec,
    ReplyError,
    Restart,
    shutdown,
)
from wire.orp.close_codes import ResetCode

#: Seconds a live pair has to answer.
REJOIN_SECONDS = 5.0
#: Seconds the leader of a match has to take both halves; then the others look again.
LEAD_SECONDS = 1.0


class _Place:
    """A half's place at the matcher, as a resource of its actor."""

    __slots__ = ("_half", "_matcher")

    def __init__(self, matcher: ActorRef, half: ResumingStream) -> None:
        self._matcher = matcher
        self._half = half

    def abort(self) -> None:
        """The actor ended while it waited."""
        self._matcher.try_tell(Leave(self._half))


def start_half(door: EdgeContext, system: ActorSystem, half: ResumingStream) -> ActorRef | None:
    """The half's actor, which may end before it ran; None: the half was refused."""
    quotas = door.quotas
    if quotas.returns.take(half.tenant, half.uri, door.clock()):
        half.ticket = quotas.halves.take(half.tenant, half.uri)
    if half.ticket is None:
        half.abort()  # as after any fault of a relay: the agent may try again
        return None
    name = f"{half.stream_id:016x}~{door.next_serial()}"
    spec = ChildSpec(name, lambda: ResumeHalf(door, half), restart=Restart.TEMPORARY, shutdown=1.0)
    try:
        return system.start_child(door.halves(), spec)
    except ChildRefused as refused:
        door.counters[f"resume_refused_{refused.why}"] += 1
        half.abort()
        return None


class ResumeHalf(Actor):
    mailbox = MailboxSpec(bound=16)

    def __init__(self, door: EdgeContext, half: ResumingStream) -> None:
        self._door = door
        self._half = half
        self._phase = "looking"
        #: The row of the live pair that was judged, and how: once for every return.
        self._judged: tuple[PairRow, Decision] | None = None

    def init(self) -> None:
        """Own the stream; what it brings meanwhile is held, bounded by its window."""
        half = self._half
        self.own(half, "stream")
        half.owned = True
        if half.ticket is not None:
            self.own(half.ticket, "ticket")
        half.listen(self.guard("half", self._gone))

    def describe(self) -> dict[str, object]:
        """Whose half of which stream waits, and how."""
        half = self._half
        return {
            "phase": self._phase,
            "stream_id": f"{half.stream_id:016x}",
            "agent_uri": half.uri,
            "sent": half.resume.my_position,
            "received": half.resume.peer_ack_position,
        }

    def _gone(self) -> None:
        self._door.counters["half_lost"] += 1
        self.stop(shutdown("stream ended while waiting"))

    def continue_(self) -> None:
        """Find an owner for the half; in a task, because a half that is gone ends at once."""
        self.spawn_task(self._find_owner(), "search")

    async def _find_owner(self) -> None:
        half = self._half
        deadline = self.now() + self._door.settings.resume_window
        half.row = self._door.pairs.row(half.stream_id, self.now()) or half.row
        self._offer(deadline)
        while not half.taken and not half.gone:
            left = deadline - self.now()
            if left <= 0:
                self._door.counters["resume_expired"] += 1
                self._refuse("no other half in time", ResetCode.DEADLINE)
                return
            half.row = self._door.pairs.row(half.stream_id, self.now()) or half.row
            if half.row is not None and not half.row.has(half.uri):
                self._door.counters["resume_stranger"] += 1
                self._refuse("not a member", ResetCode.REJECTED)
                return
            if self._door.pairs.finished(half.stream_id):
                self._refuse("finished", ResetCode.NONE)
                return
            pair = self._door.pairs.live(half.stream_id)
            try:
                if pair is not None and half.row is not None:
                    self._phase = "rejoining"
                    decision = await self._judge(half.row)
                    if not decision.allow:
                        self._deny(decision)
                        if not unknown(decision):
                            pair.try_tell(Denied())
                        return
                    rejoin = Rejoin(half, decision.p2p_mode)
                    await pair.ask(rejoin, timeout=min(left, REJOIN_SECONDS))
                else:
                    await self._matched(await self._meet(left))
            except ReplyError as refused:
                if pair is None:
                    self._refuse(str(refused.refusal), ResetCode.REJECTED)
                    return
                await half.wait_taken(min(left, 0.05))  # that pair is ending: look again
            except (ActorDown, ChildRefused, MailboxFull):
                await half.wait_taken(min(left, 0.02))
            except AskTimeout:
                pass  # the loop's deadline decides
        if half.taken:
            self.disown(half)
            self.stop()

    # Other relays.

    def _offer(self, deadline: float) -> None:
        """The other agent may be back at another relay; those that wait below us do not ask."""
        half = self._half
        if half.relay or not half.echo:
            return
        resume = half.resume
        offered = Offered(
            half.tenant,
            half.uri,
            half.stream_id,
            resume.my_position,
            resume.peer_ack_position,
            half.row,
            () if half.row is not None else tuple(provided(self._door, half.uri)),
            half.claim,
        )
        for relay_id in self._door.relays.below():
            self.spawn_task(self._offer_to(relay_id, offered, deadline), "offer")

    async def _offer_to(self, relay_id: str, offered: Offered, deadline: float) -> None:
        wait = self._door.relays.settings.offer_after
        while not self._half.taken and not self._half.gone:
            other = await offer(self, self._door, relay_id, offered, wait, deadline)
            if other is None:
                return
            other.listen(lambda: None)  # the way it came may be lost while policy is asked
            self.own(other, "half")
            try:
                if not self._half.taken and not self._half.gone:
                    await self._lead(other, certain=True)
                if other.taken or other.uri in self._half.parted:
                    return
                # Lost, or its pair died before it took the two: the relay is asked again.
            finally:
                self.disown(other)
                other.abort()  # unless the pair took it

    async def _meet(self, left: float) -> Match:
        self._phase = "waiting"
        matcher = self._door.matcher()
        place = self.own(_Place(matcher, self._half), "place")
        try:
            return await matcher.ask(Park(self._half), timeout=left)
        finally:
            self.disown(place)

    async def _matched(self, match: Match) -> None:
        if not match.lead:
            self._phase = "matched"
            await self._half.wait_taken(LEAD_SECONDS + self._door.settings.policy_deadline)
            return
        self._phase = "leading"
        await self._lead(match.other)

    async def _lead(self, other: ResumingStream, *, certain: bool = False) -> None:
        """Both halves are here: start their pair.

        Args:
            certain: another relay says that they are of one stream.
        """
        mine = self._half
        known = mine.row or other.row
        row, decision = await judge_halves(self._door, known, (mine, other))
        if row is None:
            certain = certain or known is not None or unknown(decision)
            self._part(other, decision, final=certain)
            return
        if mine.gone or other.gone or mine.taken or other.taken:
            return
        ticket = self._door.quotas.streams.take(row.tenant, row.consumer)
        if ticket is None:
            other.refuse(ResetCode.RELAY_FAULT)
            self._refuse("too many streams", ResetCode.RELAY_FAULT)
            return
        serial = self._door.next_serial()
        spec = ChildSpec(
            f"{mine.stream_id:016x}~{serial}",
            lambda: ResumedPair(self._door, row, mine, other, ticket),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            self.system.start_child(self._door.streams(), spec)
            await mine.wait_taken(LEAD_SECONDS)
        finally:
            other.look_again()

    async def _judge(self, row: PairRow) -> Decision:
        if self._judged is None or self._judged[0] != row:
            self._judged = row, await judge(self._door, row)
        return self._judged[1]

    def _part(self, other: ResumingStream, decision: Decision, *, final: bool) -> None:
        """Policy does not let the two meet. Unless it is certain that they are of one stream, one
        of them may be a stranger's, and both wait on.
        """
        self._half.parted.add(other.uri)
        other.parted.add(self._half.uri)
        if final:
            other.refuse(_code(decision))
            self._deny(decision)
        else:
            self._door.counters["resume_denied"] += 1
            other.look_again()

    def _deny(self, decision: Decision) -> None:
        self._door.counters["resume_denied"] += 1
        self._refuse(f"denied: {decision.reason}", _code(decision))

    def _refuse(self, why: str, code: int) -> None:
        half = self._half
        level = self._door.quotas.level(half.tenant, half.uri, self.now())
        self.log.bind(agent_uri=half.uri, stream_id=f"{half.stream_id:016x}").log(
            level, "resume refused: {}", why
        )
        half.refuse(code)
        self.disown(half)
        self.stop(shutdown(why))


def _code(decision: Decision) -> ResetCode:
    """The agent may ask again where policy only did not answer."""
    return ResetCode.RELAY_FAULT if unknown(decision) else ResetCode.REJECTED
