"""How many function calls the aioquic engine makes per datagram: a cost without a clock.

Two engines in memory under a clock of our own; Python and C calls are counted by the interpreter's
profiling hook while one of them sends a flight and the other takes it, acknowledgements included.
The same code gives the same numbers on any machine, so a test can hold them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

from actors.transport.quic.engine import Address, Data, Engine, Event
from actors.transport.quic.engines import AIOQUIC, select
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

_CLIENT: Address = ("192.0.2.1", 1)
_SERVER: Address = ("192.0.2.2", 2)
_ALPN = ("bench",)
#: Virtual seconds between two turns: acknowledgements are due, nothing counts as lost.
_TURN = 0.03
_BURSTS = 5
_WARM_TURNS = 60
_TURNS = 40
_CHUNK = bytes(4096)
#: Bytes all streams together have to send.
_BACKLOG = 512 * 1024


class Calls(NamedTuple):
    """Calls per datagram of a bulk transfer, in Python and in C."""

    sending: float
    sending_c: float
    receiving: float
    receiving_c: float


class _Counted:
    """Adds up what the functions it runs call."""

    def __init__(self) -> None:
        self.python = 0
        self.c = 0

    def run(self, function: Callable[[], Any]) -> Any:
        """The function's result."""
        kinds: Counter[str] = Counter()

        def note(_frame: FrameType, event: str, _argument: object) -> None:
            kinds[event] += 1

        sys.setprofile(note)
        try:
            return function()
        finally:
            sys.setprofile(None)
            self.python += kinds["call"]
            self.c += kinds["c_call"] - 1  # the call that ends the counting


class _Pair:
    """A client and a server under one clock."""

    def __init__(self, identity: TlsIdentity) -> None:
        make = select(AIOQUIC).make
        settings = QuicSettings(max_datagram=1200, max_probed=0)
        self.now = 1000.0
        self.client = make(settings, identity, _ALPN, client=True, server_name="localhost")
        self.client.connect(_SERVER, self.now)
        flight = self.client.transmit(self.now)
        first = flight[0][0]
        self.server = make(
            settings,
            identity,
            _ALPN,
            client=False,
            original_destination_cid=first[6 : 6 + first[5]],
        )
        self.server.receive_many([data for data, _ in flight], _CLIENT, self.now)
        self.sent = _Counted()
        self.received = _Counted()
        self.datagrams = 0

    def turn(self, *, count: bool) -> None:
        """A flight, and the acknowledgement of the one before."""
        send = self.sent.run if count else _plain
        take = self.received.run if count else _plain
        datagrams = []
        for _ in range(_BURSTS):  # pacing spreads a flight
            self.now += _TURN / _BURSTS
            datagrams += send(lambda: self.client.transmit(self.now))
        events = take(lambda: _take(self.server, [data for data, _ in datagrams], self.now))
        for event in events:
            if isinstance(event, Data):
                take(partial(self.server.consume, event.stream_id, len(event.data)))
        self.now += _TURN
        answers = take(lambda: self.server.transmit(self.now))
        send(lambda: _take(self.client, [data for data, _ in answers], self.now, _SERVER))
        self.datagrams += len(datagrams) if count else 0
        for engine in (self.client, self.server):
            timer = engine.next_timer()
            if timer is not None and timer <= self.now:
                engine.handle_timer(self.now)


def _plain(function: Callable[[], Any]) -> Any:
    return function()


def _take(
    engine: Engine, datagrams: list[bytes], now: float, address: Address = _CLIENT
) -> list[Event]:
    engine.receive_many(datagrams, address, now)
    return engine.events()


def calls_per_datagram(identity: TlsIdentity, streams: int) -> Calls:
    """Calls of both sides per datagram, while so many streams have bytes to send."""
    pair = _Pair(identity)
    for _ in range(10):
        pair.turn(count=False)
    opened = []
    for _ in range(streams):
        stream_id = pair.client.open_stream()
        assert stream_id is not None
        opened.append(stream_id)
    for turn in range(_WARM_TURNS + _TURNS):
        for stream_id in opened:
            while pair.client.backlog(stream_id) < max(1, _BACKLOG // streams):
                pair.client.write(stream_id, _CHUNK, end=False)
        if turn == _WARM_TURNS:
            pair.sent, pair.received, pair.datagrams = _Counted(), _Counted(), 0
        pair.turn(count=turn >= _WARM_TURNS)
    each = pair.datagrams
    sent, received = pair.sent, pair.received
    return Calls(sent.python / each, sent.c / each, received.python / each, received.c / each)
