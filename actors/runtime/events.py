"""The event stream of the actor system, and the dead letters.

Every start, exit, restart decision, escalation and runtime fault is one `Event`. Subscribers
are plain callables, called in the loop iteration that published; they must not block and must
not raise. An actor subscribes with `EventStream.subscribe(ref.tell)` behind a filter, or through
`Actor.subscribe`. The last `HISTORY` events stay readable for whoever comes later.

Source: docs/runtime.md section 9.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from loguru import logger

#: Events kept for late readers; the oldest is forgotten.
HISTORY = 2048
#: Dead letters kept as samples; counters keep counting.
DEAD_LETTER_SAMPLES = 256


@dataclass(slots=True)
class Event:
    """One thing that happened in the tree.

    Attributes:
        kind: started, exited, removed, gave_up, escalated, undead, storm, release_error,
            shutdown_error, unowned_exception, suspended, resumed, stalled, operator.
        path: the actor concerned.
        incarnation: its incarnation, 0 when there was none.
        fields: what else there is to say; JSON-able, never payload or secrets.
        seq: position in the stream, set when published.
        at: wall-clock seconds, set when published.
    """

    kind: str
    path: str
    incarnation: int = 0
    fields: dict[str, object] = field(default_factory=dict)
    seq: int = 0
    at: float = 0.0


class EventStream:
    """Publishes events to subscribers and keeps the recent ones."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._subscribers: dict[int, Callable[[Event], None]] = {}
        self._next_token = 1
        self.history: deque[Event] = deque(maxlen=HISTORY)
        self.published = 0

    def publish(self, event: Event) -> None:
        """Stamp, remember and hand out one event."""
        self.published += 1
        event.seq = self.published
        event.at = self._wall_clock()
        self.history.append(event)
        if self._subscribers:
            for subscriber in tuple(self._subscribers.values()):
                try:
                    subscriber(event)
                except Exception:  # noqa: BLE001  # a broken observer must not hurt what it observes
                    logger.exception("event subscriber failed")

    def subscribe(self, subscriber: Callable[[Event], None]) -> int:
        """Call `subscriber(event)` for every event from now on. Returns a token."""
        token = self._next_token
        self._next_token += 1
        self._subscribers[token] = subscriber
        return token

    def unsubscribe(self, token: int) -> None:
        """Stop calling; harmless when unknown."""
        self._subscribers.pop(token, None)

    @property
    def subscribers(self) -> int:
        """How many subscribers there are."""
        return len(self._subscribers)


class Subscription:
    """An owned event subscription: releasing it unsubscribes."""

    __slots__ = ("_stream", "_token")

    def __init__(self, stream: EventStream, token: int) -> None:
        self._stream = stream
        self._token = token

    def abort(self) -> None:
        """Unsubscribe; idempotent."""
        self._stream.unsubscribe(self._token)


@dataclass(slots=True)
class DeadLetter:
    """A message that reached nobody: who sent what to where, and why it was lost."""

    at: float
    sender: str
    target: str
    message_type: str
    why: str


class DeadLetters:
    """Counts every dead letter by type and cause; keeps the last few as samples."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self.total = 0
        self.by_type: Counter[tuple[str, str]] = Counter()
        self.samples: deque[DeadLetter] = deque(maxlen=DEAD_LETTER_SAMPLES)

    def add(self, sender: str, target: str, message: object, why: str) -> None:
        """Count one. The message itself is not kept, only its type."""
        self.total += 1
        name = type(message).__name__
        self.by_type[name, why] += 1
        self.samples.append(DeadLetter(self._wall_clock(), sender, target, name, why))
