"""One half of a stream that came back: its stream, its positions, and who owns it now.

Source: protocol sheet ORP 3.7, 3.10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from actors.edge.pair_table import PairRow
from actors.transport.quota import Ticket
from actors.transport.stream import CloseReason, Stream
from wire.orp.close_codes import ResetCode
from wire.orp.messages import ForwardStream, MigrateToRelay, StreamResume


class ResumingStream:
    """A resource: aborted by its owner unless somebody took it.

    Args:
        stream: behind its first frame, paused.
        message: the frame; MIGRATE_TO_RELAY gets no echo.
        rest: application bytes that came with it, not consumed.
        uri, tenant: of the agent.
        relay: the other relay that brought it, where the agent is; empty: it is connected here.
        told: the other relay knows our positions already.
        row: what the stream was opened for, as far as this relay or the other one knows.
        provides: the services of an agent at another relay, as that one says.
    """

    def __init__(
        self,
        stream: Stream,
        message: StreamResume | MigrateToRelay,
        rest: bytes,
        uri: str,
        tenant: str,
        *,
        relay: str = "",
        told: bool = False,
        row: PairRow | None = None,
        provides: tuple[str, ...] = (),
    ) -> None:
        self.stream = stream
        self.relay = relay
        self._told = told
        self.row = row
        self.provides = provides
        self.uri = uri
        self.tenant = tenant
        self.resume = StreamResume(
            message.stream_id, message.my_position, message.peer_ack_position
        )
        self.echo = isinstance(message, StreamResume)
        #: What its agent says of the stream; no more than a restriction of whom it may meet.
        self.claim = _claim(message, uri, tenant)
        #: Bound: the stream window, because nothing of it is consumed.
        self.held = [rest] if rest else []
        self.ended = False
        self.ticket: Ticket | None = None  # of `EdgeQuotas.halves`; its actor's
        self.owned = False  # by its actor; until then by the agent's connection
        self.taken = False
        self.gone = False
        #: Agents that policy does not let it meet. Bound: those that wait for the same stream.
        self.parted: set[str] = set()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def stream_id(self) -> int:
        """Of the stream it belongs to; never 0."""
        return self.resume.stream_id

    def greeting(self, positions: StreamResume, row: PairRow) -> bytes:
        """What goes in front of the peer's bytes.

        Args:
            positions: the peer's.
            row: of the pair they are in now.
        """
        if not self.echo or self._told:
            return b""
        if self.relay:
            peer = row.other(self.uri)
            first = ForwardStream("", "", peer, positions.stream_id, row.terms())
            return first.encode() + positions.encode()
        return positions.encode()

    def may_meet(self, other: ResumingStream) -> bool:
        """Could they be of one stream, as far as either knows?"""
        return self.uri != other.uri and all(
            two.uri not in one.parted
            and all(row is None or row.has(two.uri) for row in (one.row, one.claim))
            for one, two in ((self, other), (other, self))
        )

    def abandon(self) -> None:
        """Its actor ended. If it did before it could take the stream, reset it."""
        if not self.owned:
            self.abort()
            if self.ticket is not None:
                self.ticket.abort()

    def listen(self, on_gone: Callable[[], object]) -> None:
        """Hold what comes; `on_gone` when the stream ends otherwise than by FIN."""

        def gone(_: int | CloseReason) -> None:
            self._end()
            on_gone()

        stream = self.stream
        stream.on_data = self.held.append
        stream.on_eof = self._eof
        stream.on_reset = gone
        stream.on_lost = gone
        stream.start()

    def _eof(self) -> None:
        self.ended = True

    def take(self) -> Stream:
        """The stream, paused, for its new owner."""
        self.taken = True
        self.stream.pause()
        self.stream.forget_callbacks()
        self._wake()
        return self.stream

    def refuse(self, code: int) -> None:
        """Reset the stream with this code, if nobody took it."""
        if not self.taken and not self.gone:
            self._end()
            self.stream.abort(code)

    def abort(self) -> None:
        """The owner ended; idempotent."""
        self.refuse(ResetCode.RELAY_FAULT)

    def look_again(self) -> None:
        """What this half was waiting for will not happen."""
        self._wake()

    def _end(self) -> None:
        self.gone = True
        self.held.clear()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_taken(self, timeout: float) -> None:
        """Wait until it is taken or gone, at most so many seconds."""
        if self.taken or self.gone:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            self._waiting = [one for one in self._waiting if one is not future]


def _claim(message: StreamResume | MigrateToRelay, uri: str, tenant: str) -> PairRow | None:
    terms = message.terms if isinstance(message, StreamResume) else None
    if terms is None:
        return None
    full = replace(terms, consumer=terms.consumer or uri, provider=terms.provider or uri)
    row = PairRow.of_terms(full, message.stream_id, tenant)
    return row if row is not None and row.has(uri) else None
