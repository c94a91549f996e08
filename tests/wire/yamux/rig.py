"""A session between the test and a peer: everything said is exchanged until nobody has more."""

from __future__ import annotations

from collections.abc import Callable

from tests.wire.yamux.peer import Frame, Peer, frames_of
from wire.yamux.events import DataReceived, Event, FinReceived, StreamOpened
from wire.yamux.limits import Limits
from wire.yamux.session import Session
from wire.yamux.unread_budget import UnreadBudget


class Ours:
    """A session, its clock, and an application that takes everything."""

    def __init__(
        self,
        *,
        client: bool,
        limits: Limits | None = None,
        next_id: int = 0,
        eager: bool = True,
        budget: UnreadBudget | None = None,
        on_relief: Callable[[], object] = int,
    ) -> None:
        self.now = 100.0
        self.session = Session(
            client=client,
            now=self.now,
            limits=limits or Limits(),
            next_id=next_id,
            budget=budget,
            on_relief=on_relief,
        )
        self.eager = eager
        self.events: list[Event] = []
        self.received: dict[int, bytearray] = {}

    def feed(self, *frames: Frame | bytes) -> list[Event]:
        """What the session makes of them."""
        events: list[Event] = []
        for frame in frames:
            data = frame.encode() if isinstance(frame, Frame) else frame
            events += self.session.receive(data, self.now)
            while self.session.more:
                events += self.session.receive(b"", self.now)
        self.take(events)
        return events

    def take(self, events: list[Event]) -> None:
        """Act as an application does."""
        self.events += events
        for event in events:
            if isinstance(event, StreamOpened) and self.eager:
                self.session.accept(event.stream_id)
            elif isinstance(event, DataReceived):
                self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
                if self.eager:
                    self.session.consume(event.stream_id, len(event.data))

    def output(self, most: int = 1 << 30) -> bytes:
        """What it sends now."""
        buffers, events = self.session.data_to_send(most, self.now)
        self.take(events)
        return b"".join(buffers)

    def frames(self) -> list[Frame]:
        """The same, as frames."""
        frames, rest = frames_of(self.output())
        assert rest == b""
        return frames

    def ended(self) -> set[int]:
        """Streams whose FIN came."""
        return {event.stream_id for event in self.events if isinstance(event, FinReceived)}


def exchange(ours: Ours, peer: Peer, *, most: int = 1 << 30, cut: int = 0) -> None:
    """Until both are silent.

    Args:
        most: bytes of payload per write of ours.
        cut: bytes per segment in both directions; 0: as they come.
    """
    while True:
        mine, theirs = ours.output(most), peer.output()
        if not mine and not theirs:
            return
        for data, sink in ((mine, peer.receive), (theirs, lambda part: ours.feed(part))):
            step = cut or len(data) or 1
            for start in range(0, len(data), step):
                sink(data[start : start + step])
