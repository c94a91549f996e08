"""Mailboxes: two lanes, a declared bound, a declared overflow policy.

The *system lane* carries only what the runtime writes (stop, child exits, links); it is served
first, also while the actor is suspended, and is bounded by the number of children and links.
The *user lane* is FIFO and bounded. `Down` notices and timer ticks use reserved slots: they are
never refused or dropped, and are bounded by the number of monitors and timers of the receiver.

A mailbox knows nothing of actors or tasks: whoever drains it parks a future in `waiter`, and
`offer` completes it once. An idle mailbox holds no queue at all: an empty deque is two thirds of
a kilobyte, which is a quarter of an idle actor.

Source: docs/runtime.md section 2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, cast

from .asks import Ask
from .signals import Notice, Tick


class Overflow(Enum):
    """What happens to a message that finds the user lane at its bound."""

    REJECT = "reject"  #: the caller sees `MailboxFull`
    DROP_NEWEST = "drop_newest"  #: the new message is dropped and counted; an ask is refused
    DROP_OLDEST = "drop_oldest"  #: the oldest queued message is dropped; an ask fails at once
    COALESCE = "coalesce"  #: replaces the queued message of equal key; at the bound as REJECT


@dataclass(frozen=True, slots=True)
class MailboxSpec:
    """Bound and overflow policy of one actor class.

    Attributes:
        bound: messages in the user lane, reserved slots not counted; at least 1.
        overflow: see `Overflow`.
        key: for COALESCE, the key of a message; None means "never coalesced". It runs in the
            sender and must not raise. Asks are never coalesced.
    """

    bound: int = 1024
    overflow: Overflow = Overflow.REJECT
    key: Callable[[object], Hashable | None] | None = None


class MailboxStatistics(NamedTuple):
    """A snapshot of one mailbox's counters."""

    depth: int  #: messages in the user lane now
    bound: int  #: its bound
    high_water: int  #: most messages it ever held
    received: int  #: messages accepted, ticks and `Down` included
    rejected: int  #: refused at the bound
    dropped: int  #: accepted, then dropped by policy (for COALESCE: replaced)
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


SAMPLE_MASK: Final = 63

#: Stands for the queue of an idle mailbox. Not a deque on purpose: a stray append must fail, and
#: everything else a reader does with an empty queue (len, iterate, test) works on a tuple.
NO_QUEUE: Final = cast("deque[object]", ())


class Mailbox:
    """Two lanes and their counters. Not thread-safe: one loop owns it."""

    __slots__ = (
        "_clock",
        "_key",
        "_latest",
        "bound",
        "dropped",
        "high_water",
        "queue",
        "received",
        "rejected",
        "reserved",
        "sojourn",
        "spec",
        "system",
        "waiter",
    )

    def __init__(self, spec: MailboxSpec, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.bound = spec.bound
        self._key = spec.key if spec.overflow is Overflow.COALESCE else None
        self._clock = clock
        self.queue: deque[object] = NO_QUEUE
        self.system: deque[object] | None = None
        self.waiter: asyncio.Future[None] | None = None
        self._latest: dict[Hashable, Coalesced] | None = None
        #: Ticks and notices among the queued messages.
        self.reserved = 0
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
        if queue is NO_QUEUE:
            queue = self.queue = deque()
        depth = len(queue)
        if depth >= self.bound and depth - self.reserved >= self.bound:
            accepted = self._at_bound(message)
            if accepted is not None:
                return accepted
            depth = len(queue)
        received = self.received = self.received + 1
        if self._key is not None:
            if self._coalesce(message):
                return True
        elif received & SAMPLE_MASK:
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

    def _at_bound(self, message: object) -> bool | None:
        """Apply the policy to a message that finds the lane full.

        None: there is room for it now. Otherwise what `offer` returns.
        """
        overflow = self.spec.overflow
        if overflow is Overflow.DROP_OLDEST:
            self._drop_oldest()
            return None
        if overflow is Overflow.DROP_NEWEST and type(message) is not Ask:
            self.received += 1
            self.dropped += 1
            return True
        if self._key is not None and self._latest and type(message) is not Ask:
            key = self._key(message)
            if key is not None and key in self._latest:
                return None  # it replaces a queued one: the depth stays
        self.rejected += 1
        return False

    def _drop_oldest(self) -> None:
        queue = self.queue
        for index, item in enumerate(queue):
            if type(item) not in (Tick, Notice):
                del queue[index]
                self.dropped += 1
                item = self.unwrap(item)
                if type(item) is Ask:
                    item.crowd_out()
                return

    def _coalesce(self, message: object) -> bool:
        """Queue under its key; True when it replaced a queued one (no wake-up needed)."""
        assert self._key is not None
        key = None if type(message) is Ask else self._key(message)
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

    def offer_reserved(self, message: Tick | Notice) -> None:
        """Queue a `Down` or a tick: never refused, not counted against the bound."""
        if self.queue is NO_QUEUE:
            self.queue = deque()
        self.queue.append(message)
        self.received += 1
        self.reserved += 1
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

    def statistics(self) -> MailboxStatistics:
        """The counters, as one tuple."""
        return MailboxStatistics(
            len(self.queue),
            self.bound,
            self.high_water,
            self.received,
            self.rejected,
            self.dropped,
            self.sojourn,
        )
