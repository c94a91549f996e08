"""A stream pair made of two halves that came back.

Each agent is told the other's positions, before any byte of it (sheet 3.7 step 3), and sends again
what the other lacks. From then on it is a pair like any other.

Source: protocol sheet ORP 3.7, 3.10; 6.1 R1, R2, R6, R7.
"""

from __future__ import annotations

from actors.edge.context import EdgeContext
from actors.edge.pair_account import PairAccount
from actors.edge.pair_table import PairRow
from actors.edge.resume.returning import ResumingStream
from actors.edge.spliced_pair import SplicedPair
from actors.transport.quota import Ticket
from actors.transport.stream import StreamEnd
from wire.orp.close_codes import ResetCode
from wire.orp.messages import StreamResume


class ResumedPair(SplicedPair):
    """A stream pair made of two halves that came back.

    Args:
        row: whose stream it is.
        first, second: the halves; taken in `init`.
        ticket: of `EdgeQuotas.streams`.
    """

    def __init__(
        self,
        door: EdgeContext,
        row: PairRow,
        first: ResumingStream,
        second: ResumingStream,
        ticket: Ticket,
    ) -> None:
        super().__init__(door)
        self._ticket = ticket
        self._resumed_row = row
        self._halves = (first, second)

    def init(self) -> None:
        """Take both halves, or none: a half may be gone since the match."""
        first, second = self._halves
        self.own(self._ticket, "ticket")
        self._account = self.own(
            PairAccount(self._door, self.now(), self._resumed_row, self.path), "account"
        )
        if any(half.taken or half.gone for half in self._halves):
            self._door.counters["resume_missed"] += 1
            self._account.outcome, self._account.detail = "failed", "half gone"
            self.stop()
            return
        code = ResetCode.RELAY_FAULT
        ends = (StreamEnd(first.take(), code), StreamEnd(second.take(), code))
        for end in ends:
            self.own(end, "stream")
        if not self._consistent(first.resume, second.resume, echo=second.echo) or (
            not self._consistent(second.resume, first.resume, echo=first.echo)
        ):
            self._door.counters["resume_inconsistent"] += 1
            self._account.outcome, self._account.detail = "failed", "positions do not fit"
            for end in ends:
                self._settle(end)
                end.stream.abort()
            self.stop()
            return
        self._couple(ends)

    @staticmethod
    def _consistent(mine: StreamResume, theirs: StreamResume, *, echo: bool) -> bool:
        """True when nobody received more than was sent.

        Args:
            echo: False: the other one hears no positions, so nothing may be missing.
        """
        if echo:
            return mine.peer_ack_position <= theirs.my_position
        return mine.peer_ack_position == theirs.my_position

    def _couple(self, ends: tuple[StreamEnd, StreamEnd]) -> None:
        first, second = self._halves
        row = self._resumed_row
        sides = []
        for half, other in ((first, second), (second, first)):
            name = "consumer" if half.uri == row.consumer else "provider"
            sides.append(
                self._side(
                    name,
                    half.uri,
                    received=other.resume.peer_ack_position,
                    sent=half.resume.peer_ack_position,
                    relay=half.relay,
                )
            )
        splice = self._begin(row, sides[0], sides[1])
        self._door.counters["streams_resumed"] += 1
        # Both echoes first: no byte of the other side may come before them.
        for side, end, half, other in (
            (sides[0], ends[0], first, second),
            (sides[1], ends[1], second, first),
        ):
            already = 0
            echo = half.greeting(other.resume, row)
            if echo and not end.stream.write_closed:
                end.stream.write(echo)
                already = len(echo)
            splice.attach(side, end, already=already)
        held = {side: half.held for side, half in zip(sides, self._halves, strict=True)}
        ended = {side for side, half in zip(sides, self._halves, strict=True) if half.ended}
        splice.start(held, ended)

    async def continue_(self) -> None:
        """Bind the stream id again."""
        row = self._resumed_row
        if await self._claim(row.stream_id, row.consumer, row.provider) is False:
            self._door.counters["claim_lost"] += 1
        self._watch_registry()

    def describe(self) -> dict[str, object]:
        """Who talks to whom, and how much since the resume."""
        row = self._resumed_row
        return {
            "phase": self._phase,
            "service": row.service,
            "stream_id": f"{row.stream_id:016x}",
            "consumer": row.consumer,
            "provider": row.provider,
            "tenant": row.tenant,
            "resumed": True,
            **self._volumes(),
        }
