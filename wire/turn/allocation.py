"""One allocation: a client's relayed addresses, its permissions and channels, its traffic.

The data path asks here and nothing else: `channels` and `bound` hold live channels only, and
`permissions` live permissions only, because the deadline queue takes out what is over. Socket
addresses are as the socket module gives them: `(host, port)`, or four members for IPv6.

Source: RFC 8656 sections 3, 9 to 12; protocol sheet TURN 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final, Protocol, TypeAlias

from wire.stun import message as stun
from wire.stun.address import Address, encode_xor
from wire.stun.attribute import DATA, XOR_PEER_ADDRESS
from wire.turn import limits
from wire.turn.deadlines import Deadline, Deadlines

#: As the socket module has it.
SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

#: Channel number and length in front of channel data.
CHANNEL_HEAD: Final = Struct(">HH")
_NO_ID: Final = bytes(12)


class Endpoint(Protocol):
    """Where a client comes in: a UDP socket of ours, or one connection.

    Attributes:
        stream: it is a connection.
        clients: allocations by the client's address.
    """

    stream: bool
    clients: dict[SocketAddress, Allocation]

    def send(self, datagram: bytes, address: SocketAddress) -> object:
        """Send one message to a client."""

    def send_segments(
        self, segments: list[bytes], segment_size: int, address: SocketAddress
    ) -> object:
        """Send datagrams of one size, the last one possibly shorter; never on a stream."""


class Relay(Protocol):
    """A bound relayed address.

    Attributes:
        family: see `wire.stun.address`.
        address: as clients and peers see it.
    """

    family: int
    address: Address

    def close(self) -> None:
        """Give the address back; idempotent."""


class Channel:
    """A channel, or the rest of one that expired."""

    __slots__ = ("deadline", "number", "peer")

    def __init__(self, number: int, peer: SocketAddress, deadline: Deadline) -> None:
        self.number = number
        self.peer = peer
        self.deadline = deadline


class Bindings:
    """Channels of one allocation by number and by peer, the resting ones included."""

    __slots__ = ("by_number", "by_peer")

    def __init__(self) -> None:
        self.by_number: dict[int, Channel] = {}
        self.by_peer: dict[SocketAddress, Channel] = {}


class Allocation:
    """One allocation: a client's relayed addresses, its permissions and channels, its traffic.

    Attributes:
        number: of this allocation, unique in the process.
        endpoint, client: the other end of the client's 5-tuple.
        user: who is counted; `username` is how it was called.
        relays: by address family.
        transaction_id, reply: of the Allocate, for its repetitions.
        permissions: by peer host.
        channels: live ones by number; the value is where to send.
        bound: numbers of live ones by peer address.
        ticket: of a client that moves; empty: it cannot.
        deliver: takes runs of channel data of the client; None while nobody relays.
        send_to: sends one datagram to a peer; None likewise.
        held: what the door keeps with it.
    """

    __slots__ = (
        "_bindings",
        "_deadlines",
        "bound",
        "bytes_from_client",
        "bytes_from_peers",
        "channels",
        "client",
        "deadline",
        "deliver",
        "dropped",
        "endpoint",
        "held",
        "mapped",
        "number",
        "packets_from_client",
        "packets_from_peers",
        "permissions",
        "relays",
        "reply",
        "send_to",
        "since",
        "ticket",
        "transaction_id",
        "user",
        "username",
    )

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        client: SocketAddress,
        user: str,
        username: str,
        relays: dict[int, Relay],
        deadlines: Deadlines,
        since: float,
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self.client = client
        self.user = user
        self.username = username
        self.relays = relays
        self.since = since
        self.transaction_id = self.reply = self.ticket = b""
        self.permissions: dict[str, Deadline] = {}
        self.channels: dict[int, SocketAddress] = {}
        self.bound: dict[SocketAddress, bytes] = {}
        self.deliver: Callable[[memoryview, int], object] | None = None
        self.send_to: Callable[[bytes, SocketAddress, bool], object] | None = None
        self.held: Any = None
        self.deadline: Deadline
        self.packets_from_client = self.packets_from_peers = 0
        self.bytes_from_client = self.bytes_from_peers = 0
        self.dropped = 0
        self._bindings: Bindings | None = None
        self._deadlines = deadlines

    # Permissions.

    def permit(self, hosts: Iterable[str], now: float) -> None:
        """Install or refresh permissions."""
        for host in hosts:
            deadline = self.permissions.get(host)
            if deadline is None:
                self.permissions[host] = self._deadlines.add(
                    Deadline(now + limits.PERMISSION, lambda host=host: self._forbid(host))  # type: ignore[misc]
                )
            else:
                deadline.expires = now + limits.PERMISSION

    def _forbid(self, host: str) -> None:
        self.permissions.pop(host, None)

    # Channels.

    def may_bind(self, number: int, peer: SocketAddress) -> bool:
        """False: the number belongs to another peer, or the peer to another number."""
        bindings = self._bindings
        if bindings is None:
            return True
        by_number, by_peer = bindings.by_number.get(number), bindings.by_peer.get(peer)
        return by_number is by_peer

    @property
    def bindings(self) -> int:
        """Channels, the resting ones included."""
        return 0 if self._bindings is None else len(self._bindings.by_number)

    def bind(self, number: int, peer: SocketAddress, now: float) -> None:
        """Bind a channel, or refresh it; `may_bind` was asked. Installs the permission as well."""
        self.permit((peer[0],), now)
        bindings = self._bindings
        if bindings is None:
            bindings = self._bindings = Bindings()
        channel = bindings.by_number.get(number)
        if channel is not None and number in self.channels:
            channel.deadline.expires = now + limits.CHANNEL
            return
        if channel is not None:
            channel.deadline.cancel()
        deadline = Deadline(now + limits.CHANNEL, lambda: self._rest(number))
        channel = Channel(number, peer, self._deadlines.add(deadline))
        bindings.by_number[number] = bindings.by_peer[peer] = channel
        self.channels[number] = peer
        self.bound[peer] = number.to_bytes(2, "big")

    def _rest(self, number: int) -> None:
        """The channel expired; nobody else gets the number or the peer for a while."""
        if self._bindings is None:
            return
        channel = self._bindings.by_number[number]
        self.channels.pop(number, None)
        self.bound.pop(channel.peer, None)
        channel.deadline = self._deadlines.add(
            Deadline(channel.deadline.expires + limits.CHANNEL_REST, lambda: self._free(number))
        )

    def _free(self, number: int) -> None:
        if self._bindings is not None:
            channel = self._bindings.by_number.pop(number)
            self._bindings.by_peer.pop(channel.peer, None)

    # Data.

    def from_peer(self, buffer: memoryview, segment_size: int, peer: SocketAddress) -> None:
        """A datagram of a peer, or a run of them: on to the client, or dropped."""
        size = len(buffer)
        if peer[0] not in self.permissions:
            self.dropped += -(-size // segment_size) or 1
            return
        self.bytes_from_peers += size
        head = self.bound.get(peer)
        endpoint = self.endpoint
        if size <= segment_size:
            self.packets_from_peers += 1
            if head is None:
                endpoint.send(data_indication(buffer, peer), self.client)
            else:
                padding = bytes(-size & 3) if endpoint.stream else b""
                framed = b"".join((head, size.to_bytes(2, "big"), buffer, padding))
                endpoint.send(framed, self.client)
            return
        self.packets_from_peers += -(-size // segment_size)
        datagrams = [buffer[at : at + segment_size] for at in range(0, size, segment_size)]
        if head is None:
            for datagram in datagrams:
                endpoint.send(data_indication(datagram, peer), self.client)
        elif endpoint.stream:
            for datagram in datagrams:
                length = len(datagram)
                parts = (head, length.to_bytes(2, "big"), datagram, bytes(-length & 3))
                endpoint.send(b"".join(parts), self.client)
        else:
            whole = head + segment_size.to_bytes(2, "big")
            framed_run = [b"".join((whole, datagram)) for datagram in datagrams[:-1]]
            last = datagrams[-1]
            framed_run.append(b"".join((head, len(last).to_bytes(2, "big"), last)))
            endpoint.send_segments(framed_run, segment_size + 4, self.client)

    def end(self) -> None:
        """Nothing is relayed any more and the addresses are free; idempotent."""
        self.deadline.cancel()
        for permission in self.permissions.values():
            permission.cancel()
        self.permissions.clear()
        bindings, self._bindings = self._bindings, None
        if bindings is not None:
            for channel in bindings.by_number.values():
                channel.deadline.cancel()
        self.channels.clear()
        self.bound.clear()
        self.deliver = self.send_to = None
        for relay in self.relays.values():
            relay.close()


def data_indication(data: bytes | memoryview, peer: SocketAddress) -> bytes:
    """What a peer sent, for a client without a channel to it."""
    return stun.encode(
        stun.DATA,
        stun.INDICATION,
        _NO_ID,
        (
            (XOR_PEER_ADDRESS, encode_xor(peer[0], peer[1], _NO_ID)),
            (DATA, bytes(data)),
        ),
    )


def socket_address(address: Address) -> SocketAddress:
    """As the socket module gives it."""
    host, port = address
    return (host, port, 0, 0) if ":" in host else (host, port)
