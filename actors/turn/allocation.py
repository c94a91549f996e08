"""One allocation: relays between its client and its peers over sockets that are lent to it.

The record (`wire.turn.allocation`) and the relayed sockets belong to the door's context: killed or
crashed, the actor is restarted with the same addresses, permissions and channels, and what peers
sent meanwhile waits in the kernel's queue. Data never passes the mailbox: the listener calls
`record.deliver`, and the relayed sockets `record.from_peer`.

When it cannot be restarted the registry ends the record, and its client hears 437.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from actors.runtime import Actor, MailboxSpec, handles, shutdown
from actors.transport.udp import UdpSocket
from actors.turn.messages import Release, Started
from wire.stun.address import family_of
from wire.turn.allocation import CHANNEL_HEAD, SocketAddress
from wire.turn.allocation import Allocation as Record

if TYPE_CHECKING:
    from actors.turn.context import TurnContext

#: Do not fragment: Linux's numbers, which the socket module lacks.
_MTU_DISCOVER = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_DO, _WANT = 2, 1


class _Lent:
    """A relayed socket in use, as a resource: given back, not closed."""

    __slots__ = ("_udp",)

    def __init__(self, udp: UdpSocket) -> None:
        self._udp = udp

    @property
    def bytes_in(self) -> int:
        """Received from peers."""
        return self._udp.bytes_in

    @property
    def bytes_out(self) -> int:
        """Sent to peers."""
        return self._udp.bytes_out

    def abort(self) -> None:
        """Read it no more."""
        if not self._udp.closed:
            self._udp.detach()


class _Route:
    """The record's use of this incarnation, as a resource."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def abort(self) -> None:
        """Nobody relays."""
        self._record.deliver = self._record.send_to = None


class Allocation(Actor):
    mailbox = MailboxSpec(bound=16)

    def __init__(self, door: TurnContext, record: Record) -> None:
        self._door = door
        self._record = record
        self._sockets: dict[int, UdpSocket] = {}

    def init(self) -> None:
        """Relay."""
        record = self._record
        if record.number not in self._door.dispatcher.allocations:
            self.stop(shutdown("over"))
            return
        if any(relay.sock.fileno() < 0 for relay in record.relays.values()):  # type: ignore[attr-defined]  # ours have one
            # Its address is gone: no other incarnation would have it either.
            self._door.dispatcher.close(record, "failed")
            self.stop(shutdown("failed"))
            return
        for family, relay in record.relays.items():
            udp = UdpSocket(
                relay.sock,  # type: ignore[attr-defined]  # ours have one
                record.from_peer,
                guard=self.guard,
                answering=False,
                buffer=self._door.buffer,
            )
            self._sockets[family] = udp
            self.own(_Lent(udp), "relay")
        self.own(_Route(record), "route")
        record.send_to = self.guard("route", self._send_to)
        record.deliver = self.guard("route", self._deliver)
        self._door.place("registry").try_tell(Started(record.number, self.incarnation))

    def describe(self) -> dict[str, object]:
        """Whose it is and what it did; never payload."""
        record = self._record
        return {
            "user": record.user,
            "client": f"{record.client[0]}:{record.client[1]}",
            "relayed": [f"{host}:{port}" for host, port in _addresses(record)],
            "permissions": len(record.permissions),
            "channels": len(record.channels),
            "packets_from_client": record.packets_from_client,
            "packets_from_peers": record.packets_from_peers,
            "bytes_from_client": record.bytes_from_client,
            "bytes_from_peers": record.bytes_from_peers,
            "dropped": record.dropped,
            "seconds_left": round(record.deadline.expires - self.now(), 1),
        }

    # The data path.

    def _deliver(self, buffer: memoryview, segment_size: int) -> None:
        """Channel data of the client, one datagram or a run of one size."""
        size = len(buffer)
        record = self._record
        if size > segment_size:
            self._deliver_run(buffer, segment_size)
            return
        if size < 4:
            record.dropped += 1
            return
        number, length = CHANNEL_HEAD.unpack_from(buffer)
        peer = record.channels.get(number)
        if peer is None or length > size - 4 or peer[0] not in record.permissions:
            record.dropped += 1
            return
        record.packets_from_client += 1
        record.bytes_from_client += length
        udp = self._sockets.get(2 if len(peer) == 4 else 1)
        if udp is not None:
            udp.send(buffer[4 : 4 + length], peer)

    def _deliver_run(self, buffer: memoryview, segment_size: int) -> None:
        """One system call for what goes to one peer, where all of the run does."""
        size = len(buffer)
        record = self._record
        head = CHANNEL_HEAD.unpack_from(buffer) if segment_size >= 4 else (0, 0)
        number, length = head
        peer = record.channels.get(number)
        tail = size % segment_size or segment_size
        unpack = CHANNEL_HEAD.unpack_from
        if (
            peer is None
            or not length
            or length != segment_size - 4
            or tail < 5
            or peer[0] not in record.permissions
            or unpack(buffer, size - tail) != (number, tail - 4)
            or any(
                unpack(buffer, at) != head for at in range(segment_size, size - tail, segment_size)
            )
        ):
            for at in range(0, size, segment_size):
                self._deliver(buffer[at : at + segment_size], segment_size)
            return
        segments = [buffer[at + 4 : at + segment_size] for at in range(0, size, segment_size)]
        record.packets_from_client += len(segments)
        record.bytes_from_client += size - 4 * len(segments)
        udp = self._sockets.get(2 if len(peer) == 4 else 1)
        if udp is not None:
            udp.send_segments(segments, length, peer)

    def _send_to(self, data: bytes, peer: SocketAddress, dont_fragment: bool) -> None:
        """The data of a Send indication."""
        udp = self._sockets.get(family_of(peer[0]))
        if udp is None:
            return
        if not dont_fragment:
            udp.send(data, peer)
            return
        relay = self._record.relays[family_of(peer[0])]
        sock: socket.socket = relay.sock  # type: ignore[attr-defined]  # ours have one
        level, option = _MTU_DISCOVER[sock.family]
        sock.setsockopt(level, option, _DO)
        try:
            udp.send(data, peer)
        finally:
            sock.setsockopt(level, option, _WANT)

    @handles(Release)
    def _release(self, message: Release) -> None:
        self.stop(shutdown(message.why))


def _addresses(record: Record) -> list[tuple[str, int]]:
    return [relay.address for relay in record.relays.values()]
