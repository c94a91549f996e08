"""Which service has which port: walked from the base upwards, kept for who had one before.

A freed port is given at once to the source that had it and for a while to nobody else, so that a
service that lost its connection finds its users where they look for it. A service with a name and a
proof of who it is keeps its port for much longer, over restarts of its own.

Source: protocol sheet rendezvous 1.4, 1.7 row 21, 5.6 row 1.
"""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from actors.transport.tcp.acceptor import listen_tcp

#: Freed ports that are remembered; the one freed first is forgotten first.
MAX_KEPT: Final = 65_536
#: Users the kernel keeps for us at a port, as the reference does.
BACKLOG: Final = 4096
_BUSY: Final = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL})


class NoPort(Exception):
    """None can be had; `label` says why: exhausted, not_allowed, busy, no_descriptors."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


@dataclass(frozen=True, slots=True)
class PortOwner:
    """For whom a port is.

    Attributes:
        source: address it asks from.
        client: who it proved to be; empty: nobody.
        name: of the service; empty: it has none.
    """

    source: str
    client: str = ""
    name: str = ""

    @property
    def keeps(self) -> bool:
        """True when the port is kept by name."""
        return bool(self.client and self.name)

    @property
    def key(self) -> tuple[str, str, str]:
        """What a kept port is compared by."""
        return ("", self.client, self.name) if self.keeps else (self.source, "", "")


def _nothing() -> None:
    """Nobody accepts."""


class PortLease:
    """One port and its listening socket. A resource.

    Listeners work on duplicates, so that a crash of one loses neither the port nor the users that
    wait in the kernel.
    """

    __slots__ = ("_give_back", "_sock", "on_closed", "port")

    def __init__(self, sock: socket.socket, give_back: Callable[[int], object]) -> None:
        self._sock: socket.socket | None = sock
        self._give_back = give_back
        self.port: int = sock.getsockname()[1]
        #: Told before the port is closed: whoever accepts from it stops.
        self.on_closed: Callable[[], object] = _nothing

    def listening(self) -> socket.socket | None:
        """A socket to accept from; None once the port is given back."""
        if self._sock is None:
            return None
        sock = self._sock.dup()
        sock.setblocking(False)
        return sock

    def abort(self) -> None:
        """Nobody is accepted any more, and the port may be had by others; idempotent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self.on_closed()
            # Also for the duplicates: nobody may still come in by one that is closed later.
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the kernel ended it before
            sock.close()
            self._give_back(self.port)


class PortTable:
    """Which service has which port: walked from the base upwards, kept for who had one before.

    Args:
        host: where users come to.
        base: the walk begins there; 0: the kernel chooses every port.
        allowed: what may be given; None: all from `base` on.
        quarantine: seconds a freed port is kept for its source.
        name_kept: seconds it is kept for a named service.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        base: int,
        *,
        allowed: frozenset[int] | None = None,
        quarantine: float = 30.0,
        name_kept: float = 86_400.0,
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._base = base
        self._allowed = allowed
        self._quarantine = quarantine
        self._name_kept = name_kept
        self._clock = clock
        self._owners: dict[int, PortOwner] = {}
        #: Freed ports: whose they were, and until when they are kept.
        self._kept: OrderedDict[int, tuple[tuple[str, str, str], float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def lease(
        self, owner: PortOwner, wanted: int = 0, also: frozenset[int] | None = None
    ) -> PortLease:
        """A port for a service.

        Args:
            wanted: only this one; 0: any.
            also: further bound of what this one may have; None: none.

        Raises:
            NoPort: see there.
        """
        allowed = self._allowed if also is None else also & (self._allowed or also)
        if wanted:
            if not self._may_have(wanted, allowed):
                raise NoPort("not_allowed")
            lease = self._try(wanted, owner)
            if lease is None:
                raise NoPort("busy")
            return lease
        if not self._base and allowed is None:
            lease = self._try(self._remembered(owner) or 0, owner) or self._try(0, owner)
            if lease is None:
                raise NoPort("exhausted")
            return lease
        first = self._remembered(owner)
        if first and self._may_have(first, allowed):
            lease = self._try(first, owner)
            if lease is not None:
                return lease
        ports = sorted(allowed) if allowed is not None else range(self._base, 65536)
        for port in ports:
            lease = self._try(port, owner)
            if lease is not None:
                return lease
        raise NoPort("exhausted")

    def _may_have(self, port: int, allowed: frozenset[int] | None) -> bool:
        return port in allowed if allowed is not None else port > self._base

    def _remembered(self, owner: PortOwner) -> int:
        """The lowest port that is kept for it."""
        now, key = self._clock(), owner.key
        while self._kept and next(iter(self._kept.values()))[1] <= now:
            self._kept.popitem(last=False)
        return min((p for p, (whose, until) in self._kept.items()
                    if whose == key and until > now), default=0)  # fmt: skip

    def _try(self, port: int, owner: PortOwner) -> PortLease | None:
        kept = self._kept.get(port)
        if port in self._owners or (
            kept is not None and kept[0] != owner.key and kept[1] > self._clock()
        ):
            return None
        try:
            sock = listen_tcp(self._host, port, BACKLOG)
        except OSError as error:
            if error.errno in _BUSY:
                return None
            raise NoPort("no_descriptors") from None
        lease = PortLease(sock, self._give_back)
        self._kept.pop(lease.port, None)
        self._owners[lease.port] = owner
        return lease

    def _give_back(self, port: int) -> None:
        owner = self._owners.pop(port)
        seconds = self._name_kept if owner.keeps else self._quarantine
        if seconds:
            self._kept[port] = owner.key, self._clock() + seconds
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
