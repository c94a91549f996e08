"""Connections that a balancer in front of us forwards: who they are from is in their header.

Only networks that are trusted may say so, and they must. The header is read up to its last byte and
not further; the connection is then as if it came from its source, and holds a place as such.

Source: the PROXY protocol, section 2; protocol sheet rendezvous 5.6 row 3.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, MutableMapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeAlias

from actors.transport.gate import Gate, Place, source_of
from wire.proxy_protocol.header import HeaderError
from wire.proxy_protocol.parser import Parser

Network: TypeAlias = IPv4Network | IPv6Network
Take: TypeAlias = Callable[[socket.socket, Any, Place], object]
#: Bytes looked at in one go.
_PEEK: Final = 512


def is_within(host: str, networks: Sequence[Network]) -> bool:
    """True when an address is in one of the networks; IPv4-mapped ones count as IPv4."""
    if not networks:
        return False
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in networks)


class ProxiedArrivals:
    """Between an `Acceptor` and who takes its connections. The acceptor needs a deadline.

    Args:
        trusted: networks that write a header.
        take: gets each connection, with the address it is from.
        gate: gives places; the acceptor's. Called when it is needed: the acceptor is made of us.
        counters: `proxy_header_` and a reason.
    """

    def __init__(
        self,
        trusted: Sequence[Network],
        take: Take,
        *,
        gate: Callable[[], Gate],
        counters: MutableMapping[str, int],
    ) -> None:
        self._trusted = tuple(trusted)
        self._take = take
        self._gate = gate
        self._counters = counters

    def accepted(self, sock: socket.socket, address: Any, place: Place) -> None:
        """What the acceptor gives."""
        if isinstance(address, tuple) and is_within(address[0], self._trusted):
            _Header(self, sock, address, place)
        else:
            self._take(sock, address, place)

    def read(self, sock: socket.socket, address: tuple[str, int], place: Place) -> None:
        """The header is here."""
        since = place.since
        place.leave()
        own = self._gate().enter(source_of(address[0]), since)
        if own is None:
            sock.close()
            return
        self._take(sock, address, own)

    def failed(self, why: str) -> None:
        """There is none."""
        name = f"proxy_header_{why}"
        self._counters[name] = self._counters.get(name, 0) + 1


class _Header:
    """One connection until its header is here."""

    __slots__ = ("_address", "_arrivals", "_loop", "_parser", "_place", "_sock")

    def __init__(
        self, arrivals: ProxiedArrivals, sock: socket.socket, address: Any, place: Place
    ) -> None:
        self._arrivals = arrivals
        self._sock = sock
        self._address = address
        self._place = place
        self._parser = Parser()
        self._loop = asyncio.get_running_loop()
        place.give_way = self._close
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            seen = self._sock.recv(_PEEK, socket.MSG_PEEK)
            if not seen:
                raise HeaderError("eof")
            header = self._parser.receive(seen)
            self._sock.recv(len(seen) - (len(self._parser.rest) if header is not None else 0))
        except (BlockingIOError, InterruptedError):
            return
        except (HeaderError, OSError) as error:
            self._arrivals.failed(error.label if isinstance(error, HeaderError) else "reset")
            self._place.leave()
            self._close()
            return
        if header is None:
            return
        self._loop.remove_reader(self._sock)
        source = header.source
        address = self._address[:2] if source is None else (str(source.host), source.port)
        self._arrivals.read(self._sock, address, self._place)

    def _close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
