"""What one provider, or the relay where it is, answers to the stream that was opened towards it.

Ends in exactly one of: STREAM_ACCEPT, a reject, silence, the loss of the path on which it was asked
(`ProviderLost`: somebody else may be asked), and the consumer being gone.

Source: protocol sheet ORP 2.5, 3.3, 3.11.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from actors.edge.opening.open_request import ProviderLost, Rejected
from actors.runtime import Guard
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.frame import FrameReader
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import StreamAccept, StreamReject, decode


class ProviderAnswer:
    """See the module docstring.

    Args:
        stream: towards the provider, not started yet.
        guard: makes a callback of the actor that waits.
        counters: of the door.
        relayed: another relay answers; its rejects are passed on.
        on_accept: called in the moment of the STREAM_ACCEPT, with the stream paused behind it.
    """

    def __init__(
        self,
        stream: Stream,
        guard: Guard,
        counters: Counter[str],
        *,
        relayed: bool,
        on_accept: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._counters = counters
        self._relayed = relayed
        self._on_accept = on_accept
        self._reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
        self._outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        stream.on_data = guard("provider", self._data)
        stream.on_eof = guard("provider", self._silent)
        stream.on_reset = guard("provider", self._reset)
        stream.on_lost = guard("provider", self._lost)

    async def wait(self, seconds: float) -> bytes:
        """The provider's bytes that came behind its STREAM_ACCEPT.

        Raises:
            Rejected: it refused, said nothing in time, or broke the protocol.
            ProviderLost: its connection ended before it answered.
            Gone: see `give_up`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._outcome
        except TimeoutError:
            self._counters["accept_timeout"] += 1
            raise Rejected(self.failed()) from None

    def give_up(self, why: Exception) -> None:
        """Nobody wants the answer any more; `wait` raises this, unless it is there."""
        if not self._outcome.done():
            self._outcome.set_exception(why)
            self._outcome.exception()  # it may come before anybody waits

    def failed(self, answer: StreamReject = reject.PROVIDER_REJECTED) -> StreamReject:
        """What the consumer is told when the provider, or its relay, does not answer."""
        return reject.PEER_RELAY_FORWARD_FAILED if self._relayed else answer

    def _data(self, chunk: bytes) -> None:
        """Its answer, then early data."""
        stream = self._stream
        try:
            self._reader.feed(chunk)
            frame = self._reader.next_frame()
            if frame is None:
                stream.consume(len(chunk))
                return
            rest = bytes(self._reader.take_rest())
            stream.consume(len(chunk) - len(rest))
            answer = decode(frame)
        except PeerError as error:
            self._counters[f"provider_{error.label}"] += 1
            self.give_up(Rejected(self.failed()))
            return
        stream.pause()
        if isinstance(answer, StreamAccept):
            if not self._outcome.done():
                self._outcome.set_result(rest)
                self._on_accept()
        elif isinstance(answer, StreamReject):
            self._counters["provider_rejected"] += 1
            self.give_up(Rejected(answer if self._relayed else reject.PROVIDER_REJECTED))
        else:
            self._counters["provider_unexpected"] += 1
            self.give_up(Rejected(self.failed()))

    def _silent(self) -> None:
        self._counters["provider_no_answer"] += 1
        self.give_up(Rejected(self.failed()))

    def _reset(self, code: int) -> None:
        if self._relayed and code == ResetCode.RELAY_FAULT:
            self._lost()  # a fault of that relay says nothing about the provider
        else:
            self._silent()

    def _lost(self, _: CloseReason | None = None) -> None:
        self._counters["provider_lost"] += 1
        self.give_up(ProviderLost(self.failed(), asked=True))
