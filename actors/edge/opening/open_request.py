"""A stream that an agent wants opened: its OPEN_STREAM with the stream, and how that can fail.

Source: protocol sheet ORP 2.5, 3.3; 6.1 R10.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.runtime import ActorRef
from actors.transport.quota import Ticket
from actors.transport.stream import Stream
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.messages import OpenStream, StreamReject


@dataclass(slots=True)
class OpenRequest:
    """What an agent's connection hands over.

    Attributes:
        message: the OPEN_STREAM.
        stream: the consumer's stream, paused; the pair owns it from its `init` on.
        rest: application bytes that came with the frame; not consumed yet.
        consumer, tenant: who asks.
        connection: the consumer's agent connection, or the link to the relay where it is.
        relay: the other relay that brought the stream, where the consumer is; empty: none did.
    """

    message: OpenStream
    stream: Stream
    rest: bytes
    consumer: str
    tenant: str
    connection: ActorRef
    relay: str = ""
    ticket: Ticket | None = None  #: of `EdgeQuotas.streams`
    owned: bool = False  #: by a pair; until then by the agent's connection

    def abandon(self) -> None:
        """Its pair ended. If it did before it could take the stream, refuse it."""
        if not self.owned:
            self.refuse()

    def refuse(self, answer: StreamReject = reject.RELAY_UNAVAILABLE) -> None:
        """Reject and finish both halves, so that the consumer gets its stream credit back."""
        if self.ticket is not None and not self.owned:
            self.ticket.abort()
        stream = self.stream
        stream.forget_callbacks()
        if not stream.write_closed:
            stream.write(answer.encode())
            stream.write_eof()
        stream.stop_sending(ResetCode.REJECTED)


class Rejected(Exception):
    """The open sequence ended with this reject."""

    def __init__(self, answer: StreamReject) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class ProviderLost(Rejected):
    """The provider's connection ended before it answered: it, or another one, may be asked again.

    Attributes:
        asked: it heard of the stream, and may have been lost because of it.
    """

    def __init__(self, answer: StreamReject, *, asked: bool) -> None:
        super().__init__(answer)
        self.asked = asked


class Gone(Exception):
    """The consumer disappeared during the open sequence."""
