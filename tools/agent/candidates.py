"""Addresses another agent may reach us at, best first.

Source: protocol sheet ORP 3.9 (priorities).
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from wire.orp.messages import Candidate

ADVERTISED, GLOBAL, OTHER, PRIVATE, SRFLX = 100, 70, 50, 30, 20
IPV6_BONUS = 10
#: Candidates in one frame; the best stay.
MAX_CANDIDATES = 16
_SIOCGIFADDR = 0x8915
_CGNAT = ipaddress.ip_network("100.64.0.0/10")


def gather(
    listening: tuple[str, int],
    *,
    advertised: tuple[str, int] | None = None,
    observed: tuple[str, int] | None = None,
    interfaces: Iterable[str] = (),
) -> tuple[Candidate, ...]:
    """What we offer.

    Args:
        listening: where our socket is bound; a wildcard means every interface.
        advertised: said by the operator.
        observed: where the relay sees us.
        interfaces: addresses of this host.
    """
    host, port = listening
    found: dict[tuple[str, int], Candidate] = {}

    def add(kind: str, ip: str, number: int, priority: int) -> None:
        found.setdefault((ip, number), Candidate(kind, ip, number, priority))

    if advertised is not None:
        add("host", *advertised, ADVERTISED)
    own = ipaddress.ip_address(host)
    if not own.is_unspecified:
        add("host", host, port, host_priority(host) or OTHER)  # the operator named it
    else:
        for address in interfaces:
            priority = host_priority(address)
            if priority and (own.version == 6 or ":" not in address):
                add("host", address, port, priority)
    if observed is not None and host_priority(observed[0]):
        add("srflx", *observed, SRFLX)
    best = sorted(found.values(), key=lambda one: -one.priority)
    return tuple(best[:MAX_CANDIDATES])


def host_priority(address: str) -> int:
    """Priority of a host address; 0: nobody else can use it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return 0
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return 0
    if ip.is_global or (ip.version == 4 and ip in _CGNAT):
        base = GLOBAL
    elif ip.is_private:
        base = PRIVATE
    else:
        base = OTHER
    return base + (IPV6_BONUS if ip.version == 6 else 0)


def interface_addresses() -> list[str]:
    """Addresses of this host, as far as the system tells."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # it has no IPv4 address
            found.append(socket.inet_ntoa(answer[20:24]))
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    found.extend(str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in lines)
    return found
