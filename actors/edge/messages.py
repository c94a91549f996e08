"""Messages between the actors of the edge door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.control.messages import P2PMode
from actors.runtime import Request
from wire.orp.events import PeerFrame
from wire.orp.messages import AllocGranted

if TYPE_CHECKING:
    from actors.edge.resume.returning import ResumingStream


@dataclass(slots=True)
class SendReady:
    """To an agent connection: tell the agent that this stream is spliced, and who is across."""

    stream_id: int
    peer: str


@dataclass(slots=True)
class SendGranted:
    """To an agent connection: tell the agent which allocations carry this stream."""

    granted: AllocGranted


@dataclass(slots=True)
class RemoteAddress(Request[tuple[str, int]]):
    """To an agent connection: where is the agent connected from now? Refused when closed."""


@dataclass(slots=True)
class CopyFrame:
    """To a connection of an agent or a relay: copy another agent's ctrl frame to it."""

    frame: PeerFrame


@dataclass(slots=True)
class Reach:
    """To the link to another relay: somebody has something to say to it."""


@dataclass(slots=True)
class Rejoin(Request[None]):
    """To a live pair: an agent of it came back with this half, which the pair takes.

    Refused with a text when the pair cannot go on with it; then the half is still the asker's.
    `mode` is what policy says of the stream now.
    """

    half: ResumingStream
    mode: P2PMode


@dataclass(slots=True)
class Denied:
    """To a live pair: policy does not allow its stream any more, and an agent of it came back."""


@dataclass(slots=True)
class CameWithout:
    """To a pair that waits for this agent: it is connected again, and has none of its streams."""

    uri: str


@dataclass(slots=True)
class Checkpointed:
    """To a live pair: the application of this agent received so many bytes, and the FIN or not."""

    uri: str
    received: int
    ended: bool


@dataclass(slots=True)
class Migrated:
    """To a live pair: an agent of it said that the stream goes peer to peer."""


@dataclass(slots=True)
class Close:
    """To an agent connection: end it with this application code and reason."""

    code: int
    reason: str
