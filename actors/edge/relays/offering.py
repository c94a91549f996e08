"""A stream that waits for an agent's return is offered to another relay, where it may be.

An extension of the sheet's inter-relay stream: FORWARD_STREAM with an empty service, naming our
agent and what the stream was opened for (or, when nobody here knows, what the agent provides), and
a STREAM_RESUME with its positions. The other relay treats it like a half of that agent which came
back to it, and answers with the same two frames about the other agent; then bytes follow. Both
relays ask their policy about what the frames say (`stream_policy`). A relay that does not know this
refuses the empty service.

Offering is a task of whoever holds the stream, so that it ends with it.

Source: protocol sheet ORP 3.7, 3.11; 6.1 R5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.edge.context import EdgeContext
from actors.edge.pair_table import PairRow
from actors.edge.resume.returning import ResumingStream
from actors.runtime import (
    Actor,
    AskFailed,
    ChildRefused,
)
from actors.transport.claim import claim_stream
from actors.transport.first_message import FirstMessage, NoMessage
from actors.transport.stream import Stream, StreamClosed
from wire.orp.close_codes import ResetCode
from wire.orp.identity import AgentUri, IdentityError, parse_identity
from wire.orp.messages import (
    FirstMessageReader,
    FirstWord,
    ForwardStream,
    StreamReject,
    StreamResume,
)

#: Pause before a relay that could not be asked is asked again, seconds (times jitter).
AGAIN = 0.3
#: Resets that say: not here, and not later either.
_FINAL = (ResetCode.NONE, ResetCode.REJECTED, ResetCode.DEADLINE, ResetCode.MALFORMED)


@dataclass(frozen=True, slots=True)
class Offered:
    """What is offered: our agent's half of a stream.

    Attributes:
        tenant, uri: of our agent.
        stream_id: never 0.
        sent, received: its positions.
        row: what the stream was opened for; None: nobody here knows.
        provides: then the services of our agent, by which the other relay may judge.
        claim: what our agent says of the stream.
    """

    tenant: str
    uri: str
    stream_id: int
    sent: int
    received: int
    row: PairRow | None = None
    provides: tuple[str, ...] = ()
    claim: PairRow | None = None


class _Exchange:
    """One offer on one stream, as a resource: reset unless it led to a half."""

    def __init__(self, owner: Actor, stream: Stream, relay_id: str, offered: Offered) -> None:
        self._owner = owner
        self._stream = stream
        self._relay_id = relay_id
        self._offered = offered
        self._done: asyncio.Future[ResumingStream | None] = owner.system.loop.create_future()
        self.final = False  #: asking this relay again is of no use
        self._read(self._peer_named, b"")

    def offer(self) -> None:
        """Say what is offered; raises `StreamClosed`."""
        offered = self._offered
        claim = None if offered.claim is None else offered.claim.terms()
        positions = StreamResume(offered.stream_id, offered.sent, offered.received, claim)
        terms = None if offered.row is None else offered.row.terms()
        first = ForwardStream("", "", offered.uri, offered.stream_id, terms, offered.provides)
        self._stream.write(first.encode() + positions.encode())

    def _read(self, then: Callable[[FirstWord, bytes], object], early: bytes) -> None:
        self._reading = FirstMessage[FirstWord](
            self._owner,
            self._stream,
            FirstMessageReader(),
            then,
            self._refused,
            code=ResetCode.RELAY_FAULT,
            kind="offer",
        )
        self._reading.start(early)

    async def answer(self, timeout: float) -> ResumingStream | None:
        """The other agent's half; None: not there."""
        try:
            async with asyncio.timeout(timeout):
                return await self._done
        except TimeoutError:
            return None

    def abort(self) -> None:
        """Nobody wants the answer any more; idempotent."""
        half = self._done.result() if self._done.done() and not self._done.cancelled() else None
        if half is None:
            self._reading.release()
            self._stream.abort(ResetCode.RELAY_FAULT)
        else:
            half.abort()

    def _peer_named(self, message: FirstWord, rest: bytes) -> None:
        if isinstance(message, ForwardStream):
            self._peer = message
            self._read(self._answered, rest)
        else:
            self._give_up(message)

    def _give_up(self, message: FirstWord) -> None:
        self.final = True
        refused = isinstance(message, StreamReject)
        self._finish(ResetCode.REJECTED if refused else ResetCode.MALFORMED)

    def _answered(self, resume: FirstWord, rest: bytes) -> None:
        if not isinstance(resume, StreamResume):
            self._give_up(resume)
            return
        stream, offered, first = self._stream, self._offered, self._peer
        peer, relay, row = first.source_agent_uri, self._relay_id, offered.row
        try:
            identity = parse_identity(peer)
        except IdentityError:
            identity = None
        member = isinstance(identity, AgentUri) and identity.tenant == offered.tenant
        if row is None and first.terms is not None:
            row = PairRow.of_terms(first.terms, offered.stream_id, offered.tenant)
            member = member and row is not None
        if row is not None:
            member = member and row.has(offered.uri) and row.has(peer)
        if not member or resume.stream_id != offered.stream_id or peer == offered.uri:
            self.final = True
            self._finish(ResetCode.MALFORMED)
            return
        half = ResumingStream(
            stream, resume, rest, peer, offered.tenant, relay=relay, told=True, row=row
        )
        half.owned = True
        self._done.set_result(half)

    def _refused(self, why: NoMessage) -> None:
        if why.why == "reset":
            self.final = why.code in _FINAL
        elif why.why != "lost":
            self.final = True
        self._finish(ResetCode.MALFORMED if why.error is not None else ResetCode.NONE)

    def _finish(self, code: int) -> None:
        self._stream.abort(code)
        if not self._done.done():
            self._done.set_result(None)


async def offer(
    owner: Actor, door: EdgeContext, relay_id: str, offered: Offered, wait: float, deadline: float
) -> ResumingStream | None:
    """Offer the half until another relay has the other one, or the deadline passed.

    Args:
        owner: the actor whose task this is; the stream of the offer is its resource meanwhile.
        wait: seconds before the first attempt.
        deadline: on the owner's clock.

    Returns:
        The other agent's half, for the caller to own at once; None: not found there.
    """
    await asyncio.sleep(wait)
    while (left := deadline - owner.now()) > 0:
        settings = door.relays.settings
        exchange: _Exchange | None = None
        try:
            link = door.relays.link(relay_id)
            patience = min(left, settings.dial_timeout + door.settings.incoming_deadline)
            stream = await claim_stream(owner, link, timeout=patience, code=ResetCode.RELAY_FAULT)
            door.counters["halves_offered"] += 1
            exchange = owner.own(_Exchange(owner, stream, relay_id, offered), "offer")
            exchange.offer()
            half = await exchange.answer(deadline - owner.now())
            if half is not None:
                door.counters["offers_answered"] += 1
                owner.disown(exchange)
                exchange = None
                return half
            if exchange.final:
                return None
        except (AskFailed, ChildRefused, StreamClosed):
            pass  # unreachable now; the loop's deadline decides
        finally:
            if exchange is not None:
                owner.disown(exchange)
                exchange.abort()
        await asyncio.sleep(AGAIN * owner.system.rng.uniform(0.5, 1.5))
    return None
