"""The listener in front of gRPC: bounds per source, and for strangers, that gRPC does not have.

gRPC takes no accepted sockets and tells nobody where a connection comes from before its handshakes
are done. So it listens on an abstract socket of this host, and what comes over the network is
accepted here and coupled with a connection to it. That connection has a name of its own, which gRPC
gives as the peer of every call: so the first call that the caller may make proves its place.

Source: docs/decisions/0162; unix(7), autobind.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from actors.controller.limits import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_SOURCE,
    PROVE_SECONDS,
)
from actors.controller.port import Port
from actors.runtime import Guard
from actors.transport.gate import HEARD, Place
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.pump import PipePool, QuietLimits, SocketPair

#: For what gRPC sends in one piece, such as the rows of thousands of services.
_PIPES: Final = 4
#: One side of a connection that ended has nothing to wait for: HTTP/2 knows no half-close.
_LIMITS: Final = QuietLimits(half_closed=10.0)


class Front:
    """The listener in front of gRPC: bounds per source, and for strangers, that gRPC does not have.
    A resource.

    Args:
        port: where to listen; it is told the port taken.
        guard: `Actor.guard`: an unusable listening socket is its owner's failure.
        log: writes a line about who is turned away.

    Attributes:
        target: where gRPC has to listen, as it writes addresses.
        counters: see `Acceptor`; `no_backend`: gRPC took no more.
    """

    def __init__(self, port: Port, guard: Guard, log: Callable[[str], object]) -> None:
        self.counters: Counter[str] = Counter()
        self._name = f"trunkline-{secrets.token_hex(16)}"
        self.target = f"unix-abstract:{self._name}"
        self._port = port
        self._guard = guard
        self._pipes = PipePool(_PIPES)
        #: By the name gRPC has for it. Bound: MAX_CONNECTIONS.
        self._pairs: dict[str, tuple[SocketPair, Place]] = {}
        limits = AcceptLimits(
            MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE, PROVE_SECONDS, yields=HEARD
        )
        self._acceptor = Acceptor(
            limits, self._take, name=f"controller {port}", counters=self.counters, log=log
        )

    def __len__(self) -> int:
        return len(self._pairs)

    def start(self) -> None:
        """Accept; gRPC listens already.

        Raises:
            OSError: the address cannot be bound.
        """
        listening = listen_tcp(self._port.host, self._port.port)
        self._port.port = listening.getsockname()[1]
        self._acceptor.attach(listening, self._guard)

    def proved(self, peer: str) -> None:
        """The caller on this connection, as gRPC names it, may call."""
        pair = self._pairs.get(peer)
        if pair is not None:
            pair[1].proved()

    def detach(self) -> None:
        """Accept no more; who proved to be a caller stays."""
        self._acceptor.detach()

    def abort(self) -> None:
        """End every connection; idempotent."""
        self._acceptor.abort()
        pairs, self._pairs = self._pairs, {}
        for pair, place in pairs.values():
            place.leave()
            pair.abort()
        self._pipes.abort()

    def _take(self, sock: socket.socket, _address: Any, place: Place) -> None:
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            inner.setblocking(False)
            inner.bind("")  # the kernel chooses a name that nobody else has
            inner.connect(f"\0{self._name}")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = f"unix-abstract:{inner.getsockname()[1:].decode('ascii')}"
        except OSError:
            self.counters["no_backend"] += 1
            inner.close()
            sock.close()
            place.leave()
            return
        pair = SocketPair(
            sock,
            inner,
            pipes=self._pipes,
            on_end=partial(self._ended, name),
            guard=self._guard,
            limits=_LIMITS,
        )
        self._pairs[name] = pair, place
        place.give_way = partial(self._give_way, name)
        pair.start()

    def _give_way(self, name: str) -> None:
        pair, _ = self._pairs.pop(name)
        pair.abort()

    def _ended(self, name: str, _why: str) -> None:
        pair = self._pairs.pop(name, None)
        if pair is not None:
            pair[1].leave()
