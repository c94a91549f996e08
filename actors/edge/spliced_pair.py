"""The actor of two coupled streams: claim, splice, hold, return.

Base of `StreamPair`, which opens a stream, and `ResumedPair`, which joins two that came back. The
bytes are moved by `splice.Splice`; this actor owns the streams and decides.

When an agent's connection is lost, and the stream has an id to come back with, the pair holds: the
other agent is kept waiting by flow control, for `hold` seconds. An agent that closed its
connection on purpose is not waited for. After a death of this actor its state is gone: both streams
are reset with RELAY_FAULT, and agents that can resume meet again at the matcher.

The pair's stream id is claimed at the registry for as long as this actor lives; a restarted
registry is told again.

Source: protocol sheet ORP 3.4, 3.6, 3.7; 6.1 R1, R4, R7, R8, R13.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from actors.control.messages import ClaimStream, P2PMode
from actors.edge.context import EdgeContext
from actors.edge.messages import CameWithout, Checkpointed, Denied, Migrated, Rejoin
from actors.edge.opening.stream_policy import judge, unknown
from actors.edge.pair_account import PairAccount
from actors.edge.pair_table import PairEntry, PairRow
from actors.edge.relays.offering import Offered, offer
from actors.edge.resume.absences import Absence
from actors.edge.resume.returning import ResumingStream
from actors.edge.splice import Side, Splice
from actors.runtime import (
    Actor,
    AskFailed,
    Down,
    MailboxSpec,
    OwnedTask,
    Refusal,
    handles,
    shutdown,
)
from actors.transport.stream import CloseReason, StreamEnd
from wire.orp.close_codes import CloseCode, ResetCode

#: Codes of agents that leave and do not come back.
_GOODBYE = (CloseCode.SILENT, CloseCode.GOING_AWAY)


class _HoldOver:
    """The agent did not come back in time."""

    __slots__ = ("side",)

    def __init__(self, side: Side) -> None:
        self.side = side


class _LeftOver:
    """An agent left its stream here, and had time to say why, and the other one to follow."""

    __slots__ = ("side",)

    def __init__(self, side: Side) -> None:
        self.side = side


class _P2PDue:
    """The agents had their time to leave the relay."""

    __slots__ = ()


class SplicedPair(Actor):
    mailbox = MailboxSpec(bound=64)
    handler_limit = 60.0
    _account: PairAccount  # set in `init`

    def __init__(self, door: EdgeContext) -> None:
        self._door = door
        self._phase = "opening"
        self._row: PairRow | None = None
        self._entry: PairEntry | None = None
        self._splice: Splice | None = None
        self._claim_monitor = 0
        #: Attempts to find the agent of a side at other relays.
        self._offers: dict[str, list[OwnedTask]] = {}
        #: Sides whose agents are waited for.
        self._absences: dict[str, Absence] = {}

    # The claim.

    async def _claim(self, stream_id: int, consumer: str, provider: str) -> bool | None:
        """Bind the stream id to this pair. None: the registry does not answer."""
        claim = ClaimStream(stream_id, consumer, provider, self.ref)
        try:
            return await self._door.control().registry.ask_again(
                claim, timeout=self._door.settings.resolve_deadline
            )
        except AskFailed:
            return None

    def _watch_registry(self) -> None:
        self._claim_monitor = self.monitor(self._door.control().registry)

    @handles(Down)
    async def _registry_down(self, down: Down) -> None:
        await self._claim_again(down.token)

    async def _claim_again(self, token: int) -> None:
        """The registry restarts without memory of stream ids."""
        if token != self._claim_monitor or self._row is None:
            return
        self._watch_registry()
        row = self._row
        if not await self._claim(row.stream_id, row.consumer, row.provider):
            self._door.counters["claim_lost"] += 1

    # The splice.

    def _side(
        self,
        name: str,
        uri: str,
        *,
        received: int = 0,
        sent: int = 0,
        relay: str = "",
    ) -> Side:
        settings = self._door.settings
        side = Side(
            name,
            uri,
            settings.replay_bytes if settings.hold else 0,
            self._door.ring_budget,
            received=received,
            sent=sent,
        )
        side.relay = relay
        return side

    def _begin(self, row: PairRow, first: Side, second: Side) -> Splice:
        """The two sides are a splice from now on; attach and start it."""
        self._row = row
        self._phase = "spliced"
        splice = Splice(self, self.guard, first, second, self._door.volume)
        self._splice = self.own(splice, "splice")
        self._account.row = row
        self._account.ready(self.now(), splice)
        if row.stream_id:
            self._entry = self.own(self._door.pairs.enter(row, self.ref, self.now), "row")
            for side in (first, second):
                self._note_relay(side)
        self._door.counters["streams_spliced"] += 1
        self._begin_p2p_deadline(row.p2p)
        return self._splice

    def _note_relay(self, side: Side) -> None:
        """Frames for this agent go where its stream goes."""
        if self._entry is None:
            return
        if side.relay:
            self._entry.record.relays[side.uri] = side.relay
        else:
            self._entry.record.relays.pop(side.uri, None)

    def splice_finished(self) -> None:
        """Both directions ended with EOF, and everything was passed on."""
        self._phase = "finished"
        assert self._splice is not None
        self._account.outcome = "migrated" if self._migrated else "finished"
        if self._entry is not None:
            self._entry.record.finished = self._splice.certain
        for side in self._splice.sides:
            end = side.end
            if end is not None and not end.settled:
                self._settle(end)
                end.stream.forget_callbacks()
        self.stop()

    def nobody_listens(self) -> None:
        """Both agents want nothing more."""
        if self._migrated:
            self._leave_migrated()

    def side_left(self, side: Side) -> None:
        """Agents that go peer to peer leave their streams here like this (sheet 3.8).

        Which of their words arrives first is chance: STOP_SENDING, or MIGRATE_TO_P2P on ctrl.
        """
        splice, row = self._splice, self._row
        assert splice is not None
        if row is None or not row.stream_id or row.p2p is P2PMode.FORBIDDEN:
            splice.unwanted(side)  # there is no other path
        elif self._migrated and splice.deserted:
            self._leave_migrated()
        else:
            window = self._door.settings.resume_window
            self.start_timer(window, _LeftOver(side), ("left", side.name))

    @handles(_LeftOver)
    def _left_over(self, message: _LeftOver) -> None:
        """It did not come back, and the other agent did not follow."""
        side, splice = message.side, self._splice
        if splice is None or splice.finished or not side.left or self._phase == "failed":
            return
        self._door.counters["left_alone"] += 1
        if self._migrated:
            self._fail(f"{side.name} left")
        else:
            splice.unwanted(side)

    @property
    def _migrated(self) -> bool:
        return self._entry is not None and self._entry.record.migrated

    @handles(Migrated)
    def _migrated_now(self, _: Migrated) -> None:
        """They may have left their streams before the frame came."""
        splice = self._splice
        if splice is None or splice.finished or self._phase not in ("spliced", "held"):
            return
        if splice.deserted or any(side.away for side in splice.sides):
            self._leave_migrated()

    def _leave_migrated(self) -> None:
        """The agents talk to each other; we keep nothing but whose stream it was."""
        self._fail("peer to peer", ResetCode.NONE)
        self._account.outcome = "migrated"

    def _begin_p2p_deadline(self, mode: P2PMode) -> None:
        """Streams that must leave the relay have so long to do it (sheet 3.9, 6.2 R26)."""
        if mode is P2PMode.REQUIRED:
            self.start_timer(self._door.settings.p2p_deadline, _P2PDue(), "p2p")

    @handles(_P2PDue)
    def _p2p_due(self, _: _P2PDue) -> None:
        if not self._migrated and self._phase in ("spliced", "held", "forwarded"):
            self._door.counters["p2p_required_missed"] += 1
            self._fail("p2p required", ResetCode.DEADLINE)

    def side_reset(self, side: Side, code: int) -> None:
        """An error is an error at both ends, never a FIN.

        Unless the other relay says that the fault is its own: its agent will come back to it. Or
        the agent says that it left this path, and nothing about the stream.
        """
        assert self._splice is not None
        fault = bool(side.relay) and code == ResetCode.RELAY_FAULT
        if self._migrated and not fault:
            self._leave_migrated()
            return
        if (fault or code == ResetCode.NONE) and side.end is not None:
            end = side.end
            self._splice.leave(side)
            self._settle(end)
            end.stream.abort(code)
            self.side_away(side, CloseReason("aborted", code, True, "path left"))
            return
        self._door.counters["stream_reset"] += 1
        self._fail(f"{side.name} reset")

    def side_away(self, side: Side, reason: CloseReason) -> None:
        """Wait for the agent, if it may come back."""
        if self._migrated:
            self._leave_migrated()
            return
        self._door.counters["stream_lost"] += 1
        settings = self._door.settings
        on_purpose = reason.kind == "peer" and reason.application and reason.code in _GOODBYE
        resumable = self._row is not None and self._row.stream_id
        on_purpose = on_purpose and not side.relay
        if not settings.hold or on_purpose or not resumable:
            self._fail(f"{side.name} lost")
            return
        self._phase = "held"
        self._door.counters["streams_held"] += 1
        self.start_timer(settings.hold, _HoldOver(side), ("hold", side.name))
        if not side.relay:
            absence = self._door.absences.wait(side.uri, self.ref)
            self._absences[side.name] = self.own(absence, "absence")
        self._offer(side)

    def _offer(self, side: Side) -> None:
        """The agent may be back at another relay: ask those that do not ask us."""
        row, splice = self._row, self._splice
        assert row is not None
        assert splice is not None
        other = splice.other(side)
        if other.away or other.relay:
            return  # nothing of ours to offer
        offered = Offered(row.tenant, other.uri, row.stream_id, other.received, side.received, row)
        self._offers[side.name] = [
            self.spawn_task(self._offer_to(relay_id, offered, side), "offer")
            for relay_id in self._door.relays.below()
        ]

    async def _offer_to(self, relay_id: str, offered: Offered, side: Side) -> None:
        wait = 0.0 if side.relay else self._door.relays.settings.offer_after
        deadline = self.now() + self._door.settings.hold
        while side.away:
            half = await offer(self, self._door, relay_id, offered, wait, deadline)
            if half is None:
                return
            half.listen(lambda: None)  # the way it came may be lost while policy is asked
            self.own(half, "half")
            try:
                assert self._row is not None
                decision = await judge(self._door, self._row)
                if half.gone:
                    continue
                if decision.allow:
                    self._take_back(half, decision.p2p_mode)
                elif not unknown(decision):
                    self._door.counters["resume_denied"] += 1
                    self._fail("denied")
                return
            finally:
                self.disown(half)
                half.abort()  # unless it was taken

    @handles(_HoldOver)
    def _hold_over(self, message: _HoldOver) -> None:
        if message.side.away:
            self._door.counters["hold_expired"] += 1
            self._fail(f"{message.side.name} did not come back")

    @handles(CameWithout)
    def _came_without(self, message: CameWithout) -> None:
        side = None if self._splice is None else self._splice.side_of(message.uri)
        if side is not None and side.away:
            self._door.counters["came_without_stream"] += 1
            self._fail(f"{side.name} came back without the stream")

    def _fail(self, detail: str, code: int = ResetCode.SOURCE_FAILED) -> None:
        """Reset whatever is still there, and end."""
        self._phase = "failed"
        self._account.outcome, self._account.detail = "failed", detail
        for end in self._ends():
            if not end.settled:
                self._settle(end)
                end.stream.abort(code)
        self.stop(shutdown(detail))

    def _ends(self) -> list[StreamEnd]:
        if self._splice is None:
            return []
        return [side.end for side in self._splice.sides if side.end is not None]

    def _settle(self, end: StreamEnd) -> None:
        end.settled = True
        self.disown(end)

    def _volumes(self) -> dict[str, object]:
        """Positions and what is held, for the inspector."""
        if self._splice is None:
            return {}
        result: dict[str, object] = {"returns": self._account.returns}
        for side in self._splice.sides:
            name = side.name
            result[f"bytes_from_{name}"] = side.received
            result[f"bytes_to_{name}"] = side.sent
            result[f"held_for_{name}"] = 0 if side.end is None else side.end.stream.backlog
            result[f"replay_for_{name}"] = side.ring.end - side.ring.start
            result[f"{name}_away"] = side.away
            result[f"{name}_ended"] = side.eof
        return result

    # An agent comes back.

    @handles(Rejoin)
    def _rejoin(self, message: Rejoin) -> Refusal | None:
        """A half of an agent of this pair: its stream replaces the one that was lost.

        It may come before we noticed the loss: the agent knows better.
        """
        return self._take_back(message.half, message.mode)

    @handles(Denied)
    def _denied(self, _: Denied) -> None:
        """An agent came back, and policy does not allow the stream any more."""
        self._fail("denied")

    def _judged(self, mode: P2PMode) -> PairRow:
        """The decision of policy may be another one than when the pair began."""
        assert self._row is not None
        if self._row.p2p is not mode:
            self._row = replace(self._row, p2p=mode)
            if self._entry is not None:
                self._entry.record.row = self._row
            self.cancel_timer("p2p")
            self._begin_p2p_deadline(mode)
        return self._row

    def _take_back(self, half: ResumingStream, mode: P2PMode) -> Refusal | None:
        splice = self._splice
        if splice is None or splice.finished or self._phase not in ("spliced", "held"):
            return Refusal("not spliced")
        side = splice.side_of(half.uri)
        if side is None:
            return Refusal("not a member")
        resume = half.resume
        if not side.fits(resume.my_position, resume.peer_ack_position, told=half.echo):
            self._door.counters["resume_gap"] += 1
            # The relay cannot fill the gap. The other agent may, from its own ring: let both
            # come to the matcher.
            self._fail("replay ring too short", ResetCode.RELAY_FAULT)
            return Refusal("gap")
        older = side.end
        if older is not None:
            splice.leave(side)
            self._settle(older)
            older.stream.abort(ResetCode.RELAY_FAULT)
        end = StreamEnd(half.take(), ResetCode.RELAY_FAULT)
        self.own(end, "stream")
        self.cancel_timer(("hold", side.name))
        absence = self._absences.pop(side.name, None)
        if absence is not None:
            self.disown(absence)
            absence.abort()
        self.cancel_timer(("left", side.name))
        row = self._judged(mode)
        side.relay = half.relay
        self._note_relay(side)
        splice.return_(
            side,
            end,
            resume,
            greeting=lambda positions: half.greeting(positions, row),
            held=half.held,
            ended=half.ended,
        )
        for task in self._offers.pop(side.name, ()):
            if task.task is not asyncio.current_task():
                task.abort()
        if self._phase == "held" and not any(one.away for one in splice.sides):
            self._phase = "spliced"
        self._account.returns += 1
        self._door.counters["streams_returned"] += 1
        return None

    @handles(Checkpointed)
    def _checkpointed(self, message: Checkpointed) -> None:
        side = self._splice.side_of(message.uri) if self._splice is not None else None
        if side is not None and self._splice is not None:
            self._splice.confirm(side, message.received, ended=message.ended)
