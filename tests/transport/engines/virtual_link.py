"""Two engines joined by a virtual link under a virtual clock.

The link has a delay, and may lose, duplicate and overtake datagrams by a seeded random generator:
a run is repeatable. Time passes only when nothing can happen at the present instant.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Data,
    Datagrams,
    Drained,
    Engine,
    Established,
    Finished,
    Reset,
    StopSending,
    StreamCredit,
)

CLIENT: Address = ("192.0.2.1", 40000)
SERVER: Address = ("192.0.2.2", 4433)


@dataclass
class Weather:
    """What the link does to datagrams; probabilities, and seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    mtu: int = 65_535  #: largest UDP payload that passes
    delay: float = 0.005


class Side:
    """One engine and what its user saw and does."""

    def __init__(self, engine: Engine, address: Address) -> None:
        self.engine = engine
        self.address = address
        self.established: Established | None = None
        self.closed: Closed | None = None
        self.after_close = 0
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.finished: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.drained: dict[int, int] = {}
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
        self.credits = 0
        #: What came in DATAGRAM frames, as it came together.
        self.datagrams: list[list[bytes]] = []
        self.datagrams_in = self.datagrams_out = 0
        #: Streams whose bytes are not consumed.
        self.stalled: set[int] = set()
        self.unconsumed: dict[int, int] = {}
        self.echo = False
        self.on_data: Callable[[Data], None] | None = None
        self.on_established: Callable[[], None] | None = None

    def bytes_of(self, stream_id: int) -> bytes:
        return bytes(self.received.get(stream_id, b""))

    def resume(self, stream_id: int) -> None:
        self.stalled.discard(stream_id)
        self.engine.consume(stream_id, self.unconsumed.pop(stream_id, 0))

    def take(self) -> bool:
        events = self.engine.events()
        for event in events:
            if self.closed is not None:
                self.after_close += 1
            match event:
                case Data():
                    self._data(event)
                case Established():
                    assert self.established is None
                    self.established = event
                    if self.on_established is not None:
                        self.on_established()
                case Closed():
                    self.closed = event
                case Datagrams():
                    self.datagrams.append(event.payloads)
                case Reset():
                    assert event.stream_id not in self.resets
                    self.resets[event.stream_id] = event.code
                    self.engine.release_credit(event.stream_id)
                case StopSending():
                    self.stops[event.stream_id] = event.code
                case Drained():
                    self.drained[event.stream_id] = (
                        self.drained.get(event.stream_id, 0) + event.count
                    )
                case Finished():
                    self.finished.add(event.stream_id)
                case CidIssued():
                    self.issued.append(event.cid)
                case CidRetired():
                    self.retired.append(event.cid)
                case StreamCredit():
                    self.credits += 1
        return bool(events)

    def _data(self, event: Data) -> None:
        self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
        assert event.stream_id not in self.ended
        if event.end:
            self.ended.add(event.stream_id)
        if event.stream_id in self.stalled:
            held = self.unconsumed.get(event.stream_id, 0) + len(event.data)
            self.unconsumed[event.stream_id] = held
        else:
            self.engine.consume(event.stream_id, len(event.data))
        if self.echo:
            self.engine.write(event.stream_id, event.data, end=event.end)
        if self.on_data is not None:
            self.on_data(event)


@dataclass(order=True)
class _Flight:
    arrival: float
    number: int
    data: bytes = field(compare=False)
    source: Address = field(compare=False)
    target: Side = field(compare=False)


class Link:
    def __init__(
        self,
        client: Engine,
        make_server: Callable[[bytes], Engine],
        weather: Weather | None = None,
        seed: int = 1,
        *,
        carry_first: bool = True,
    ) -> None:
        self.weather = weather or Weather()
        self.now = 1000.0
        self.client = Side(client, CLIENT)
        client.connect(SERVER, self.now)
        # The server's engine is made for the first datagram, like the endpoint does it.
        flight = client.transmit(self.now)
        self.server = Side(make_server(flight[0][0]), SERVER)
        #: True while nothing arrives anywhere.
        self.cut = False
        #: Addresses of the client that still reach it; the others are dead NAT mappings.
        self.client_addresses: set[Address] = {CLIENT}
        #: Told of every datagram before it leaves.
        self.on_send: Callable[[Side, bytes], None] | None = None
        self.longest = 0
        #: Largest datagram that passed, by whether the client sent it.
        self.passed_longest = {True: 0, False: 0}
        self._random = random.Random(seed)
        self._flights: list[_Flight] = []
        self._number = 0
        for data, target in flight if carry_first else []:
            self._send(self.client, data, target)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.client, self.server

    def establish(self, timeout: float = 30.0) -> Link:
        """Finish the handshake."""
        self.run(lambda: all(side.established for side in self.sides), timeout)
        return self

    def move_client(self, address: Address) -> None:
        """The client's NAT gives it another address; what goes to the old one is lost."""
        self.client.address = address
        self.client_addresses = {address}

    def run(self, until: Callable[[], bool], timeout: float = 30.0) -> None:
        """Let time pass until the condition holds; fails after `timeout` virtual seconds."""
        deadline = self.now + timeout
        while True:
            self.settle()
            if until():
                return
            assert self.now < deadline, f"not within {timeout} virtual seconds"
            self._step(deadline)

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        deadline = self.now + seconds
        while True:
            self.settle()
            if self.now >= deadline:
                return
            self._step(deadline)

    def settle(self) -> None:
        """Everything that happens at this instant."""
        for _ in range(1000):
            busy = False
            for side in self.sides:
                if side is self.server and not side.datagrams_in:
                    continue  # it exists, for the endpoint, from its first datagram on
                for data, target in side.engine.transmit(self.now):
                    self._send(side, data, target)
                    busy = True
                busy |= side.take()
            if not busy:
                return
        raise AssertionError("the engines do not come to rest")

    def _step(self, deadline: float) -> None:
        """On to the next instant at which something happens."""
        times = [deadline]
        if self._flights:
            times.append(self._flights[0].arrival)
        for side in self.sides:
            timer = side.engine.next_timer()
            if timer is not None:
                times.append(timer)
        # One microsecond at least: a deadline may lie in the past after rounding.
        self.now = max(min(times), self.now + 1e-6)
        while self._flights and self._flights[0].arrival <= self.now:
            flight = heapq.heappop(self._flights)
            flight.target.datagrams_in += 1
            flight.target.engine.receive(flight.data, flight.source, self.now)
            flight.target.take()
        for side in self.sides:
            timer = side.engine.next_timer()
            if timer is not None and timer <= self.now:
                side.engine.handle_timer(self.now)

    @property
    def on_the_way(self) -> list[bytes]:
        """Datagrams that have not arrived yet."""
        return [flight.data for flight in self._flights]

    def _send(self, side: Side, data: bytes, target: Address) -> None:
        if self.on_send is not None:
            self.on_send(side, data)
        side.datagrams_out += 1
        self.longest = max(self.longest, len(data))
        weather, chance = self.weather, self._random.random
        if self.cut or len(data) > weather.mtu or chance() < weather.loss:
            return
        self.passed_longest[side is self.client] = max(
            self.passed_longest[side is self.client], len(data)
        )
        if side is self.server and target not in self.client_addresses:
            return
        if side is self.client:
            assert target == SERVER
        for _ in range(2 if chance() < weather.duplicate else 1):
            delay = weather.delay
            if chance() < weather.overtake:
                delay *= 1 + 2 * chance()
            self._number += 1
            other = self.server if side is self.client else self.client
            heapq.heappush(
                self._flights,
                _Flight(self.now + delay, self._number, data, side.address, other),
            )

    def inject(self, target: Side, data: bytes, source: Address) -> None:
        """A datagram out of nowhere."""
        target.engine.receive(data, source, self.now)
