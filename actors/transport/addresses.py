"""Socket addresses and how they are written: IPv4, IPv6, link-local ones with their zone.

Looks nothing up but the numbers of this host's interfaces.

Source: RFC 4007 section 11 (zones), RFC 5952 section 6 (ports behind IPv6 addresses).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

#: As the socket module gives and takes it: (host, port) or (host, port, flow, scope).
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


class Target(NamedTuple):
    """An address to bind or dial, with its family."""

    family: int
    address: Address


def literal(host: str, port: int) -> Target | None:
    """The address that `host` spells, `fe80::1%eth0` included; None: it is a name.

    Raises:
        OSError: the zone of a link-local address is no interface of this host.
    """
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return Target(socket.AF_INET, (host, port))
    bare, _, zone = host.partition("%")
    return Target(socket.AF_INET6, (bare, port, 0, _scope(zone, host)))


def _scope(zone: str, host: str) -> int:
    if not zone or (zone.isascii() and zone.isdigit() and len(zone) < 10):
        return int(zone or 0)
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        raise OSError(errno.ENODEV, f"{host}: this host has no interface {zone}") from None


def to_bind(host: str, port: int) -> Target:
    """What to bind for a host of the settings: a literal; empty or `*`: every IPv4 address.

    A name is left to the socket module, which takes its first IPv4 address.

    Raises:
        OSError: as `literal`.
    """
    if host in ("", "*"):
        host = "0.0.0.0"
    return literal(host, port) or Target(socket.AF_INET, (host, port))


def only_ipv6(address: tuple[str, int], others: Iterable[tuple[str, int]]) -> bool:
    """True when `[::]` has to leave IPv4 to another listener on the same port.

    Alone it takes IPv4 as well; beside `0.0.0.0`, or any IPv4 address, it could not be bound.
    """
    host, port = address
    beside = [other for other, its_port in others if its_port == port]
    return host == "::" and port != 0 and any(":" not in other for other in beside)


def host_and_port(address: Address) -> tuple[str, int]:
    """As it can be dialled again: with the zone of a link-local address in the host."""
    if len(address) == 4 and address[3]:
        try:
            return f"{address[0]}%{socket.if_indextoname(address[3])}", address[1]
        except OSError:
            return f"{address[0]}%{address[3]}", address[1]  # that interface is gone
    return address[0], address[1]


def bind_error(error: OSError, host: str, port: int, transport: str) -> OSError:
    """The same error, which also says what could not be bound."""
    where = f"{address_text(host, port)} ({transport})"
    return OSError(error.errno, f"{where}: {error.strerror or error}")


def address_text(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
