"""One allocation: the id under which one agent of a forward stream can be reached.

Takes the datagrams that carry its id and sends them, without the prefix, to its agent. It accepts
them from its partner's agent only, whose id nobody else can use as a source. An agent's address is
learnt from its registration and, because that single datagram can be lost and NATs rebind, from
its data: a datagram with this id can only come from the partner's agent. Both need the IP address
the agent is connected from, and an address in use is not given up while it is heard.

An agent that is quicker than the other one sends before that is registered: its first datagrams
wait a moment for the address, because their repetition costs a handshake some 200 ms.

Data never passes the mailbox; what comes from the partner's address for a known one does not even
pass this actor: the table forwards it by the route. What does not is `_deliver`'s. Transient: after
a crash or kill it comes back with the same id, and with the addresses the allocation registry has
on record, which this actor told it. The registry restarted hears of it again.

Source: protocol sheet ORP 3.5; 6.3 F2 to F5.
"""

from __future__ import annotations

from actors.edge.forward.context import ForwardContext
from actors.edge.forward.messages import (
    CONSUMER,
    PROVIDER,
    SIDES,
    Addresses,
    Announce,
    Bound,
    PairRecord,
    Release,
)
from actors.edge.forward.route_table import Route, RouteTable, datagrams
from actors.edge.messages import RemoteAddress
from actors.runtime import (
    Actor,
    AskFailed,
    Down,
    MailboxSpec,
    handles,
    shutdown,
)
from actors.transport.udp import Address

#: Seconds an address must be silent before another one of the same agent replaces it: a NAT that
#: rebinds silences the old one by itself, an intruder does not.
REBIND_SILENCE = 0.5
#: Seconds between two questions where an agent is connected from, whatever arrives meanwhile.
RECHECK = 1.0
#: Datagrams, and bytes of them, that wait for the address of an allocation's agent; what exceeds
#: that is dropped and counted, as is everything that waited `HELD_SECONDS`. All allocations
#: together: `HELD_BYTES_OF_ALL`.
HELD_DATAGRAMS = 8
HELD_BYTES = 16_384
HELD_BYTES_OF_ALL = 4 << 20
HELD_SECONDS = 2.0
_MAPPED = "::ffff:"


class _Recheck:
    """Ask a member's connection for its present IP."""

    __slots__ = ("side",)

    def __init__(self, side: int) -> None:
        self.side = side


class _HeldOver:
    """Nobody registered in time for what waits."""

    __slots__ = ()


class _Held:
    """Datagrams that wait for an address, as a resource: aborting it gives their memory back."""

    __slots__ = ("_table", "datagrams", "size")

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self.datagrams: list[bytes] = []
        self.size = 0

    def take(self, datagram: memoryview) -> bool:
        """Keep one. False: there is no room for it."""
        size = len(datagram)
        if (
            len(self.datagrams) >= HELD_DATAGRAMS
            or self.size + size > HELD_BYTES
            or self._table.held_bytes + size > HELD_BYTES_OF_ALL
        ):
            return False
        self.datagrams.append(bytes(datagram))
        self.size += size
        self._table.held_bytes += size
        return True

    def abort(self) -> None:
        """Forget them; idempotent."""
        self._table.held_bytes -= self.size
        self.datagrams, self.size = [], 0


class _Republish:
    """Tell a restarted registry about this allocation."""

    __slots__ = ()


def _plain(address: Address) -> str:
    ip = address[0]
    return ip[len(_MAPPED) :] if ip.startswith(_MAPPED) else ip


class Allocation(Actor):
    """One allocation: the id under which one agent of a forward stream can be reached.

    Args:
        place: the forward plane it is part of.
        record: what it shares with its partner.
        side: whose id it is.
    """

    mailbox = MailboxSpec(bound=64)
    _route: Route  # set in `init`

    def __init__(self, place: ForwardContext, record: PairRecord, side: int) -> None:
        self._place = place
        self._table = place.table
        self._record = record
        self._side = side
        self._partner = PROVIDER if side == CONSUMER else CONSUMER
        self._heard = record.heard.at
        self._addresses = Addresses()
        self._ips = [member.ip for member in record.members]
        self._rechecked = [0.0, 0.0]
        self._drops = 0
        self._held: _Held | None = None

    async def init(self) -> None:
        """Take datagrams, and get the addresses on record."""
        self._clock = self.system.loop.time
        self._registry = self._place.registry()
        self._route = Route(
            self._table,
            self._record.ids[self._side],
            deliver=self.guard("route", self._deliver),
            register=self.guard("route", self._register),
            moved=self.guard("route", self._moved),
            expect=self.guard("route", self._expect),
            addresses=self._addresses,
            heard=self._heard,
            partner=self._partner,
            clock=self._clock,
            guard=self.guard,
        )
        self.own(self._route, "route")
        partner = self._table.routes.get(self._record.ids[self._partner])
        if partner is not None:
            # It may have learnt ours while nobody was here to be told, nor the registry.
            self._remember(partner.addresses)
        try:
            # Not with patience: without an answer the data teaches the addresses again.
            recorded = await self._registry.ask(self._announcement(), timeout=1.0)
        except AskFailed:
            self.ref.tell(_Republish())
        else:
            self._remember(recorded)
            self.monitor(self._registry)

    def describe(self) -> dict[str, object]:
        """Whose it is, where that agent is, how much it got. Never the id."""
        route = self._route
        return {
            "stream_id": f"{self._record.stream_id:016x}",
            "side": SIDES[self._side],
            "agent_uri": self._record.members[self._side].uri,
            "address": _text(route.destination),
            "partner_address": _text(route.source),
            "datagrams": route.datagrams,
            "drops": self._drops,
            "bytes": route.bytes_out,
            "idle_seconds": round(self.now() - self._record.heard.last, 3),
        }

    # The data path.

    def _deliver(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        """Datagrams for our agent from elsewhere than before, or for one that is nowhere yet."""
        route = self._route
        if source != route.source and not self._learn_partner(source):
            self._drop("wrong_source", buffer, segment_size)
            return
        self._heard[self._partner] = self._clock()
        if route.destination is None:
            self._hold(buffer, segment_size)
        else:
            route.forward(buffer, segment_size, route.destination)

    def _hold(self, buffer: memoryview, segment_size: int) -> None:
        """Nobody knows where our agent is: it registers any moment, or not at all."""
        held = self._held
        if held is None:
            held = self._held = self.own(_Held(self._table), "held")
            self.start_timer(HELD_SECONDS, _HeldOver(), "held")
        for start in range(0, len(buffer), segment_size):
            datagram = buffer[start : start + segment_size]
            if not held.take(datagram):
                self._drop("unbound", datagram, segment_size)

    def _let_go(self) -> list[bytes]:
        """What waited; nothing does any more."""
        held, self._held = self._held, None
        if held is None:
            return []
        waited = held.datagrams
        held.abort()
        self.disown(held)
        self.cancel_timer("held")
        return waited

    @handles(_HeldOver)
    def _held_over(self, _: _HeldOver) -> None:
        for datagram in self._let_go():
            self._drop("unbound", memoryview(datagram), len(datagram))

    def _drop(self, why: str, buffer: memoryview, segment_size: int) -> None:
        count = datagrams(buffer, segment_size)
        self._drops += count
        self._table.counters[why] += count

    # Addresses.

    def _learn_partner(self, source: Address) -> bool:
        """A datagram with our id from an address that is not on record: does it move there?"""
        if not self._may_move(self._partner, source):
            return False
        self._expect(source)
        self._table.counters["learnt_from_data"] += 1
        partner = self._table.routes.get(self._record.ids[self._partner])
        if partner is not None:
            partner.moved(source)
        self._tell(self._partner, source)
        return True

    def _register(self, source: Address) -> None:
        """Our agent's registration datagram."""
        if source != self._route.destination:
            if not self._may_move(self._side, source):
                self._table.counters["registration_refused"] += 1
                return
            self._moved(source)
            partner = self._table.routes.get(self._record.ids[self._partner])
            if partner is not None:
                partner.expect(source)
            self._tell(self._side, source)
        self._table.counters["registrations"] += 1
        self._heard[self._side] = self._clock()

    def _moved(self, address: Address) -> None:
        self._route.destination = self._addresses.at[self._side] = address
        for datagram in self._let_go():
            self._route.forward(memoryview(datagram), len(datagram), address)

    def _expect(self, source: Address) -> None:
        self._route.source = self._addresses.at[self._partner] = source

    def _may_move(self, side: int, source: Address) -> bool:
        """May this side's agent be at `source` now?"""
        now = self._clock()
        before = self._addresses.at[side]
        if before is not None and now - self._heard[side] < REBIND_SILENCE:
            return False
        if not self._place.settings.check_source:
            return True
        ip, known = _plain(source), self._ips[side]
        if (":" in ip) != (":" in known):
            # Connected over the other IP version: the first address it uses pins its IP.
            return before is None or _plain(before) == ip
        if ip == known:
            return True
        if now - self._rechecked[side] >= RECHECK:
            self._rechecked[side] = now
            self.ref.try_tell(_Recheck(side))
        return False

    def _tell(self, side: int, address: Address) -> None:
        """Have the registry keep an address for our next incarnation, and the partner's."""
        self._registry.try_tell(Bound(self._record.ids[side], address))

    @handles(_Recheck)
    async def _ask_where(self, message: _Recheck) -> None:
        """The agent's connection may have migrated to another IP since the grant."""
        connection = self._record.members[message.side].connection
        try:
            host, _ = await connection.ask(RemoteAddress(), timeout=1.0)
        except AskFailed:
            return
        self._ips[message.side] = host

    # The registry.

    def _announcement(self) -> Announce:
        return Announce(self._record, self._side, self.ref, self._addresses)

    def _remember(self, recorded: Addresses) -> None:
        """What was learnt since the route is up is newer than the record."""
        own, partner = recorded.at[self._side], recorded.at[self._partner]
        if own is not None and self._route.destination is None:
            self._moved(own)
        if partner is not None and self._route.source is None:
            self._expect(partner)

    @handles(Down)
    def _registry_down(self, _: Down) -> None:
        self.ref.tell(_Republish())

    @handles(_Republish)
    async def _republish(self, _: _Republish) -> None:
        try:
            recorded = await self._registry.ask_again(self._announcement(), timeout=5.0)
        except AskFailed:
            self.start_timer(0.5, _Republish(), "republish")
            return
        self._remember(recorded)
        self.monitor(self._registry)

    @handles(Release)
    def _release(self, message: Release) -> None:
        self.stop(shutdown(message.why))


def _text(address: Address | None) -> str:
    return f"{_plain(address)}:{address[1]}" if address is not None else ""
