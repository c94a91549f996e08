"""The accept loop of every listening stream socket of ours, TCP or Unix.

It takes what waits, in batches, gives each connection a place at the gate (`transport.gate`) and
hands it on; refuses and counts the rest; ends strangers whose deadline passed, with one timer for
all; rests when the process has no descriptors left instead of spinning, after those who only hold
places gave way; and writes at most one line in ten seconds about whom it turned away.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from actors.runtime import Guard, unguarded
from actors.transport.addresses import bind_error, to_bind
from actors.transport.gate import HEARD, PROVED, Gate, Place, source_of
from actors.transport.refusal_log import RefusalLog

#: Connections accepted per wake-up before other sockets get a turn.
ACCEPTS: Final = 64
#: Connections the kernel keeps for us.
BACKLOG: Final = 1024
#: Pause after the process ran out of descriptors, seconds.
EXHAUSTED_PAUSE: Final = 0.1
#: The timer for deadlines comes at most so often, seconds.
SWEEP_SECONDS: Final = 0.1
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """Of one accept loop.

    Attributes:
        most: connections that hold a place; see `transport.gate`.
        most_per_source: the same for one source.
        deadline: seconds from the accept to `Place.proved` or `Place.leave`; 0: none.
        yields: who gives way to a newcomer when all places are taken.
    """

    most: int
    most_per_source: int
    deadline: float = 0.0
    yields: int = PROVED


def _nothing() -> None:
    """No socket."""


class Acceptor:
    """The accept loop of every listening stream socket of ours, TCP or Unix. A resource; may be
    attached to another socket after `detach`.

    Args:
        limits: see there.
        take: gets each connection: a non-blocking socket, the peer's address and its place. It
            sets `Place.give_way`, and sees to it that the place is left.
        name: of the listener, for the log.
        counters: `refused_` and a reason, `gave_way`, `handshake_failed_timeout`, `accept_failed`,
            `out_of_descriptors`.
        log: writes a line about refusals; None: the general log.
        turn_away: ends a connection that is not taken.
    """

    def __init__(
        self,
        limits: AcceptLimits,
        take: Callable[[socket.socket, Any, Place], object],
        *,
        name: str,
        counters: Counter[str] | None = None,
        log: Callable[[str], object] | None = None,
        turn_away: Callable[[socket.socket], object] = socket.socket.close,
    ) -> None:
        self._turn_away = turn_away
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.accepting = True
        self.gate = Gate(limits.most, limits.most_per_source, self.counters, yields=limits.yields)
        self.refusals = RefusalLog(name, log)
        self._limits = limits
        self._take = take
        self._listening: socket.socket | None = None
        self._read: Callable[..., object] = _nothing
        self._resting: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    def attach(self, listening: socket.socket, guard: Guard = unguarded) -> None:
        """Accept from a socket that is bound, listens and does not block; taken over.

        Args:
            guard: wraps the socket's callback: an unusable socket is its owner's failure.
        """
        self.detach()
        self._listening = listening
        self._read = guard("listener", self._acceptable)
        asyncio.get_running_loop().add_reader(listening, self._read)

    def detach(self) -> None:
        """Close the socket, and end strangers that proved nothing yet; idempotent."""
        sock, self._listening = self._listening, None
        self._read = _nothing
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self.gate.clear("handshake_detached")

    def abort(self) -> None:
        """See `detach`; the deadlines end as well."""
        self.detach()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS):
            listening = self._listening
            if listening is None:
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    self.counters["accept_failed"] += 1
                    continue  # that connection ended before we took it
                self.counters["out_of_descriptors"] += 1
                self.refusals.note("out of descriptors")
                self.gate.make_room(ACCEPTS, min(HEARD, self._limits.yields))
                self._rest(listening)
                return
            self._accepted(sock, address)

    def _rest(self, listening: socket.socket) -> None:
        """No descriptors: the kernel keeps what comes, and we do not spin."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def again() -> None:
            self._resting = None
            if self._listening is listening:
                loop.add_reader(listening, self._read)

        self._resting = loop.call_later(EXHAUSTED_PAUSE, again)

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        if not self.accepting:
            self.counters["refused_not_accepting"] += 1
            self._turn_away(sock)
            return
        source = source_of(address[0]) if isinstance(address, tuple) else ""
        now = asyncio.get_running_loop().time()
        place = self.gate.enter(source, now)
        if place is None:
            self.refusals.note("too many of one address" if source else "too many", source)
            self._turn_away(sock)
            return
        sock.setblocking(False)
        if self._limits.deadline and self._sweeping is None:
            self._sweep_after(self._limits.deadline)
        self._take(sock, address, place)

    def _sweep_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(max(SWEEP_SECONDS, seconds), self._sweep)

    def _sweep(self) -> None:
        """End those whose deadline passed, and come again for the next of them."""
        self._sweeping = None
        now = asyncio.get_running_loop().time()
        oldest = self.gate.dismiss_since(now - self._limits.deadline)
        if oldest is not None:
            self._sweep_after(oldest + self._limits.deadline - now)


def listen_tcp(
    host: str, port: int, backlog: int = BACKLOG, *, only_ipv6: bool = False
) -> socket.socket:
    """A bound, listening, non-blocking socket; "::" takes IPv4 as well, unless `only_ipv6`.

    Args:
        host: see `addresses.to_bind`.

    Raises:
        OSError: the address cannot be bound.
    """
    family, address = to_bind(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            apart = int(only_ipv6 or host != "::")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, apart)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise bind_error(error, host, port, "TCP") from None
    return sock
