"""A pair whose bytes travel as datagrams: its two streams only tell when it is over.

Source: protocol sheet ORP 3.5; 6.3 F6; 6.5 A10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from actors.control.messages import Provider
from actors.edge.context import EdgeContext
from actors.edge.forward.granting import allocate, restore, tell_granted
from actors.edge.forward.liveness import discard, finish
from actors.edge.forward.messages import ForwardEnded, Granted, PairRecord
from actors.edge.opening.open_request import OpenRequest
from actors.edge.pair_table import PairRow
from actors.edge.spliced_pair import SplicedPair
from actors.runtime import NORMAL, ActorRef, handles, shutdown
from actors.transport.stream import StreamEnd
from wire.orp import reject
from wire.orp.messages import StreamReject


class ForwardedPair(SplicedPair):
    """Base of a pair that policy may put on the forward plane instead of a splice."""

    def __init__(self, door: EdgeContext) -> None:
        super().__init__(door)
        #: Also on record at the plane's registry.
        self._allocated: PairRecord | None = None
        self._allocated_monitor = 0

    async def _allocate(self, opening: OpenRequest, provider: Provider) -> Granted | StreamReject:
        """Two allocations (sheet 3.5 step 2), or what the consumer is to be told."""
        place = self._door.forward
        if provider.connection is None or place is None:
            return reject.FORWARD_UNAVAILABLE
        ticket = self._door.quotas.forward.take(opening.tenant, opening.consumer)
        if ticket is None:
            return reject.FORWARD_UNAVAILABLE
        self.own(ticket, "ticket")
        granted = await allocate(
            place,
            opening.message.stream_id,
            self.ref,
            (opening.consumer, opening.connection),
            (provider.uri, provider.connection),
        )
        if isinstance(granted, Granted):
            self._allocated = granted.record
            self._allocated_monitor = self.monitor(place.registry())
        return granted

    def _forward(
        self,
        row: PairRow,
        granted: Granted,
        connections: tuple[ActorRef, ActorRef],
        ends: Iterable[tuple[str, StreamEnd, int]],
    ) -> None:
        """From now on the streams are only kept open.

        Args:
            connections: of the consumer and the provider.
            ends: name, stream and how much of it was delivered and not consumed.
        """
        self._phase = "forwarded"
        self._account.mode = "forward"
        self._account.row = replace(self._account.row, provider=row.provider)
        self._account.ready(self.now())
        # The bytes go through this relay as well: only leaving it would do.
        self._begin_p2p_deadline(row.p2p)
        self._door.meters.counters["stream_forward_assigned_total"] += 1
        self._door.counters["streams_forwarded"] += 1
        tell_granted(row.stream_id, granted, connections)
        for name, end, unread in ends:
            lost = partial(self._forward_lost, name)
            discard(end.stream, unread, self.guard, name, self._forward_over, lost)

    def _forward_lost(self, name: str) -> None:
        self._door.counters["stream_lost"] += 1
        self._fail(f"{name} lost")

    def _forward_over(self, why: str = "") -> None:
        """One side is done: so is the other, and both agents get their stream credit back."""
        self._phase = "finished"
        self._account.outcome, self._account.detail = "finished", why
        for end in self._ends():
            if not end.settled:
                self._settle(end)
                finish(end.stream)
        self.stop(shutdown(why) if why else NORMAL)

    @handles(ForwardEnded)
    def _forward_ended(self, message: ForwardEnded) -> None:
        self._forward_over(f"forward: {message.why}")

    async def _restored(self, token: int) -> bool:
        """The plane's registry restarts without memory: tell it again. False: not its monitor."""
        place, record = self._door.forward, self._allocated
        if token != self._allocated_monitor or place is None or record is None:
            return False
        if await restore(place, record):
            self._allocated_monitor = self.monitor(place.registry())
        else:
            self._forward_over("forward: plane lost")
        return True
