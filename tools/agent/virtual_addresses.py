"""Addresses that stand for services: one each, from a network that is routed nowhere else.

Source: protocol sheet ORP 3.15.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

#: Shared address space (RFC 6598): nobody's own, and not routed on the Internet.
DEFAULT_NETWORK = "100.64.0.0/10"


class VirtualAddresses:
    """Address by service and service by address; names are not case-sensitive.

    The first service gets the first address; the last octet is never 0 or 255. The same list gives
    the same addresses in every process.

    Raises:
        ValueError: the network is none, or too small.
    """

    def __init__(self, services: Sequence[str], network: str = DEFAULT_NETWORK) -> None:
        self._services: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        net = ipaddress.IPv4Network(network)
        free = (
            address
            for number in range(net.num_addresses)
            if (address := net.network_address + number).packed[3] not in (0, 255)
        )
        for service in services:
            if service.lower() in self._addresses:
                continue
            try:
                given = str(next(free))
            except StopIteration:
                raise ValueError(f"{network} has no room for {len(services)} services") from None
            self._addresses[service.lower()] = given
            self._services[given] = service

    def address(self, service: str) -> str | None:
        """Where connections to this service go; None: nobody consumes it."""
        return self._addresses.get(service.lower())

    def service(self, address: str) -> str | None:
        """What this address stands for; None: nothing."""
        return self._services.get(address)

    def __len__(self) -> int:
        return len(self._services)
