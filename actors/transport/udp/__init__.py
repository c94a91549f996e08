"""Batched UDP: one socket, many datagrams per system call."""

from __future__ import annotations

from actors.transport.addresses import Address
from actors.transport.udp.bind import bind_udp
from actors.transport.udp.packet_info import AskedAddress
from actors.transport.udp.prefixed import PrefixedSocket
from actors.transport.udp.udp_socket import RECEIVE_BUFFER, UdpSocket, UdpStatistics

__all__ = [
    "RECEIVE_BUFFER",
    "Address",
    "AskedAddress",
    "PrefixedSocket",
    "UdpSocket",
    "UdpStatistics",
    "bind_udp",
]
