"""A connection to one peer whose identity was verified before anybody saw the connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from actors.transport.gate import Place
from actors.transport.revocation import Revocations, Watch
from actors.transport.stream import CloseReason, Stream
from actors.transport.tls import PeerIdentity


class DialFailed(Exception):
    """An outgoing connection was not established; `reason` says why."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class ConnectionStatistics(NamedTuple):
    """Counters of one connection."""

    datagrams_in: int  #: datagrams received
    datagrams_out: int  #: datagrams sent
    bytes_in: int  #: bytes of them
    bytes_out: int  #: bytes of them
    streams: int  #: streams open now
    round_trip: float  #: smoothed RTT, seconds; 0 while unknown
    congestion_window: int  #: bytes that may be in flight
    in_flight: int  #: bytes in flight
    lost: int  #: packets declared lost; -1: the engine does not count them


def _ignore(*_: object) -> None:
    """The default callback."""


class Connection(ABC):
    """What a door gets: an authenticated connection that carries streams."""

    peer: PeerIdentity
    alpn: str
    #: For people: the transport, and the QUIC engine that this very connection has.
    transport: str = ""

    def __init__(self) -> None:
        self.on_stream: Callable[[Stream], object] = _ignore
        self.on_closed: Callable[[CloseReason], object] = _ignore
        self.on_stream_credit: Callable[[], object] = _ignore
        #: Gets the DATAGRAM frames that came together, oldest first.
        self.on_datagrams: Callable[[list[bytes]], object] = _ignore
        #: Application code that `abort` closes with.
        self.abort_code = 0
        #: Its place among those who have not shown yet that they belong here.
        self.at_gate: Place | None = None
        self._watch: Watch | None = None

    def _forget_callbacks(self) -> None:
        """Nothing is delivered any more: what they refer to may refer to us."""
        self.on_stream = self.on_closed = self.on_stream_credit = _ignore
        self.on_datagrams = _ignore

    def watch_revocations(self, revocations: Revocations) -> None:
        """End when the peer's certificate is taken back."""
        self._watch = revocations.watch(self.peer.marks, self._revoked)

    @abstractmethod
    def _revoked(self) -> None:
        """The peer's certificate was taken back: close, and say so."""

    def _unwatch(self) -> None:
        """It is over."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.abort()

    def welcome(self) -> None:
        """It belongs here: it does not count as pending any more, and gives way to nobody."""
        place, self.at_gate = self.at_gate, None
        if place is not None:
            place.leave()

    @property
    @abstractmethod
    def remote_address(self) -> tuple[str, int]:
        """The peer's address now; IPv4-mapped addresses in dotted form."""

    @abstractmethod
    def start(self) -> None:
        """Begin delivering: streams that arrived before are handed over now."""

    @abstractmethod
    def open_stream(self) -> Stream | None:
        """Open a bidirectional stream; None when the peer's stream credit is used up.

        After None, `on_stream_credit` is called when the peer granted more.
        """

    @property
    def withheld(self) -> float:
        """After `open_stream` said None: the share of the peer's stream credit that streams hold
        which are over. Peers that never finish their half of a stream give its credit never back.
        """
        return 0.0

    @property
    def largest_datagram(self) -> int:
        """Bytes that `send_datagram` takes now; 0: the transport, or the peer, has no datagrams."""
        return 0

    def send_datagram(self, data: bytes) -> bool:
        """Send once, unreliably, before what streams have to send (RFC 9221).

        What may not leave yet waits in a bounded queue; what has waited longest gives way, counted
        as `drop_datagram_queue`.

        Returns:
            False: it is larger than `largest_datagram`, or the connection is over; counted as
            `drop_datagram_size`, `drop_datagram_closed`.
        """
        return False

    @abstractmethod
    def close(self, code: int, reason: str = "") -> None:
        """CONNECTION_CLOSE with an application code; streams are lost; idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Close without ceremony, synchronously; no callback follows; idempotent."""

    @property
    @abstractmethod
    def closed(self) -> CloseReason | None:
        """Why it ended; None while it lives."""

    @abstractmethod
    def statistics(self) -> ConnectionStatistics:
        """The counters as one tuple."""
