"""One listener for every service: the address a program wanted to reach says which one.

Connections come by a redirect rule of the operator (`iptables -t nat -A OUTPUT -p tcp -d
100.64.0.0/10 -j REDIRECT --to-ports 15001`), which remembers where they wanted to go; or directly,
when the virtual addresses are this host's own.

Source: protocol sheet ORP 3.15.
"""

from __future__ import annotations

import socket
import struct

from tools.agent.service_listener import ServiceListener
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.stream_table import StreamTable
from tools.agent.virtual_addresses import VirtualAddresses

#: SO_ORIGINAL_DST of linux/netfilter_ipv4.h.
_ORIGINAL_DESTINATION = 80
_SOCKADDR_IN = struct.Struct("!2xH4s8x")


def wanted_address(sock: socket.socket) -> str:
    """Where the connection was meant to go, before any redirect."""
    try:
        raw = sock.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, _SOCKADDR_IN.size)
    except OSError:
        return str(sock.getsockname()[0])  # not redirected
    _, address = _SOCKADDR_IN.unpack(raw)
    return socket.inet_ntoa(address)


class TransparentListener(ServiceListener):
    def __init__(
        self,
        settings: AgentSettings,
        address: tuple[str, int],
        addresses: VirtualAddresses,
        link: str,
        bridges: str,
        table: StreamTable,
    ) -> None:
        super().__init__(settings, Mapping("transparent", *address), link, bridges, table)
        self._addresses = addresses

    def _service_of(self, sock: socket.socket) -> str | None:
        return self._addresses.service(wanted_address(sock))
