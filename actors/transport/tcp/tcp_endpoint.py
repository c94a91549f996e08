"""A TCP endpoint: accepts and dials, and reports connections whose peer was verified.

Handshakes run concurrently, each with a deadline, and the failure of one is its own. Like the QUIC
endpoint it outlives its socket (docs/decisions/0013): `attach` and `detach` are the life of the
listening socket; connections are owned by whoever got them.

Source: protocol sheet ORP 3.13, 6.4 T1, T2.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from cryptography import x509

from actors.transport.certificate_path import IdentityRejected
from actors.transport.connection import Connection, DialFailed
from actors.transport.dialling import Target, connect_to, first_to_connect, resolve
from actors.transport.stream import CloseReason
from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.tls_context import client_context, peer_chain, server_context
from actors.transport.tcp.yamux_connection import YamuxConnection
from actors.transport.tls import CLIENT, SERVER, TlsIdentity, verify_peer

#: Connections accepted per wake-up before other sockets get a turn.
ACCEPTS = 64
#: Connections the kernel keeps for us.
BACKLOG = 1024
#: Pause after the process ran out of descriptors, seconds.
EXHAUSTED_PAUSE = 0.1
#: Seconds an ended connection may take to say goodbye.
GOODBYE_SECONDS = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Guard = Callable[[Callable[[], None]], Callable[[], object]]


class TcpStatistics(NamedTuple):
    """Counters of one endpoint."""

    connections: int  #: live, verified connections
    pending: int  #: handshakes in progress
    counters: dict[str, int]  #: handshakes by outcome


def _accept_nothing(connection: Connection) -> None:
    connection.close(0, "")


def _unguarded(function: Callable[[], None]) -> Callable[[], object]:
    return function


class TcpEndpoint:
    """See the module docstring.

    Args:
        identity: what we present and whom we trust.
        settings: limits and timers.
        alpn: protocols offered; a client that offers none is accepted, as in the reference.
        on_connection: gets every verified incoming connection; None: outgoing only.
        counters: where handshakes by outcome are counted.
    """

    def __init__(
        self,
        *,
        identity: TlsIdentity,
        settings: TcpSettings = TcpSettings(),  # noqa: B008  # frozen value
        alpn: tuple[str, ...] = ("orp/1",),
        on_connection: Callable[[Connection], object] | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        self.settings = settings
        self.on_connection = on_connection
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.accepting = on_connection is not None
        self._alpn = alpn
        self._listening: socket.socket | None = None
        self._read: Callable[[], object] = _nothing
        self._address: tuple[str, int] | None = None
        self._connections: set[YamuxConnection] = set()
        #: Handshakes of accepted connections, and where they come from.
        self._pending: dict[asyncio.Task[None], str] = {}
        self._sources: Counter[str] = Counter()
        self.reload(identity)

    # The socket.

    def attach(self, address: tuple[str, int], guard: Guard = _unguarded) -> tuple[str, int]:
        """Bind and listen. Returns the bound address.

        Port 0 takes the port of the previous attachment, or a free one.

        Args:
            guard: wraps the socket's callback: an unusable socket is its owner's failure.

        Raises:
            OSError: the address cannot be bound.
        """
        self.detach()
        host, port = address
        if port == 0 and self._address is not None:
            port = self._address[1]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self._listening = sock
        self._read = guard(self._acceptable)
        asyncio.get_running_loop().add_reader(sock, self._read)
        name = sock.getsockname()
        self._address = (name[0], name[1])
        return self._address

    def detach(self) -> None:
        """Close the socket; verified connections live on, handshakes in progress end."""
        sock, self._listening = self._listening, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        for task in list(self._pending):
            self.counters["handshake_detached"] += 1
            task.cancel()

    @property
    def address(self) -> tuple[str, int] | None:
        """The bound address, also while detached; None before the first `attach`."""
        return self._address

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this identity; live connections are not touched."""
        self._identity = identity
        self._server = server_context(identity, self._alpn, self.settings.key_log)
        self._client = client_context(identity, self._alpn, self.settings.key_log)

    def abort(self) -> None:
        """Close every connection and the socket; idempotent."""
        for connection in list(self._connections):
            connection.abort()
        self.detach()

    def statistics(self) -> TcpStatistics:
        """The counters as one tuple."""
        return TcpStatistics(len(self._connections), len(self._pending), dict(self.counters))

    # Accepting.

    def _acceptable(self) -> None:
        listening = self._listening
        for _ in range(ACCEPTS):
            if listening is None:
                return
            try:
                sock, name = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    self.counters["accept_failed"] += 1
                    continue  # that connection ended before we took it
                self.counters["out_of_descriptors"] += 1
                self._rest(listening)
                return
            self._accepted(sock, str(name[0]))

    def _rest(self, listening: socket.socket) -> None:
        """No descriptors: the kernel keeps what comes, and we do not spin."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def again() -> None:
            if self._listening is listening:
                loop.add_reader(listening, self._read)

        loop.call_later(EXHAUSTED_PAUSE, again)

    def _accepted(self, sock: socket.socket, source: str) -> None:
        settings = self.settings
        refusal = ""
        if not self.accepting:
            refusal = "not_accepting"
        elif len(self._pending) >= settings.max_pending:
            refusal = "pending_limit"
        elif self._sources[source] >= settings.max_pending_per_source:
            refusal = "pending_per_source_limit"
        if refusal:
            self.counters[f"refused_{refusal}"] += 1
            sock.close()
            return
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._shake_hands(sock))
        self._pending[task] = source
        self._sources[source] += 1
        task.add_done_callback(self._handshake_over)

    def _handshake_over(self, task: asyncio.Task[None]) -> None:
        source = self._pending.pop(task)
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    async def _shake_hands(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection = YamuxConnection(self.settings, client=False, on_ended=self._ended)
        try:
            await loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._server,
                ssl_handshake_timeout=self.settings.handshake_timeout,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        except (OSError, ssl.SSLError) as error:
            self.counters[f"handshake_failed_{_label(error)}"] += 1
            return  # the transport closed the socket
        refusal = self._verified(connection, CLIENT)
        if refusal:
            self.counters[f"refused_{refusal}"] += 1
            connection.abort()
            return
        self.counters["handshake_ok"] += 1
        self._connections.add(connection)
        (self.on_connection or _accept_nothing)(connection)

    def _verified(
        self,
        connection: YamuxConnection,
        purpose: x509.ObjectIdentifier,
        server_name: str | None = None,
    ) -> str:
        """Set who the peer is; else the reason why not."""
        tls = connection.tls
        if tls is None:
            return "absent"
        try:
            connection.peer = verify_peer(
                peer_chain(tls),
                self._identity.authorities,
                purpose=purpose,
                server_name=server_name,
            )
        except IdentityRejected as rejected:
            return rejected.slug
        except ValueError:
            return "malformed"
        connection.alpn = tls.selected_alpn_protocol() or ""
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
        try:
            async with asyncio.timeout(timeout):
                return await first_to_connect(
                    await resolve(*address),
                    lambda target: self._dial(target, server_name, timeout),
                    lambda late: late.close(0, ""),
                )
        except TimeoutError:
            raise DialFailed(CloseReason("handshake", text="timed out")) from None
        except OSError as error:
            text = str(error) if isinstance(error, socket.gaierror) else _label(error)
            raise DialFailed(CloseReason("handshake", text=text)) from None

    async def _dial(self, target: Target, server_name: str, timeout: float) -> Connection:
        """As `connect`, for one address; cancelled when its time is over."""
        sock = await connect_to(target)
        connection = YamuxConnection(self.settings, client=True, on_ended=self._ended)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                sock=sock,
                ssl=self._client,
                server_hostname=server_name,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        except BaseException:
            sock.close()
            raise
        refusal = self._verified(connection, SERVER, server_name)
        if refusal:
            connection.abort()
            raise DialFailed(CloseReason("handshake", text=refusal))
        self._connections.add(connection)
        return connection


def _label(error: Exception) -> str:
    """A short name of why a handshake failed; the names are few."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "unverified"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls").lower()
    return type(error).__name__.removesuffix("Error").lower()


def _nothing() -> None:
    """No socket."""
