"""The UDP sockets of one QUIC endpoint: one per address family, the listening one among them."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable

from actors.runtime import Guard, unguarded
from actors.transport.addresses import host_and_port
from actors.transport.quic.engine import Address
from actors.transport.quic.transmission import runs
from actors.transport.udp import AskedAddress, UdpSocket, UdpStatistics, bind_udp

_NOTHING = UdpStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, False, False)


class EndpointSockets:
    """Opens and closes them, and sends by the one of the destination's family.

    Args:
        make_socket: makes the datagram sockets; called with the arguments of `UdpSocket`.
        received: gets runs of datagrams: the buffer, the size of each, the sender.
        on_drained: called when everything that arrived together was handed over.
        counters: where datagrams are counted that no socket can carry ("drop_no_socket").
    """

    def __init__(
        self,
        make_socket: Callable[..., UdpSocket],
        received: Callable[[memoryview, int, Address], None],
        on_drained: Callable[[], None],
        counters: Counter[str],
    ) -> None:
        self._make_socket = make_socket
        self._received = received
        self._on_drained = on_drained
        self._counters = counters
        self._by_family: dict[int, UdpSocket] = {}
        self._past_in = self._past_out = 0
        #: The one that answers whoever writes to it.
        self.listening: UdpSocket | None = None
        #: Where it is or was bound; None before the first `listen`.
        self.address: tuple[str, int] | None = None

    def __len__(self) -> int:
        return len(self._by_family)

    def listen(self, address: tuple[str, int], guard: Guard, *, only_ipv6: bool) -> UdpSocket:
        """Bind the listening socket. Port 0 takes the port it had before, or a free one.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = address
        if port == 0 and self.address is not None:
            port = self.address[1]
        self.listening = self._open(host, port, guard, only_ipv6=only_ipv6)
        self.address = host_and_port(self.listening.address)
        return self.listening

    def require(self, family: int) -> None:
        """Have a socket for peers of this address family.

        Raises:
            OSError: none can be bound.
        """
        if family not in self._by_family:
            wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"
            self._open(wildcard, 0, unguarded, answering=False)

    def _open(
        self,
        host: str,
        port: int,
        guard: Guard,
        *,
        answering: bool = True,
        only_ipv6: bool = False,
    ) -> UdpSocket:
        sock = bind_udp(host, port, whole=True, only_ipv6=only_ipv6)
        family = int(sock.family)
        opened = self._make_socket(
            sock, self._received, on_drained=self._on_drained, guard=guard, answering=answering
        )
        self._by_family[family] = opened
        return opened

    def close(self) -> None:
        """Close them all; idempotent."""
        for opened in self._by_family.values():
            statistics = opened.statistics()
            self._past_in += statistics.datagrams_in
            self._past_out += statistics.datagrams_out
            opened.abort()
        self._by_family.clear()
        self.listening = None

    def datagrams(self) -> tuple[int, int]:
        """Received and sent, by all sockets there ever were."""
        live = [opened.statistics() for opened in self._by_family.values()]
        return (
            self._past_in + sum(one.datagrams_in for one in live),
            self._past_out + sum(one.datagrams_out for one in live),
        )

    def statistics(self) -> UdpStatistics:
        """Of the present listening socket; all zero without one."""
        return self.listening.statistics() if self.listening is not None else _NOTHING

    def send(
        self, datagrams: list[tuple[bytes, Address]], asked: AskedAddress | None = None
    ) -> int:
        """Send, a run in one call, from the address that was `asked`. Returns the bytes in all."""
        total = 0
        for run, size, address in runs(datagrams):
            if asked is not None:
                address = asked.moved(address)  # engines keep plain addresses
            opened = self._by_family.get(_family(address))
            if opened is None:
                self._counters["drop_no_socket"] += len(run)
            else:
                opened.send_segments(run, size, address)
            total += size * (len(run) - 1) + len(run[-1])
        return total

    def punch(self, address: tuple[str, int]) -> None:
        """One byte to an IP literal from the listening socket: opens the way back through a NAT."""
        opened = self.listening
        if opened is None:
            return
        try:
            ipv6 = ipaddress.ip_address(address[0]).version == 6
        except ValueError:
            return
        dual = opened.address[0].count(":") > 1
        host = f"::ffff:{address[0]}" if dual and not ipv6 else address[0]
        if dual or not ipv6:
            opened.send(b"\0", (host, address[1]))


def _family(address: Address) -> int:
    return int(socket.AF_INET6 if len(address) == 4 else socket.AF_INET)
