"""Whom clients may reach through us: nobody inside, unless the operator lists it.

Addresses are brought to one form first, because the same IPv4 host has many spellings in IPv6.
What is allowed by a rule is allowed, whatever else; then what is denied by one; then the networks
that are no part of the public Internet.

Source: protocol sheet TURN 3.7; RFC 6890.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

#: Never a peer, whatever is allowed: no host has them.
_NEVER: Final = tuple(
    map(ip_network, ("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/128", "ff00::/8"))
)
_CLOSED: Final = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "::1/128",
            "fe80::/10",
            "fc00::/7",
            "fec0::/10",
            "2001::/23",
            "2001:db8::/32",
            "100::/64",
        ),
    )
)
_NAT64: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_COMPATIBLE: Final = ip_network("::/96")
#: Verdicts that are remembered; overflow: all are asked again.
_MAX_KNOWN: Final = 4096


def embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address an IPv6 address stands for: mapped, compatible, NAT64, 6to4; else itself."""
    if isinstance(address, IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    if any(address in network for network in _NAT64) or (
        address in _COMPATIBLE and int(address) > 1
    ):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class PeerFilter:
    """Whom clients may reach through us: nobody inside, unless the operator lists it.

    Args:
        allowed, denied: networks of the operator.
        closed: the networks inside are denied by default.
        relayed: our own relayed addresses, which stay reachable: two clients of one relay.
    """

    def __init__(
        self,
        allowed: Iterable[Network] = (),
        denied: Iterable[Network] = (),
        *,
        closed: bool = True,
        relayed: Iterable[str] = (),
    ) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)
        self._closed = _CLOSED if closed else ()
        self._relayed = frozenset(relayed)
        self._known: dict[str, bool] = {}

    def allows(self, host: str) -> bool:
        """May a client send to this IP address?"""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[host] = self._judge(host)
        return known

    def _judge(self, host: str) -> bool:
        try:
            written = ip_address(host)
        except ValueError:
            return False
        address = embedded(written)
        if address.version != written.version and address != written and _mapped(written):
            return False  # no socket of ours sends to such a spelling
        forms = {written, address}
        if _within(forms, _NEVER):
            return False
        if _within(forms, self._allowed):
            return True
        if _within(forms, self._denied):
            return False
        return host in self._relayed or not _within(forms, self._closed)


def _mapped(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def _within(forms: Iterable[IPv4Address | IPv6Address], networks: Iterable[Network]) -> bool:
    return any(form in network for network in networks for form in forms)
