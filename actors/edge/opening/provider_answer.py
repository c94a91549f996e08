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
from actors.runtime import Actor
from actors.transport.first_message import FirstMessage, NoMessage
from actors.transport.stream import Stream, StreamClosed
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.messages import FirstMessageReader, FirstWord, StreamAccept, StreamReject


class ProviderAnswer:
    """One question to a provider.

    Args:
        owner: the actor that waits.
        stream: towards the provider, not started yet; the owner's.
        counters: of the door.
        relayed: another relay answers; its rejects are passed on.
        on_accept: called in the moment of the STREAM_ACCEPT, with the stream paused behind it.
    """

    def __init__(
        self,
        owner: Actor,
        stream: Stream,
        counters: Counter[str],
        *,
        relayed: bool,
        on_accept: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._counters = counters
        self._relayed = relayed
        self._on_accept = on_accept
        self._outcome: asyncio.Future[bytes] = owner.system.loop.create_future()
        self._reading = FirstMessage[FirstWord](
            owner,
            stream,
            FirstMessageReader(),
            self._answered,
            self._silent,
            code=ResetCode.RELAY_FAULT,
            kind="provider",
        )

    async def ask(self, first: bytes, seconds: float) -> bytes:
        """Write the provider's first frame, and wait.

        Returns:
            The provider's bytes that came behind its STREAM_ACCEPT.

        Raises:
            Rejected: it refused, said nothing in time, or broke the protocol.
            ProviderLost: its connection ended before it answered.
            Gone: see `give_up`.
        """
        self._reading.start()
        try:
            self._stream.write(first)
            async with asyncio.timeout(seconds):
                return await self._outcome
        except StreamClosed:
            failed = self._failed(reject.PROVIDER_STREAM_OPEN_FAILED)
            raise ProviderLost(failed, asked=False) from None
        except TimeoutError:
            self._counters["accept_timeout"] += 1
            raise Rejected(self._failed()) from None
        finally:
            self._reading.release()

    def give_up(self, why: Exception) -> None:
        """Nobody wants the answer any more; `ask` raises this, unless it is there."""
        if not self._outcome.done():
            self._outcome.set_exception(why)
            self._outcome.exception()  # it may come before anybody waits

    def _failed(self, answer: StreamReject = reject.PROVIDER_REJECTED) -> StreamReject:
        """What the consumer is told when the provider, or its relay, does not answer."""
        return reject.PEER_RELAY_FORWARD_FAILED if self._relayed else answer

    def _answered(self, answer: FirstWord, rest: bytes) -> None:
        if isinstance(answer, StreamAccept):
            if not self._outcome.done():
                self._outcome.set_result(rest)
                self._on_accept()
        elif isinstance(answer, StreamReject):
            self._counters["provider_rejected"] += 1
            passed_on = answer if self._relayed else reject.provider_rejected(answer.reason)
            self.give_up(Rejected(passed_on))
        else:
            self._counters["provider_unexpected"] += 1
            self.give_up(Rejected(self._failed()))

    def _silent(self, why: NoMessage) -> None:
        # A fault of another relay says nothing about the provider.
        fault = self._relayed and why.why == "reset" and why.code == ResetCode.RELAY_FAULT
        if why.why == "lost" or fault:
            self._counters["provider_lost"] += 1
            self.give_up(ProviderLost(self._failed(), asked=True))
        else:
            label = "no_answer" if why.error is None else why.error.label
            self._counters[f"provider_{label}"] += 1
            self.give_up(Rejected(self._failed()))
