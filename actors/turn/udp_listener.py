"""Clients that come in by UDP: one socket, and the table of their allocations.

The endpoint outlives the actor that owns its socket: a listener that is restarted binds the same
address and finds its clients. Channel data goes straight to the allocation; everything else to the
protocol machine, whose answer leaves by the same socket. A datagram costs no task, queue or copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.runtime import Actor, naming
from actors.transport.addresses import address_text, host_and_port
from actors.transport.udp import Address, UdpSocket, bind_udp
from wire.turn.allocation import Allocation as Record
from wire.turn.allocation import SocketAddress

if TYPE_CHECKING:
    from actors.turn.context import TurnContext

#: What channel data begins with: its number is 0x4000 to 0x7FFF.
_CHANNEL, _CHANNEL_MASK = 0x40, 0xC0


class UdpEndpoint:
    """The way back to a client by UDP: an `Endpoint` of the protocol machine.

    Attributes:
        wanted: the address of the settings.
        bound: as it was bound first; None before that.
    """

    stream = False

    def __init__(self, door: TurnContext, wanted: tuple[str, int]) -> None:
        self.clients: dict[SocketAddress, Record] = {}
        self.wanted = wanted
        self.bound: tuple[str, int] | None = None
        self._door = door
        self.send: Callable[[Any, Any], object] = self._nowhere
        self.send_segments: Callable[[Any, int, Any], object] = self._nowhere_all

    def attach(self, sock: UdpSocket) -> None:
        """Send by this socket."""
        self.send, self.send_segments = sock.send, sock.send_segments

    def abort(self) -> None:
        """The socket is gone."""
        self.send, self.send_segments = self._nowhere, self._nowhere_all

    def _nowhere(self, datagram: Any, address: Any) -> int:
        self._door.events["no_socket"] += 1
        return 0

    def _nowhere_all(self, segments: Any, segment_size: int, address: Any) -> int:
        self._door.events["no_socket"] += len(segments)
        return 0

    def ended(self, record: Record, why: str) -> None:
        """Its next request gets 437."""

    def receive(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        """A datagram, or a run of one client and one size."""
        size = len(buffer)
        if size and buffer[0] & _CHANNEL_MASK == _CHANNEL:
            record = self.clients.get(source)
            if record is None:
                self._door.events["data_no_allocation"] += -(-size // segment_size)
                return
            deliver = record.deliver
            if deliver is None:
                self._door.events["data_no_actor"] += -(-size // segment_size)
            elif size <= segment_size or self._all_channel(buffer, segment_size):
                deliver(buffer, segment_size)
            else:
                self._one_by_one(buffer, segment_size, source)
            return
        if size > segment_size:
            self._one_by_one(buffer, segment_size, source)
            return
        if not source[1]:
            self._door.events["port_0"] += 1
            return
        answer = self._door.receive(buffer, self, source)
        if answer is not None:
            self.send(answer, source)

    def _all_channel(self, buffer: memoryview, segment_size: int) -> bool:
        first = buffer[0]
        return all(buffer[at] == first for at in range(0, len(buffer), segment_size))

    def _one_by_one(self, buffer: memoryview, segment_size: int, source: Address) -> None:
        for at in range(0, len(buffer), segment_size):
            self.receive(buffer[at : at + segment_size], segment_size, source)


class UdpListener(Actor):
    """Owns the socket."""

    def __init__(self, door: TurnContext, endpoint: UdpEndpoint, *, only_ipv6: bool) -> None:
        self._door = door
        self._endpoint = endpoint
        self._only_ipv6 = only_ipv6

    def init(self) -> None:
        """Bind, and receive."""
        endpoint = self._endpoint
        host, port = endpoint.bound or endpoint.wanted
        with naming("turn.listen"):
            bound = bind_udp(host, port, only_ipv6=self._only_ipv6)
        sock = UdpSocket(bound, endpoint.receive, guard=self.guard, buffer=self._door.buffer)
        self._socket = self.own(sock, "socket")
        self.own(endpoint, "endpoint")
        endpoint.attach(sock)
        first = endpoint.bound is None
        endpoint.bound = host_and_port(sock.address)
        if first:
            self.log.info("TURN on {} (UDP)", address_text(*endpoint.bound))

    def describe(self) -> dict[str, object]:
        """Address, clients, and what the socket did."""
        statistics = self._socket.statistics()
        return {
            "address": address_text(*(self._endpoint.bound or ("", 0))),
            "clients": len(self._endpoint.clients),
            "datagrams_in": statistics.datagrams_in,
            "datagrams_out": statistics.datagrams_out,
            "receive_calls": statistics.receive_calls,
            "send_calls": statistics.send_calls,
            "dropped": statistics.dropped,
            "errors": statistics.errors,
        }
