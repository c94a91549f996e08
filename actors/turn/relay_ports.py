"""Relayed addresses: bound before anybody hears of them, lent to allocations, kept from others.

A socket belongs to its allocation's record, not to the actor that relays: an actor that is
restarted finds the address as it was. Ports are drawn at random. One that was given back rests, so
that late packets for its last client do not reach the next one; so does one that could not be
bound.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from actors.transport.udp import bind_udp
from actors.turn.settings import TurnSettings
from wire.stun.address import Address, family_of

#: Ports tried for one allocation, before the client hears that there is none.
TRIES: Final = 32
#: No descriptor or no memory: another port would not help.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Bind = Callable[[str, int], socket.socket]


def _bind(host: str, port: int) -> socket.socket:
    return bind_udp(host, port, only_ipv6=True)


class RelaySocket:
    """One bound relayed address.

    Attributes:
        family: see `wire.stun.address`.
        address: as clients and peers see it.
        sock: lent to whoever relays.
    """

    __slots__ = ("_ports", "address", "family", "port", "sock")

    def __init__(
        self, ports: RelayPorts, family: int, port: int, address: Address, sock: socket.socket
    ) -> None:
        self._ports: RelayPorts | None = ports
        self.family = family
        self.port = port
        self.address = address
        self.sock = sock

    def close(self) -> None:
        """Close it; its port rests. Idempotent."""
        ports, self._ports = self._ports, None
        if ports is not None:
            self.sock.close()
            ports.closed(self.family, self.port)


class RelayPorts:
    """Relayed addresses: bound before anybody hears of them, lent to allocations, kept from others.

    Attributes:
        open: relayed sockets at the moment.
        failures: of binding, by errno.

    Args:
        clock: monotonic seconds.
        bind: makes a bound socket; another one to see what happens when it fails.
    """

    def __init__(
        self,
        settings: TurnSettings,
        clock: Callable[[], float],
        dice: Random,
        bind: Bind = _bind,
    ) -> None:
        self.open = 0
        self.failures: Counter[str] = Counter()
        self.bind = bind
        self._settings = settings
        self._clock = clock
        self._dice = dice
        self._hosts = {family_of(host): host for host in reversed(settings.relay_hosts)}
        #: By family and port, until when it rests. Bound: the ports there are.
        self._resting: dict[tuple[int, int], float] = {}
        self._used: set[tuple[int, int]] = set()

    def relay(self, family: int, *, even: bool = False) -> RelaySocket | int:
        """A bound address; a number: the STUN error that says why there is none."""
        if family not in self._hosts:
            return 440
        settings = self._settings
        first, last = settings.first_port, settings.last_port
        if even:
            first += first % 2
        step = 2 if even else 1
        count = (last - first) // step + 1
        if count <= 0:
            return 508
        start = self._dice.randrange(count)
        tries = 0
        for n in range(count):
            port = first + (start + n) % count * step
            if not self._free(family, port):
                continue
            tries += 1
            if tries > TRIES:
                break
            sock = self.at(family, port)
            if sock is not None:
                return sock
        return 508

    def at(self, family: int, port: int) -> RelaySocket | None:
        """The address with this port; None: it cannot be had."""
        if port > self._settings.last_port or not self._free(family, port):
            return None
        host = self._hosts[family]
        try:
            sock = self.bind(host, port)
        except OSError as error:
            self.failures[errno.errorcode.get(error.errno or 0, "unknown")] += 1
            if error.errno not in _EXHAUSTED:
                self._resting[family, port] = self._clock() + self._settings.quarantine
            return None
        self._used.add((family, port))
        self.open += 1
        shown = self._settings.external.get(host, host)
        return RelaySocket(self, family, port, (shown, port), sock)

    def _free(self, family: int, port: int) -> bool:
        key = family, port
        if key in self._used:
            return False
        until = self._resting.get(key)
        if until is None:
            return True
        if until > self._clock():
            return False
        del self._resting[key]
        return True

    def closed(self, family: int, port: int) -> None:
        """It is free again, after a rest."""
        self._used.discard((family, port))
        self.open -= 1
        if self._settings.quarantine:
            self._resting[family, port] = self._clock() + self._settings.quarantine
