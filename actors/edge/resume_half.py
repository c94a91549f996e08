"""A stream that came back, until it has its other half: the object, and the actor that owns it.

The actor looks for a live pair of the stream id, which takes the half; else it waits at the matcher
for the other agent's half. Whoever leads a match starts the pair, which takes both. Taking is one
step of one object, so a half always has exactly one owner, and the death of the matcher costs
nobody anything: the halves announce themselves again.

Source: protocol sheet ORP 3.7, 3.10; 6.1 R3, R6.
"""

from __future__ import annotations

from dataclasses import replace

from actors.control.messages import Decide, P2PMode, ServicesOf, combine_p2p
from actors.edge.door import Door
from actors.edge.messages import Rejoin
from actors.edge.pair_table import PairRow
from actors.edge.relays.offering import Offered, offer
from actors.edge.resume_matcher import Match, Park
from actors.edge.resumed_pair import ResumedPair
from actors.edge.returning import Half
from actors.runtime import (
    Actor,
    ActorDown,
    AskTimeout,
    ChildRefused,
    ChildSpec,
    MailboxFull,
    MailboxSpec,
    ReplyError,
    Restart,
    RuntimeFault,
    shutdown,
)
from wire.orp.close_codes import ResetCode

#: Seconds a live pair has to answer.
REJOIN_SECONDS = 5.0
#: Seconds the leader of a match has to take both halves; then the others look again.
LEAD_SECONDS = 1.0
#: Services of an agent that are tried against the policy when nobody knows which it was.
MAX_SERVICES_ASKED = 64


class _Taken:
    """The half has another owner."""

    __slots__ = ()


class ResumeHalf(Actor):
    """See the module docstring."""

    mailbox = MailboxSpec(bound=16)
    handler_limit = 120.0

    def __init__(self, door: Door, half: Half) -> None:
        self._door = door
        self._half = half
        self._phase = "looking"
        self._row: PairRow | None = None

    def init(self) -> None:
        """Own the stream; what it brings meanwhile is held, bounded by its window."""
        half = self._half
        self.own(half, "stream")
        half.owned = True
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

    async def continue_(self) -> None:
        """Find an owner for the half, within the resume window."""
        half = self._half
        deadline = self.now() + self._door.settings.resume_window
        self._offer(deadline)
        while not half.taken and not half.gone:
            left = deadline - self.now()
            if left <= 0:
                self._door.counters["resume_expired"] += 1
                self._refuse("no other half in time", ResetCode.DEADLINE)
                return
            self._row = self._door.pairs.row(half.stream_id, self.now())
            if self._row is not None and not self._row.has(half.uri):
                self._door.counters["resume_stranger"] += 1
                self._refuse("not a member", ResetCode.REJECTED)
                return
            if self._door.pairs.finished(half.stream_id):
                self._refuse("finished", ResetCode.NONE)
                return
            pair = self._door.pairs.live(half.stream_id)
            try:
                if pair is not None:
                    self._phase = "rejoining"
                    await pair.ask(Rejoin(half), timeout=min(left, REJOIN_SECONDS))
                else:
                    self._phase = "waiting"
                    match = await self._door.matcher().ask(Park(half), timeout=left)
                    await self._matched(match)
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
            half.tenant, half.uri, half.stream_id, resume.my_position, resume.peer_ack_position
        )
        for relay_id in self._door.relays.below():
            self.spawn_task(self._offer_to(relay_id, offered, deadline), "offer")

    async def _offer_to(self, relay_id: str, offered: Offered, deadline: float) -> None:
        wait = self._door.relays.settings.offer_after
        other = await offer(self, self._door, relay_id, offered, wait, deadline)
        if other is None:
            return
        self.own(other, "half")
        try:
            if not self._half.taken and not self._half.gone:
                await self._lead(other)
        finally:
            self.disown(other)
            other.abort()  # unless the pair took it

    async def _matched(self, match: Match) -> None:
        if not match.lead:
            self._phase = "matched"
            await self._half.wait_taken(LEAD_SECONDS + self._door.settings.policy_deadline)
            return
        self._phase = "leading"
        await self._lead(match.other)

    async def _lead(self, other: Half) -> None:
        """Both halves are here: start their pair."""
        mine = self._half
        mode = await self._allowed(mine, other)
        if mode is None:
            self._door.counters["resume_denied"] += 1
            other.abort()
            self._refuse("denied", ResetCode.REJECTED)
            return
        if mine.gone or other.gone or mine.taken or other.taken:
            return
        row = self._row or PairRow(mine.stream_id, mine.uri, other.uri, mine.tenant, "", "")
        row = replace(row, p2p=mode)
        serial = self._door.next_serial()
        spec = ChildSpec(
            f"{mine.stream_id:016x}~{serial}",
            lambda: ResumedPair(self._door, row, mine, other),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            self.system.start_child(self._door.streams(), spec)
            await mine.wait_taken(LEAD_SECONDS)
        finally:
            other.look_again()

    async def _allowed(self, mine: Half, other: Half) -> P2PMode | None:
        """The policy of the stream, as far as this relay knows what it was opened for.

        None: it is denied. After the loss of a relay nobody here knows the service: then the two
        must be allowed to reach each other by any service one of them provides.
        """
        row = self._row
        if row is not None:
            return await self._decide_both(
                row.tenant, row.consumer, row.service, row.provider, row.method
            )
        tenant, known = mine.tenant, False
        for consumer, provider in ((mine.uri, other.uri), (other.uri, mine.uri)):
            direct = await self._decide(tenant, consumer, provider, "")
            if direct is not None:
                return direct
            services = await self._services_of(provider)
            known = known or bool(services)
            for service in services[:MAX_SERVICES_ASKED]:
                mode = await self._decide_both(tenant, consumer, service, provider, "")
                if mode is not None:
                    return mode
        # Whoever provides it is at the other relay, which asks the same question.
        return P2PMode.ALLOWED if (mine.relay or other.relay) and not known else None

    async def _services_of(self, uri: str) -> tuple[str, ...]:
        try:
            return await self._door.control().registry.ask_again(
                ServicesOf(uri), timeout=self._door.settings.resolve_deadline
            )
        except RuntimeFault:
            return ()

    async def _decide_both(
        self, tenant: str, consumer: str, service: str, provider: str, method: str
    ) -> P2PMode | None:
        caller = await self._decide(tenant, consumer, service, method)
        if caller is None:
            return None
        callee = await self._decide(tenant, provider, consumer, method)
        return None if callee is None else combine_p2p(caller, callee)

    async def _decide(self, tenant: str, caller: str, target: str, method: str) -> P2PMode | None:
        try:
            decision = await self._door.control().policy.ask_again(
                Decide(tenant, caller, target, method, self._half.stream_id),
                timeout=self._door.settings.policy_deadline,
            )
        except RuntimeFault:
            return None
        return decision.p2p_mode if decision.allow else None

    def _refuse(self, why: str, code: int) -> None:
        half = self._half
        self.log.bind(agent_uri=half.uri, stream_id=f"{half.stream_id:016x}").info(
            "resume refused: {}", why
        )
        half.refuse(code)
        self.disown(half)
        self.stop(shutdown(why))
