"""The live resumable streams of one agent, and what its link wants to hear of them.

Source: protocol sheet ORP 3.6 to 3.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wire.orp.messages import StreamCheckpoint
from wire.orp.replay import RingBudget

if TYPE_CHECKING:
    from actors.transport.stream import Stream
    from tools.agent.resumable import ResumableStream

#: Sent bytes kept by all streams of an agent together; the oldest are dropped.
BUDGET_BYTES = 256 << 20
#: Ended streams whose final checkpoint is repeated after the loss of a connection.
MAX_REMEMBERED = 256


class StreamTable:
    """The streams by id; outlives the link.

    Attributes:
        moved: streams whose positions changed since the last checkpoint.
        on_parked: the link's; called when a stream lost its path.
        on_ended: the link's; called when a stream received its FIN.
        on_lingering: the link's; called when a stream's pump is through.
        on_left: the link's; called when the other agent left a path that still brings bytes.
    """

    def __init__(self) -> None:
        self.streams: dict[int, ResumableStream] = {}
        self.moved: dict[ResumableStream, None] = {}
        #: The last streams that ended well: sent and received. Bound: MAX_REMEMBERED, oldest out.
        self.ended: dict[int, tuple[int, int]] = {}
        self.budget = RingBudget(BUDGET_BYTES)
        self.on_parked: Callable[[ResumableStream], object] | None = None
        self.on_ended: Callable[[], object] | None = None
        self.on_lingering: Callable[[ResumableStream], object] | None = None
        self.on_left: Callable[[ResumableStream, Stream], object] | None = None

    def remember(self, stream_id: int, sent: int, received: int) -> None:
        """A stream ended well: should the relay not have heard, it is said again."""
        self.ended[stream_id] = (sent, received)
        if len(self.ended) > MAX_REMEMBERED:
            del self.ended[next(iter(self.ended))]

    def parked(self) -> list[ResumableStream]:
        """Streams without a path."""
        return [stream for stream in self.streams.values() if stream.parked]

    def lingering(self) -> list[ResumableStream]:
        """Streams that ended and are not confirmed."""
        return [stream for stream in self.streams.values() if stream.lingering]

    def checkpointed(self, checkpoint: StreamCheckpoint) -> None:
        """The other agent says what it received."""
        stream = self.streams.get(checkpoint.stream_id)
        if stream is not None:
            stream.acknowledged(checkpoint.peer_ack_position, ended=checkpoint.ended)
