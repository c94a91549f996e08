"""Which of our addresses a datagram was sent to, so that the answer leaves from it.

A socket bound to a wildcard answers from whatever address the route prefers; a peer that asked at
another one takes the answer for a stranger's. The kernel tells with every datagram where it was
sent to (IP_PKTINFO, IPV6_RECVPKTINFO), and takes the same as the source of an answer. The peer's
address carries it along, wherever it is kept: `AskedAddress`. Linux only; elsewhere, and on
sockets bound to one address, nothing is asked for.

Source: ip(7), ipv6(7), RFC 3542 section 6.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from typing import Final, TypeAlias

#: Linux's number, which the socket module lacks before Python 3.14.
IP_PKTINFO: Final = 8
_IPV6_RECVPKTINFO: Final = 49
_IPV6_PKTINFO: Final = 50
#: Our addresses remembered in sendable form; overflow: all are made again.
_MAX_SOURCES: Final = 1024

#: Control messages as `sendmsg` takes them.
Control: TypeAlias = list[tuple[int, int, bytes]]


class AskedAddress(tuple):  # type: ignore[type-arg]  # an `Address` of either length
    """A peer's address, equal to the plain one, with the address of ours that it wrote to.

    Attributes:
        source: control messages that make an answer leave from there.
    """

    source: Control

    def moved(self, address: Iterable[object]) -> AskedAddress:
        """Another address of the same peer, which wrote to the same one of ours."""
        if type(address) is AskedAddress:
            return address
        moved = AskedAddress(address)
        moved.source = self.source
        return moved


def enable_packet_info(sock: socket.socket) -> bool:
    """Have the kernel tell. False: not needed on this socket, or not supported."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if sock.getsockname()[0] not in ("0.0.0.0", "::"):
        return False
    try:
        if sock.family == socket.AF_INET6:  # tells of IPv4, too, on a socket that takes both
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    except OSError:
        return False
    return True


class PacketInfo:
    """Reads what the kernel tells, on one socket."""

    __slots__ = ("_sources",)

    def __init__(self) -> None:
        self._sources: dict[bytes, Control] = {}

    def asked(self, address: Iterable[object], level: int, data: bytes) -> AskedAddress:
        """The peer's address with ours, from the control message that tells it."""
        source = self._sources.get(data)
        if source is None:
            if len(self._sources) >= _MAX_SOURCES:
                self._sources.clear()
            source = self._sources[data] = _answering(level, data)
        asked = AskedAddress(address)
        asked.source = source
        return asked


def _answering(level: int, data: bytes) -> Control:
    """What sends from where a datagram came to. The route chooses the interface, as it always did;
    a link-local address means one only together with its interface."""
    if level == socket.IPPROTO_IP:
        # struct in_pktinfo: interface, local address, destination of the header.
        return [(level, IP_PKTINFO, bytes(4) + data[4:8] + bytes(4))]
    # struct in6_pktinfo: address, interface.
    link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
    return [(level, _IPV6_PKTINFO, data[:16] + (data[16:20] if link_local else bytes(4)))]


def source_host(address: AskedAddress) -> tuple[str, int]:
    """The address of ours in text, and the interface it needs (0: any)."""
    level, _, data = address.source[0]
    if level == socket.IPPROTO_IP:
        return socket.inet_ntoa(data[4:8]), 0
    return socket.inet_ntop(socket.AF_INET6, data[:16]), int.from_bytes(data[16:20], sys.byteorder)
