"""A TCP endpoint: accepts and dials, and reports connections whose peer was verified.

Handshakes run concurrently, each with a deadline, and the failure of one is its own. Like the QUIC
endpoint it outlives its socket (docs/decisions/0013): `attach` and `detach` are the life of the
listening socket; connections are owned by whoever got them.

Source: protocol sheet ORP 3.13, 6.4 T1, T2.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.runtime import Guard, unguarded
from actors.transport.addresses import Address, Target, address_text, host_and_port
from actors.transport.certificate_path import IdentityRejected
from actors.transport.connection import Connection, DialFailed
from actors.transport.dialling import connect_to, first_to_connect, resolve
from actors.transport.gate import Place
from actors.transport.peer_policy import PeerPolicy
from actors.transport.stream import CloseReason
from actors.transport.tcp.acceptor import AcceptLimits, Acceptor, listen_tcp
from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.tls_context import client_context, peer_chain, server_context
from actors.transport.tcp.tls_transport import READ, TlsTransport, label
from actors.transport.tcp.yamux_connection import YamuxConnection
from actors.transport.tls import TlsIdentity
from wire.yamux.unread_budget import UnreadBudget


class TcpStatistics(NamedTuple):
    """Counters of one endpoint."""

    connections: int  #: live, verified connections
    pending: int  #: connections at the gate: handshakes in progress, and HELLOs waited for
    counters: dict[str, int]  #: handshakes by outcome


def _accept_nothing(connection: Connection) -> None:
    connection.close(0, "")


class TcpEndpoint:
    """A TCP endpoint: accepts and dials, and reports connections whose peer was verified.

    Args:
        identity: what we present and whom we trust.
        alpn: protocols offered; a client that offers none is accepted, as in the reference.
        settings: limits and timers.
        peer_policy: who shows a certificate.
        on_connection: gets every verified incoming connection; None: outgoing only.
        counters: where handshakes by outcome are counted.
        until_welcome: a connection counts as pending until `Connection.welcome`, not only until
            its peer is verified.
        unread: shared with other endpoints; without one it is this endpoint's own.
    """

    def __init__(
        self,
        *,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        settings: TcpSettings = TcpSettings(),  # noqa: B008  # frozen value
        peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
        on_connection: Callable[[Connection], object] | None = None,
        counters: Counter[str] | None = None,
        until_welcome: bool = False,
        unread: UnreadBudget | None = None,
    ) -> None:
        self.settings = settings
        self.unread = unread or UnreadBudget(settings.unread)
        self.on_connection = on_connection
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._alpn = alpn
        self._policy = peer_policy
        self._until_welcome = until_welcome
        self._acceptor = Acceptor(
            AcceptLimits(
                settings.max_pending, settings.max_pending_per_source, settings.handshake_timeout
            ),
            self._accepted,
            name="TCP",
            counters=self.counters,
        )
        self._acceptor.accepting = on_connection is not None
        self._address: tuple[str, int] | None = None
        self._connections: set[YamuxConnection] = set()
        self._made: memoryview | None = None
        self.reload(identity)

    @property
    def accepting(self) -> bool:
        """False: new incoming connections are closed."""
        return self._acceptor.accepting

    @accepting.setter
    def accepting(self, value: bool) -> None:
        self._acceptor.accepting = value

    # The socket.

    def attach(
        self, address: tuple[str, int], guard: Guard = unguarded, *, only_ipv6: bool = False
    ) -> tuple[str, int]:
        """Bind and listen. Returns the bound address.

        Port 0 takes the port of the previous attachment, or a free one.

        Args:
            address: IP literal and port; "::" takes IPv4 as well, unless `only_ipv6`.
            guard: wraps the socket's callback: an unusable socket is its owner's failure.

        Raises:
            OSError: the address cannot be bound.
        """
        self.detach()
        host, port = address
        if port == 0 and self._address is not None:
            port = self._address[1]
        sock = listen_tcp(host, port, only_ipv6=only_ipv6)
        self._address = host_and_port(sock.getsockname())
        self._acceptor.refusals.name = f"TCP {address_text(*self._address)}"
        self._acceptor.attach(sock, guard)
        return self._address

    def detach(self) -> None:
        """Close the socket; verified connections live on, handshakes in progress end."""
        self._acceptor.detach()

    @property
    def address(self) -> tuple[str, int] | None:
        """The bound address, also while detached; None before the first `attach`."""
        return self._address

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this identity; live connections are not touched."""
        self._identity = identity
        log, policy = self.settings.key_log, self._policy
        #: None: there is no certificate to show.
        self._server = server_context(identity, self._alpn, log, policy) if identity.chain else None
        self._client = client_context(identity, self._alpn, log, policy)

    def abort(self) -> None:
        """Close every connection and the socket; idempotent."""
        for connection in list(self._connections):
            connection.abort()
        self._acceptor.abort()
        self._made = None

    @property
    def _buffer(self) -> memoryview:
        """What all connections read into; made again when it is needed after `abort`."""
        if self._made is None:
            self._made = memoryview(bytearray(READ))
        return self._made

    def statistics(self) -> TcpStatistics:
        """The counters as one tuple."""
        return TcpStatistics(len(self._connections), len(self._acceptor.gate), dict(self.counters))

    # Accepting.

    def _accepted(self, sock: socket.socket, address: Any, place: Place) -> None:
        assert self._server is not None, "who accepts has a certificate"
        _Arrival(self, place, TlsTransport(sock, self._server, self._buffer), address)

    def arrived(self, transport: TlsTransport, place: Place) -> None:
        """The handshake of an accepted connection is done; called by `_Arrival`."""
        connection = YamuxConnection(
            self.settings, client=False, on_ended=self._ended, unread=self.unread
        )
        refusal = self._verified(connection, transport)
        if refusal:
            self.counters[f"refused_{refusal}"] += 1
            self.refused(refusal, transport.get_extra_info("peername"))
            place.leave()
            connection.abort()
            transport.close()
            return
        self.counters["handshake_ok"] += 1
        place.proved()
        place.give_way = lambda: connection.close(connection.abort_code, "gave way")
        connection.at_gate = place
        if not self._until_welcome:
            connection.welcome()
        self._connections.add(connection)
        transport.start(connection)
        (self.on_connection or _accept_nothing)(connection)

    def refused(self, why: str, address: Address | None) -> None:
        """Tell of a handshake that failed."""
        self._acceptor.refusals.note(why.replace("_", " "), str(address[0]) if address else "")

    def _verified(
        self,
        connection: YamuxConnection,
        transport: TlsTransport,
        server_name: str | None = None,
    ) -> str:
        """Set who the peer is, a server if `server_name` says which; else the reason why not."""
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            return "absent"
        try:
            connection.peer = self._policy.check(
                peer_chain(tls),
                self._identity,
                client=server_name is None,
                server_name=server_name,
            )
        except IdentityRejected as rejected:
            return rejected.slug
        except ValueError:
            return "malformed"
        connection.alpn = tls.selected_alpn_protocol() or ""
        connection.watch_revocations(self._identity.revocations)
        return ""

    def _ended(self, connection: YamuxConnection) -> None:
        self._connections.discard(connection)

    # Dialling.

    async def connect(
        self, address: tuple[str, int], *, server_name: str = "localhost", timeout: float = 5.0
    ) -> Connection:
        """Dial, and verify the server. A name is tried by all its addresses.

        Args:
            timeout: seconds for all of it, the lookup of a name included.

        Raises:
            DialFailed: refused, not verified, or not done within `timeout` seconds.
        """
        late = "lookup timed out"
        try:
            async with asyncio.timeout(timeout):
                targets = await resolve(*address)
                late = "timed out"
                return await first_to_connect(
                    targets,
                    lambda target: self._dial(target, server_name),
                    lambda other: other.close(0, ""),
                )
        except TimeoutError:
            why = late
        except OSError as error:
            why = str(error) if isinstance(error, socket.gaierror) else label(error)
        # Not while the other is handled: as its context that would keep all this alive.
        raise DialFailed(CloseReason("handshake", text=why))

    async def _dial(self, target: Target, server_name: str) -> Connection:
        """As `connect`, for one address; cancelled when its time is over."""
        transport = TlsTransport(await connect_to(target), self._client, self._buffer, server_name)
        # A result, never an exception: that would hold this frame, and the frame it.
        dial = _Dial(asyncio.get_running_loop().create_future())
        try:
            transport.connect(dial)
            refusal = await dial.outcome
        except BaseException:
            transport.abort()
            raise
        connection = YamuxConnection(
            self.settings, client=True, on_ended=self._ended, unread=self.unread
        )
        refusal = refusal or self._verified(connection, transport, server_name)
        if refusal:
            connection.abort()
            transport.close()
            raise DialFailed(CloseReason("handshake", text=refusal))
        self._connections.add(connection)
        transport.start(connection)
        return connection


class _Arrival:
    """An accepted connection while its handshake runs."""

    __slots__ = ("_address", "_endpoint", "_place")

    def __init__(
        self, endpoint: TcpEndpoint, place: Place, transport: TlsTransport, address: Address
    ) -> None:
        self._address = address
        self._endpoint = endpoint
        self._place = place
        place.give_way = transport.abort
        transport.accept(self)

    def handshake_heard(self) -> None:
        self._place.heard()

    def handshake_done(self, transport: TlsTransport) -> None:
        self._endpoint.arrived(transport, self._place)

    def handshake_failed(self, why: str) -> None:
        """See `HandshakeOwner`; one that gave way is counted already."""
        if self._place.taken:
            self._place.leave()
            self._endpoint.counters[f"handshake_failed_{why}"] += 1
            self._endpoint.refused(why, self._address)


class _Dial:
    """A dialled connection while its handshake runs: "" when it is done, else why not."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: asyncio.Future[str]) -> None:
        self.outcome = outcome

    def handshake_heard(self) -> None:
        """Nobody waits for less than all of it."""

    def handshake_done(self, transport: TlsTransport) -> None:
        if not self.outcome.done():
            self.outcome.set_result("")

    def handshake_failed(self, why: str) -> None:
        if not self.outcome.done():
            self.outcome.set_result(why)
