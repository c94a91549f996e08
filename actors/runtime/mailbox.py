"""Mailboxes: two lanes, a declared bound, a declared overflow policy.

The *system lane* carries only what the runtime writes (stop, child exits, links); it is served
first, also while the actor is suspended, and is bounded by the number of children and links.
The *user lane* is FIFO and bounded. `Down` notices and timer ticks use reserved slots: they are
never refused, and are bounded by the number of monitors and timers of the receiver.

A mailbox knows nothing of actors or tasks: whoever drains it parks a future in `waiter`, and
`offer` completes it once.

Source: docs/runtime.md section 2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Overflow(Enum):
    """What happens to a message that finds the user lane at its bound."""

    REJECT = "reject"  #: the caller sees `MailboxFull`
    DROP_NEWEST = "drop_newest"  #: the new message is dropped and counted
    DROP_OLDEST = "drop_oldest"  #: the oldest queued message is dropped and counted
    COALESCE = "coalesce"  #: replaces the queued message of equal key; at the bound as REJECT
    WAIT = "wait"  #: `await ref.send()` waits for room; `tell` sees `MailboxFull`


@dataclass(frozen=True, slots=True)
class MailboxSpec:
    """Bound and overflow policy of one actor class.

    Attributes:
        bound: messages in the user lane, reserved slots not counted.
        overflow: see `Overflow`.
        key: for COALESCE, the key of a message; None means "never coalesced".
    """

    bound: int = 1024
    overflow: Overflow = Overflow.REJECT
    key: Callable[[object], Hashable | None] | None = None


class MailboxStatistics(NamedTuple):
    """A snapshot of one mailbox's counters."""

    depth: int  #: messages in the user lane now
    bound: int  #: its bound
    high_water: int  #: most messages it ever held
    received: int  #: messages accepted
    rejected: int  #: refused at the bound
    dropped: int  #: dropped by policy (for COALESCE: replaced)
    sojourn: float  #: seconds the last sampled message waited


class Coalesced:
    """A queued message that a newer one with the same key may replace."""

    __slots__ = ("key", "message")

    def __init__(self, key: Hashable, message: object) -> None:
        self.key = key
        self.message = message


class Stamped:
    """One message in 64 carries the time it was queued, to sample the sojourn time."""

    __slots__ = ("at", "message")

    def __init__(self, at: float, message: object) -> None:
        self.at = at
        self.message = message


SAMPLE_MASK = 63


class _Verdict(Enum):
    QUEUE = 0
    ABSORBED = 1
    REFUSED = 2


class Mailbox:
    """Two lanes and their counters. Not thread-safe: one loop owns it."""

    __slots__ = (
        "_clock",
        "_latest",
        "_senders",
        "dropped",
        "high_water",
        "queue",
        "received",
        "rejected",
        "sojourn",
        "spec",
        "system",
        "waiter",
    )

    def __init__(self, spec: MailboxSpec, clock: Callable[[], float]) -> None:
        self.spec = spec
        self._clock = clock
        self.queue: deque[object] = deque()
        self.system: deque[object] | None = None
        self.waiter: asyncio.Future[None] | None = None
        self._latest: dict[Hashable, Coalesced] | None = None
        self._senders: deque[asyncio.Future[None]] | None = None
        self.received = 0
        self.rejected = 0
        self.dropped = 0
        self.high_water = 0
        self.sojourn = 0.0

    def offer(self, message: object) -> bool:
        """Queue a user message, or apply the overflow policy.

        Returns False when it was refused (the caller raises); True when it was queued,
        dropped by policy or coalesced. Cost: one append, and one `set_result` when the
        owner was idle.
        """
        queue = self.queue
        depth = len(queue)
        if depth >= self.spec.bound:
            verdict = self._at_bound(message)
            if verdict is not _Verdict.QUEUE:
                return verdict is _Verdict.ABSORBED
        self.received += 1
        if self.spec.key is not None:
            if self._coalesce(message):
                return True
        elif self.received & SAMPLE_MASK:
            queue.append(message)
        else:
            queue.append(Stamped(self._clock(), message))
        if depth >= self.high_water:
            self.high_water = depth + 1
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        return True

    def _at_bound(self, message: object) -> _Verdict:
        """Apply the overflow policy to a message that finds the lane full."""
        overflow = self.spec.overflow
        if overflow is Overflow.DROP_OLDEST:
            oldest = self.queue.popleft()
            if isinstance(oldest, Coalesced) and self._latest is not None:
                self._latest.pop(oldest.key, None)
            self.dropped += 1
            return _Verdict.QUEUE
        if overflow is Overflow.DROP_NEWEST:
            self.received += 1
            self.dropped += 1
            return _Verdict.ABSORBED
        if overflow is Overflow.COALESCE and self.spec.key is not None and self._latest:
            key = self.spec.key(message)
            if key is not None and key in self._latest:
                return _Verdict.QUEUE  # it replaces a queued one: the depth stays
        self.rejected += 1
        return _Verdict.REFUSED

    def _coalesce(self, message: object) -> bool:
        """Queue under its key; True when it replaced a queued one (no wake-up needed)."""
        assert self.spec.key is not None
        key = self.spec.key(message)
        if key is None:
            self.queue.append(message)
            return False
        latest = self._latest
        if latest is None:
            latest = self._latest = {}
        slot = latest.get(key)
        if slot is not None:
            slot.message = message
            self.dropped += 1
            return True
        slot = latest[key] = Coalesced(key, message)
        self.queue.append(slot)
        return False

    def offer_reserved(self, message: object) -> None:
        """Queue a `Down` or a tick: never refused, not counted against the bound."""
        self.queue.append(message)
        self.wake()

    def offer_system(self, message: object) -> None:
        """Queue into the system lane: served before the user lane, also while suspended."""
        if self.system is None:
            self.system = deque()
        self.system.append(message)
        self.wake()

    def wake(self) -> None:
        """Complete the owner's wake-up future, if it is parked."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def unwrap(self, item: object) -> object:
        """Turn a queued `Stamped` or `Coalesced` into its message, taking the sample."""
        if type(item) is Stamped:
            self.sojourn = self._clock() - item.at
            return item.message
        if type(item) is Coalesced:
            if self._latest is not None:
                self._latest.pop(item.key, None)
            return item.message
        return item

    # Waiting for room (policy WAIT).

    def room_waiter(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future completed when the user lane has room again."""
        if self._senders is None:
            self._senders = deque()
        future = loop.create_future()
        self._senders.append(future)
        return future

    def made_room(self) -> None:
        """Called by the drainer after a pop: lets the next waiting sender in."""
        senders = self._senders
        if senders is None:
            return
        while senders and len(self.queue) < self.spec.bound:
            future = senders.popleft()
            if not future.done():
                future.set_result(None)
                return

    @property
    def has_senders(self) -> bool:
        """True while somebody waits for room."""
        return bool(self._senders)

    def release_senders(self) -> None:
        """Wake every waiting sender; each finds out by itself that the actor is gone."""
        while self._senders:
            future = self._senders.popleft()
            if not future.done():
                future.set_result(None)

    def statistics(self) -> MailboxStatistics:
        """The counters, as one tuple."""
        return MailboxStatistics(
            len(self.queue),
            self.spec.bound,
            self.high_water,
            self.received,
            self.rejected,
            self.dropped,
            self.sojourn,
        )
