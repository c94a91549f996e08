"""The seam between our transport and a QUIC protocol engine.

An engine is sans-IO: datagrams and the time in; events and datagrams out. Everything above this
module is engine-neutral; everything an engine needs of a library's private parts stays in the
engine's own module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from cryptography import x509

#: What sockets take: (host, port) for IPv4, (host, port, flow, scope) for IPv6.
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


@dataclass(slots=True)
class Established:
    """TLS is complete on our side; the peer's chain (leaf first) is not verified yet."""

    chain: Sequence[x509.Certificate]
    alpn: str


@dataclass(slots=True)
class Data:
    """In-order bytes of a stream; `end` marks a FIN after them."""

    stream_id: int
    data: bytes
    end: bool


@dataclass(slots=True)
class Datagrams:
    """Payloads of DATAGRAM frames that came, oldest first (RFC 9221)."""

    payloads: list[bytes]


@dataclass(slots=True)
class Reset:
    """The peer reset its sending half."""

    stream_id: int
    code: int


@dataclass(slots=True)
class StopSending:
    """The peer wants no more; the engine has already reset our sending half."""

    stream_id: int
    code: int


@dataclass(slots=True)
class Drained:
    """`count` more bytes of a stream left the backlog."""

    stream_id: int
    count: int


@dataclass(slots=True)
class Finished:
    """Both halves are over on the wire, ours acknowledged: only `consume`, `forget` may follow."""

    stream_id: int


@dataclass(slots=True)
class CidIssued:
    """A connection id of ours is valid from now on."""

    cid: bytes


@dataclass(slots=True)
class CidRetired:
    """A connection id of ours is no longer used."""

    cid: bytes


@dataclass(slots=True)
class StreamCredit:
    """The peer allows more streams."""


@dataclass(slots=True)
class Closed:
    """The connection is over; nothing follows.

    `peer` says whether the peer closed it; `idle` that nobody did.
    """

    code: int
    application: bool
    text: str
    peer: bool
    idle: bool


Event: TypeAlias = (
    Established
    | Data
    | Datagrams
    | Reset
    | StopSending
    | Drained
    | Finished
    | CidIssued
    | CidRetired
    | StreamCredit
    | Closed
)


class PathStatistics(NamedTuple):
    """How a connection's path fares."""

    congestion_window: int  #: bytes that may be in flight
    in_flight: int  #: bytes in flight
    lost: int  #: packets declared lost, since the connection began; -1: not counted


class Engine(Protocol):
    """One connection. No method blocks; `now` is monotonic seconds."""

    @property
    def name(self) -> str:
        """Which engine this is: native or aioquic."""
        ...

    @property
    def source_cid(self) -> bytes:
        """Our first connection id."""
        ...

    @property
    def peer_address(self) -> Address | None:
        """Where datagrams go now."""
        ...

    @property
    def round_trip(self) -> float:
        """Smoothed RTT in seconds; 0 while unknown."""
        ...

    @property
    def path(self) -> PathStatistics:
        """The path to the peer, as congestion control sees it."""
        ...

    @property
    def terminated(self) -> bool:
        """True once the closing or draining period is over: forget the connection."""
        ...

    def connect(self, address: Address, now: float) -> None:
        """Begin the handshake as a client."""
        ...

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Take one datagram."""
        ...

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender, oldest first."""
        ...

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Take datagrams of one sender that lie in one buffer, `size` bytes each but the last."""
        ...

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """A datagram of the peer's address whose connection id is nobody's.

        True when it is a stateless reset for this connection, which is over then (RFC 9000
        section 10.3.1).
        """
        ...

    def events(self) -> list[Event]:
        """What happened since the last call."""
        ...

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send now."""
        ...

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        ...

    def handle_timer(self, now: float) -> None:
        """The time came."""
        ...

    def ping(self) -> None:
        """Send a PING with the next transmission."""
        ...

    @property
    def streams_allowed(self) -> int:
        """Bidirectional streams the peer lets us open, from the start of the connection."""
        ...

    def open_stream(self) -> int | None:
        """A new bidirectional stream, or None while the peer allows no more."""
        ...

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Queue bytes, and FIN when `end`."""
        ...

    def reset(self, stream_id: int, code: int) -> None:
        """RESET_STREAM; harmless when the half is finished."""
        ...

    def stop_sending(self, stream_id: int, code: int) -> None:
        """STOP_SENDING; harmless when the half is finished."""
        ...

    def consume(self, stream_id: int, count: int) -> bool:
        """Grant credit for delivered bytes. False: there is nothing to send because of it yet."""
        ...

    def release_credit(self, stream_id: int) -> None:
        """The receive half is closed: give back all connection credit it still holds."""
        ...

    def forget(self, stream_id: int) -> None:
        """After `Finished`, and when everything is consumed: drop the stream's book-keeping."""
        ...

    def backlog(self, stream_id: int) -> int:
        """Bytes written and not acknowledged.

        An engine that cannot tell counts the bytes that were not sent for the first time yet.
        """
        ...

    @property
    def largest_datagram(self) -> int:
        """Bytes that one DATAGRAM frame may carry now; 0: the peer takes none.

        It grows while larger packets are found to pass, and shrinks when they do not any more.
        """
        ...

    @property
    def datagram_room(self) -> int:
        """Bytes of packets with DATAGRAM frames that would leave with the next `transmit`."""
        ...

    def send_datagram(self, data: bytes) -> None:
        """A DATAGRAM frame, before what streams have; never repeated.

        Only of at most `largest_datagram` bytes, and while there is `datagram_room`: what it keeps
        is unbounded otherwise.
        """
        ...

    def close(self, code: int, text: str, *, application: bool) -> None:
        """CONNECTION_CLOSE with the next transmission."""
        ...

    def release(self) -> None:
        """Nothing is asked of it any more: let go of buffers, and of what refers back to it.

        Parts that refer to each other would wait for the garbage collector, which for so few
        objects hardly ever comes.
        """
        ...
