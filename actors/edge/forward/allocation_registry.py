"""The record of all allocations: grants them, gives a restarted one its addresses, ends them.

Holds what must outlive an `Allocation`: ids, members and the addresses learnt so far. Its own
memory outlives it in the allocations, which announce themselves again when it was restarted. An
allocation pair ends with its stream (monitored), and when nobody was heard for the idle time.

Ids are random, never zero, never one in use: neither to be guessed nor to be hit by a late datagram
of a former stream.

Source: protocol sheet ORP 3.5; 6.3 F1, F2, F5.
"""

from __future__ import annotations

import secrets
from collections import Counter

from actors.edge.forward.advertise import advertised
from actors.edge.forward.allocation import Allocation
from actors.edge.forward.context import ForwardContext
from actors.edge.forward.messages import (
    SIDES,
    Addresses,
    Announce,
    Bound,
    ForwardEnded,
    Grant,
    Granted,
    Heard,
    PairRecord,
    Release,
    Restore,
)
from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Backoff,
    ChildRefused,
    ChildSpec,
    Deferred,
    Down,
    MailboxSpec,
    Refusal,
    Reply,
    Restart,
    handles,
)

#: An allocation that is away loses packets: it is restarted at once. What fails all the time is
#: given up after as many restarts as its supervisor's intensity allows.
BACKOFF = Backoff(base=0.0, cap=0.0)
#: Allocations whose supervisor was restarted, or gave them up, are started anew: both of a pair,
#: this often in `REVIVAL_PERIOD` seconds, `REVIVE_PAUSE` seconds after each end or refusal.
MAX_REVIVALS = 20
REVIVAL_PERIOD = 10.0
REVIVE_PAUSE = 0.02
#: Seconds in which live allocations announce themselves to a restarted registry.
RESTORE_GRACE = 0.1


class _Entry:
    """One pair of allocations."""

    __slots__ = (
        "addresses",
        "allocations",
        "monitors",
        "record",
        "reply",
        "revivals",
        "revived_since",
    )

    def __init__(self, record: PairRecord) -> None:
        self.record = record
        self.addresses = Addresses()
        self.allocations: list[ActorRef | None] = [None, None]
        #: Of the allocations by side, of the stream pair as None.
        self.monitors: dict[int | None, int] = {}
        self.reply: Reply[Granted] | None = None
        self.revivals = 0
        self.revived_since = 0.0


class _IdleCheck:
    """See whether anybody was heard."""

    __slots__ = ("entry",)

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry


class _Complete:
    """See that both allocations of a restored pair live."""

    __slots__ = ("entry",)

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry


class _Revive:
    """Start an allocation whose place is gone."""

    __slots__ = ("entry", "side")

    def __init__(self, entry: _Entry, side: int) -> None:
        self.entry = entry
        self.side = side


class AllocationRegistry(Actor):
    mailbox = MailboxSpec(bound=65_536)

    def __init__(self, place: ForwardContext) -> None:
        self._place = place
        self._by_id: dict[int, _Entry] = {}
        self._by_monitor: dict[int, tuple[_Entry, int | None]] = {}
        self._counters: Counter[str] = Counter()
        self._serial = 0

    def describe(self) -> dict[str, object]:
        """How many pairs, and what became of the others."""
        return {
            "pairs": len(self._by_id) // 2,
            "max_allocations": self._place.settings.max_allocations,
            "idle_seconds": self._place.settings.idle,
            "counters": dict(self._counters),
        }

    # Granting.

    @handles(Grant)
    def _grant(self, message: Grant) -> Granted | Refusal | Deferred:
        if self._place.table.address is None:
            return self._refuse("down")
        if len(self._by_id) + 2 > self._place.settings.max_allocations:
            return self._refuse("full")
        if None in [self._endpoint(member.ip) for member in message.members]:
            return self._refuse("unreachable")
        first = self._new_id(0)
        ids = (first, self._new_id(first))
        now = self.now()
        record = PairRecord(
            message.stream_id, message.pair, message.members, ids, Heard([now, now])
        )
        entry = self._enter(record)
        for side in (0, 1):
            try:
                self._start(entry, side)
            except ChildRefused as refused:
                if refused.why == "full":
                    self._end(entry, "full")
                    return self._refuse("full")
                # Their supervisor is being restarted; the asker's deadline is the limit.
                self.start_timer(REVIVE_PAUSE, _Revive(entry, side))
        entry.reply = self.defer()
        self._counters["granted"] += 1
        return DEFERRED

    def _refuse(self, why: str) -> Refusal:
        self._counters[f"refused_{why}"] += 1
        return Refusal(why)

    def _endpoint(self, agent_ip: str) -> str | None:
        bound = self._place.table.address
        if bound is None:
            return None
        return advertised(bound, self._place.settings.advertise, agent_ip)

    def _new_id(self, other: int) -> int:
        # The table as well: allocations may live that a restarted registry has not heard of.
        taken = self._place.table.routes
        while True:
            candidate = secrets.randbits(32)
            if candidate not in (0, other) and not (candidate in self._by_id or candidate in taken):
                return candidate

    def _enter(self, record: PairRecord) -> _Entry:
        entry = _Entry(record)
        for allocation_id in record.ids:
            self._by_id[allocation_id] = entry
        self._watch(entry, record.pair, None)
        self.start_timer(self._place.settings.idle, _IdleCheck(entry), entry)
        return entry

    def _watch(self, entry: _Entry, ref: ActorRef, side: int | None) -> None:
        """Monitor the pair (side None) or an allocation, once at a time."""
        before = entry.monitors.pop(side, None)
        if before is not None:
            self.demonitor(before)
            self._by_monitor.pop(before, None)
        token = entry.monitors[side] = self.monitor(ref)
        self._by_monitor[token] = (entry, side)

    def _start(self, entry: _Entry, side: int) -> None:
        """Start one allocation; its path names the stream, not the id.

        Raises:
            ChildRefused: its supervisor is full or away.
        """
        place, record = self._place, entry.record
        self._serial += 1
        spec = ChildSpec(
            f"{record.stream_id:016x}-{SIDES[side]}~{self.incarnation}.{self._serial}",
            lambda: Allocation(place, record, side),
            restart=Restart.TRANSIENT,
            shutdown=1.0,
            backoff=BACKOFF,
        )
        self.system.start_child(place.allocations(), spec)

    # What allocations tell.

    @handles(Announce)
    def _announce(self, message: Announce) -> Addresses:
        record, side = message.record, message.side
        entry = self._by_id.get(record.ids[side])
        if entry is None:
            entry = self._enter(record)  # this registry is younger than the allocation
            self._counters["adopted"] += 1
        if entry.allocations[side] is not None:
            self._counters["restarted"] += 1
            self.log.info(
                "allocation of {} is back: {}", record.members[side].uri, message.allocation.path
            )
        for index, address in enumerate(message.known.at):
            if address is not None:
                entry.addresses.at[index] = address
        former = entry.allocations[side]
        if former is not None and former.path != message.allocation.path:
            former.try_tell(Release("replaced"))
        entry.allocations[side] = message.allocation
        self._watch(entry, message.allocation, side)
        self._answer_grant(entry)
        return Addresses(list(entry.addresses.at))

    def _answer_grant(self, entry: _Entry) -> None:
        reply = entry.reply
        if reply is None or None in entry.allocations:
            return
        entry.reply = None
        endpoints = [self._endpoint(member.ip) for member in entry.record.members]
        if endpoints[0] is None or endpoints[1] is None:
            reply.send(Refusal("unreachable"))
        else:
            reply.send(Granted(entry.record, (endpoints[0], endpoints[1])))

    @handles(Restore)
    def _restore(self, message: Restore) -> None:
        """The allocations announce themselves if they live; what is missing then is started."""
        if message.record.ids[0] not in self._by_id:
            self._enter(message.record)
        self.start_timer(RESTORE_GRACE, _Complete(self._by_id[message.record.ids[0]]))

    @handles(_Complete)
    def _complete(self, message: _Complete) -> None:
        entry = message.entry
        for side in (0, 1):
            if entry.allocations[side] is None:
                self._revive(_Revive(entry, side))

    @handles(Bound)
    def _bound(self, message: Bound) -> None:
        entry = self._by_id.get(message.allocation_id)
        if entry is not None:
            side = entry.record.ids.index(message.allocation_id)
            entry.addresses.at[side] = message.address

    # The end.

    @handles(Down)
    def _down(self, down: Down) -> None:
        entry, side = self._by_monitor.pop(down.token, (None, None))
        if entry is None:
            return
        entry.monitors.pop(side, None)
        if side is None:
            self._end(entry, "stream ended")
            return
        allocation = entry.allocations[side]
        if allocation is None:
            return
        if self.system.find(allocation.path) is None:
            # Its supervisor was restarted without it, or gave it up.
            self.start_timer(REVIVE_PAUSE, _Revive(entry, side))
        else:
            self._watch(entry, allocation, side)  # it comes back, or this says that it will not

    @handles(_Revive)
    def _revive(self, message: _Revive) -> None:
        entry = message.entry
        if self._by_id.get(entry.record.ids[0]) is not entry:
            return
        now = self.now()
        if now - entry.revived_since > REVIVAL_PERIOD:
            entry.revived_since, entry.revivals = now, 0
        if entry.revivals >= MAX_REVIVALS:
            entry.record.pair.try_tell(ForwardEnded("allocation failing"))
            self._end(entry, "allocation failing")
            return
        try:
            self._start(entry, message.side)
        except ChildRefused:
            self.start_timer(REVIVE_PAUSE, message)  # its supervisor is away; idleness is the limit
        else:
            entry.revivals += 1
            self._counters["revived"] += 1

    @handles(_IdleCheck)
    def _idle_check(self, message: _IdleCheck) -> None:
        entry = message.entry
        left = entry.record.heard.last + self._place.settings.idle - self.now()
        if left > 0:
            self.start_timer(left, message, entry)
            return
        self._counters["idle"] += 1
        entry.record.pair.try_tell(ForwardEnded("idle"))
        self._end(entry, "idle")

    def _end(self, entry: _Entry, why: str) -> None:
        """The ids are dead from now on."""
        self._counters["ended"] += 1
        self.cancel_timer(entry)
        for token in entry.monitors.values():
            self.demonitor(token)
            self._by_monitor.pop(token, None)
        entry.monitors.clear()
        for allocation_id in entry.record.ids:
            self._by_id.pop(allocation_id, None)
            route = self._place.table.routes.get(allocation_id)
            if route is not None:
                route.abort()
        for allocation in entry.allocations:
            if allocation is not None:
                allocation.try_tell(Release(why))
        if entry.reply is not None:
            entry.reply.send(Refusal(why))
            entry.reply = None
