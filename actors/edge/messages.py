"""Messages between the actors of the edge door."""

from __future__ import annotations

from dataclasses import dataclass

from actors.runtime import Request
from actors.transport.stream import Stream
from wire.orp.events import PeerFrame


@dataclass(slots=True)
class OpenTowards(Request[Stream]):
    """To a provider's connection: open a stream to it, as soon as it allows one.

    Refused with a text when the connection cannot open any more. The asker owns the stream.
    """


@dataclass(slots=True)
class SendReady:
    """To an agent connection: tell the agent that this stream is spliced."""

    stream_id: int


@dataclass(slots=True)
class Forward:
    """To an agent connection: copy another agent's ctrl frame to this agent."""

    frame: PeerFrame


@dataclass(slots=True)
class Close:
    """To an agent connection: end it with this application code and reason."""

    code: int
    reason: str
