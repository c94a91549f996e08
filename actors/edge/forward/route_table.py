"""From a datagram to the allocation it is addressed to: the data path of the forward plane.

The table outlives its socket and the plane actor (docs/decisions/0013): routes belong to their
allocation actors, which install them when they start and lose them when they end. What arrives
while no socket is attached is lost, like on any wire.

A run of datagrams with one prefix goes to its route as one; nothing is copied, and no mailbox, task
or queue is involved. What a route lets through is data (from where, to where), so that the table
forwards without asking anybody; its actor sees the rest. Everything a hostile sender can cause here
is a counter.

Source: protocol sheet ORP 3.5; 6.3 F2, F5.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

from actors.edge.forward.messages import Addresses
from actors.runtime import Guard, unguarded
from actors.transport.udp import Address, UdpSocket
from wire.orp.forward_datagram import PREFIX, REGISTRATION, one_prefix

#: ``deliver(buffer, segment_size, source)``: datagrams with their prefix, one behind the other.
Deliver: TypeAlias = Callable[[memoryview, int, Address], object]
#: ``register(source)`` and the like.
Take: TypeAlias = Callable[[Address], object]

#: Ids of the lab switch; overflow: the oldest registration is forgotten.
MAX_INVENTED: Final = 1024


class Route:
    """One allocation in the table; aborting it takes it out.

    Attributes:
        source: datagrams from there are forwarded; None: none are, all go to `deliver`.
        destination: where they go, without their prefix; likewise.
        datagrams, bytes_in, bytes_out: forwarded ones; bytes in with their prefixes.
        heard: times, by side; the side at `source` is entered by the table.
        partner: which side that is.
        carry: forward a run of `source`; under the guard of its owner.
        deliver: other datagrams addressed to this id.
        register: the agent of this id registered from there.
        moved: the partner saw data of this id's agent from there.
        expect: the partner's agent sends from there now.
        addresses: where both agents are, as this allocation knows it.
    """

    __slots__ = (
        "_table",
        "addresses",
        "allocation_id",
        "bytes_in",
        "bytes_out",
        "carry",
        "clock",
        "datagrams",
        "deliver",
        "destination",
        "expect",
        "heard",
        "moved",
        "partner",
        "register",
        "source",
    )

    def __init__(
        self,
        table: RouteTable,
        allocation_id: int,
        *,
        deliver: Deliver,
        register: Take,
        moved: Take,
        expect: Take,
        addresses: Addresses,
        heard: list[float],
        partner: int,
        clock: Callable[[], float],
        guard: Guard = unguarded,
    ) -> None:
        self._table = table
        self.allocation_id = allocation_id
        self.deliver = deliver
        self.register = register
        self.moved = moved
        self.expect = expect
        self.addresses = addresses
        self.heard = heard
        self.partner = partner
        self.clock = clock
        self.source: Address | None = None
        self.destination: Address | None = None
        self.datagrams = self.bytes_in = self.bytes_out = 0
        self.carry = guard("route", self._carry)
        table.routes[allocation_id] = self

    def _carry(self, buffer: memoryview, segment_size: int, destination: Address) -> None:
        self.heard[self.partner] = self.clock()
        self.forward(buffer, segment_size, destination)

    def forward(self, buffer: memoryview, segment_size: int, destination: Address) -> None:
        """Send, and count what the socket took."""
        size, count = len(buffer), self._table.send(buffer, segment_size, destination)
        self.datagrams += count
        self.bytes_in += size
        self.bytes_out += size - count * PREFIX.size

    def abort(self) -> None:
        """Out of the table, if it is still ours; idempotent."""
        if self._table.routes.get(self.allocation_id) is self:
            del self._table.routes[self.allocation_id]


class RouteTable:
    """From a datagram to the allocation it is addressed to: the data path of the forward plane.

    Attributes:
        routes: by id.
        socket: attached by the plane actor, None while there is none.
        counters: drops and registrations, by reason.
        held_bytes: of datagrams that wait for an address, all allocations together.

    Args:
        invented_ids: serve ids nobody granted (lab switch).
    """

    def __init__(self, *, invented_ids: bool = False) -> None:
        self.routes: dict[int, Route] = {}
        self.socket: UdpSocket | None = None
        self.address: Address | None = None
        self.counters: Counter[str] = Counter()
        self.held_bytes = 0
        self._invented: OrderedDict[int, Address] | None = OrderedDict() if invented_ids else None

    def receive(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        """One datagram, or a run of one sender and size; the views are valid during the call."""
        size = len(buffer)
        if size < PREFIX.size or segment_size < PREFIX.size:
            self.counters["short"] += datagrams(buffer, segment_size) or 1
            return
        if size <= segment_size or one_prefix(buffer, segment_size):
            route = self.routes.get(PREFIX.unpack_from(buffer)[0])
            if route is None:
                self._without_route(buffer, segment_size, source)
            elif route.destination is not None and source == route.source:
                route.carry(buffer, segment_size, route.destination)
            else:
                route.deliver(buffer, segment_size, source)
            return
        self.counters["mixed_runs"] += 1
        for start, end in runs_of_one_prefix(buffer, segment_size):
            self.receive(buffer[start:end], segment_size, source)

    def _without_route(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        """Registrations, ids nobody has, and what is neither."""
        (target,) = PREFIX.unpack_from(buffer)
        if target:
            self._to_invented(target, buffer, segment_size, source)
            return
        for start in range(0, len(buffer), segment_size):
            datagram = buffer[start : start + segment_size]
            if len(datagram) < REGISTRATION.size:
                self.counters["short"] += 1
                continue
            (registered,) = PREFIX.unpack_from(datagram, PREFIX.size)
            route = self.routes.get(registered)
            if route is not None:
                route.register(source)
            elif self._invented is not None and registered:
                self._invented[registered] = source
                self._invented.move_to_end(registered)
                if len(self._invented) > MAX_INVENTED:
                    self._invented.popitem(last=False)
                self.counters["registered_invented"] += 1
            else:
                self.counters["registration_unknown_id"] += 1

    def _to_invented(
        self, target: int, buffer: memoryview, segment_size: int, source: Address
    ) -> None:
        destination = self._invented.get(target) if self._invented is not None else None
        if destination is None:
            self.counters["unknown_id"] += datagrams(buffer, segment_size)
        else:
            self.send(buffer, segment_size, destination)

    def send(self, buffer: memoryview, segment_size: int, destination: Address) -> int:
        """Strip the prefixes and send. Returns how many datagrams the socket took."""
        sock = self.socket
        if sock is None:
            self.counters["no_socket"] += datagrams(buffer, segment_size)
            return 0
        size = len(buffer)
        if size <= segment_size:
            return sock.send(buffer[PREFIX.size :], destination)
        payload = segment_size - PREFIX.size
        if payload <= 0 or size % segment_size == PREFIX.size:
            # An empty datagram cannot be the end of a segmented run.
            return sum(
                sock.send(buffer[start + PREFIX.size : start + segment_size], destination)
                for start in range(0, size, segment_size)
            )
        segments = [
            buffer[start : start + payload] for start in range(PREFIX.size, size, segment_size)
        ]
        return sock.send_segments(segments, payload, destination)


def datagrams(buffer: memoryview, segment_size: int) -> int:
    """How many datagrams a run has."""
    return -(-len(buffer) // segment_size)


def runs_of_one_prefix(buffer: memoryview, segment_size: int) -> list[tuple[int, int]]:
    """Cut a run where the prefix changes: byte ranges, in order."""
    cuts: list[tuple[int, int]] = []
    start, prefix = 0, bytes(buffer[: PREFIX.size])
    for at in range(segment_size, len(buffer), segment_size):
        here = bytes(buffer[at : at + PREFIX.size])
        if here != prefix:
            cuts.append((start, at))
            start, prefix = at, here
    cuts.append((start, len(buffer)))
    return cuts
