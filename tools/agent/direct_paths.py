"""Connections to other agents beside the relay: dialled and accepted, checked, and given up.

They share the socket of the relay connection, so that the address the relay sees is the one that
other agents can reach. Agents of ours say so by a protocol name of their own: between them a stream
changes its path without loss, whatever is on the way (docs/decisions/0062).

Source: protocol sheet ORP 3.9; 6.5 A11.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence

from actors.runtime import Guard
from actors.transport.connection import Connection, DialFailed
from actors.transport.quic import QuicEndpoint
from actors.transport.stream import CloseReason, Stream
from wire.orp.identity import AgentUri, IdentityError, parse_identity
from wire.orp.messages import Candidate

#: Protocol names on connections between agents; the first is ours.
OWN_ALPN = "trunkline-p2p/1"
ALPN = (OWN_ALPN, "orp/1")
#: Seconds for one candidate.
DIAL_SECONDS = 2.0
#: Connections with other agents; one more is closed at once.
MAX_CONNECTIONS = 1024
#: Looks without any stream until a connection is closed; one look every `SWEEP_SECONDS`.
IDLE_LOOKS = 3
SWEEP_SECONDS = 10.0


def _is_literal(ip: str) -> bool:
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        return False
    return "%" not in ip  # a zone means something on its own host only


class DirectPaths:
    """Connections to other agents beside the relay: dialled and accepted, checked, and given up. A
    resource of the link, whose endpoint it uses.

    Args:
        uri: our own identity.
        on_stream: gets every stream another agent opens.
        guard: wraps callbacks.
    """

    def __init__(
        self,
        endpoint: QuicEndpoint,
        uri: str,
        on_stream: Callable[[Connection, Stream], object],
        guard: Guard,
    ) -> None:
        self._endpoint = endpoint
        self._uri = uri
        self._on_stream = on_stream
        self._guard = guard
        #: With the number of looks at which it carried nothing.
        self._connections: dict[Connection, int] = {}
        self._dials: dict[tuple[str, int], asyncio.Lock] = {}

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def streams(self) -> int:
        """Streams open on all of them."""
        return sum(one.statistics().streams for one in self._connections)

    def admit(self, connection: Connection) -> None:
        """Another agent dialled us."""
        if len(self._connections) >= MAX_CONNECTIONS or not self.acceptable(connection):
            connection.close(0, "")
            return
        self._keep(connection)

    def acceptable(self, connection: Connection) -> bool:
        """True for another agent of our tenant."""
        try:
            peer, own = parse_identity(connection.peer.uri), parse_identity(self._uri)
        except IdentityError:
            return False
        return (
            isinstance(peer, AgentUri)
            and isinstance(own, AgentUri)
            and peer.tenant == own.tenant
            and peer != own
        )

    def _keep(self, connection: Connection) -> None:
        self._connections[connection] = 0
        stream = self._guard("direct", lambda one: self._on_stream(connection, one))
        connection.on_stream = stream
        connection.on_closed = self._guard("direct", lambda reason: self._lost(connection, reason))
        connection.start()

    def _lost(self, connection: Connection, reason: CloseReason) -> None:
        self._connections.pop(connection, None)

    async def reach(
        self, candidates: Sequence[Candidate], *, peer: str, server_name: str, budget: float
    ) -> tuple[Connection, Candidate] | None:
        """A connection to an agent, at the best of these addresses where it answers.

        Args:
            peer: who it must be; empty: any agent of our tenant.
            budget: seconds for all of them together.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget
        # Only literals: what a peer says is never looked up.
        usable = [one for one in candidates if _is_literal(one.ip)]
        for candidate in sorted(usable, key=lambda one: -one.priority):
            address = (candidate.ip, candidate.port)
            # Streams that leave together share a connection.
            lock = self._dials.setdefault(address, asyncio.Lock())
            async with lock:
                connection = self._at(address)
                left = min(DIAL_SECONDS, deadline - loop.time())
                if connection is None and left > 0:
                    connection = await self._dial(address, server_name, left)
                if connection is not None and connection.peer.uri != (peer or connection.peer.uri):
                    connection = None  # another agent of our tenant: of no use for this stream
            if not lock.locked():
                self._dials.pop(address, None)
            if connection is not None:
                return connection, candidate
        return None

    def _at(self, address: tuple[str, int]) -> Connection | None:
        found = (one for one in self._connections if one.remote_address == address)
        return next(found, None)

    async def _dial(
        self, address: tuple[str, int], server_name: str, timeout: float
    ) -> Connection | None:
        try:
            connection = await self._endpoint.connect(
                address, server_name=server_name, timeout=timeout
            )
        except (DialFailed, OSError):
            return None
        if not self.acceptable(connection):
            connection.close(0, "")
            return None
        self._keep(connection)
        return connection

    def punch(self, candidates: Sequence[Candidate]) -> None:
        """One byte to every address, so that a NAT of ours lets the other agent's dial in."""
        for candidate in candidates:
            self._endpoint.punch((candidate.ip, candidate.port))

    def sweep(self) -> None:
        """Close what carries nothing any more; call it every `SWEEP_SECONDS`."""
        for connection, looks in list(self._connections.items()):
            idle = not connection.statistics().streams
            self._connections[connection] = looks + 1 if idle else 0
            if idle and looks + 1 >= IDLE_LOOKS:
                connection.close(0, "")

    def abort(self) -> None:
        """Close everything; streams on it park."""
        for connection in list(self._connections):
            connection.close(0, "")
        self._connections.clear()
