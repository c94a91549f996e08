"""The tunnel of a forward stream: QUIC from agent to agent through a relay's forward plane.

One UDP socket, one connection, one stream. What leaves carries the peer's allocation in front; what
arrives is bare. The registration is repeated: a single one can be lost, and later ones keep the
address alive at NATs and tell the relay when it changed.

The consumer is the QUIC client and opens the stream; the provider is the server and takes exactly
one connection, of the agent that INCOMING_STREAM named. It learns of the stream with its first
bytes, so in forward mode the consumer's side has to speak first.

Source: protocol sheet ORP 3.5, 1.3, 1.5, 2.4; 6.3 F4; 6.5 A8, A11, A12.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from actors.runtime import Guard
from actors.transport.connection import Connection
from actors.transport.quic import DialFailed, QuicEndpoint, QuicSettings
from actors.transport.stream import Stream
from actors.transport.tls import TlsIdentity
from actors.transport.udp import Address, PrefixedSocket
from wire.orp.forward_datagram import PREFIX, encode_registration
from wire.orp.identity import AgentUri, IdentityError, parse_identity
from wire.orp.messages import AllocGranted

ALPN = "outrelay-fwd/1"
#: Sheet 1.5, forward tunnel. One connection and one stream are all that is wanted.
SETTINGS = QuicSettings(
    idle_timeout=45.0, keepalive=15.0, handshake_timeout=30.0, max_streams=1, max_pending=8
)
#: Seconds from the grant to the tunnel's stream (sheet 6.5 A12).
BRING_UP = 30.0
#: Seconds between registrations: at first, until the tunnel is up, and from then on. A relay that
#: lost a part of itself may have lost the address, too, and a provider sends nothing by itself.
REGISTER_FIRST = 0.05
REGISTER_OPENING = 0.5
REGISTER_OPEN = 15.0


class TunnelFailed(Exception):
    """The tunnel did not come up; the text says why."""


class ForwardTunnel:
    """The tunnel of a forward stream: QUIC from agent to agent through a relay's forward plane. A
    resource: `abort` closes everything.

    Args:
        identity: what we present, and whom we trust.
        granted: our ALLOC_GRANTED.
        guard: wraps callbacks (`Actor.guard`).
        peer_uri: as the provider, the consumer that may connect; empty as the consumer.
        provider: as the consumer, who must answer; empty, where the relay does not say: any agent
            of the own tenant.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        granted: AllocGranted,
        guard: Guard,
        *,
        peer_uri: str = "",
        provider: str = "",
    ) -> None:
        self._identity = identity
        self._granted = granted
        self._guard = guard
        self._peer_uri = peer_uri
        self._provider = provider
        self._relay = _literal(granted.forward_endpoint)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._registered = 0
        self._socket: PrefixedSocket | None = None
        self._connection: Connection | None = None
        self._stream: asyncio.Future[Stream] = self._loop.create_future()
        self._endpoint = QuicEndpoint(
            identity=identity,
            settings=SETTINGS,
            alpn=(ALPN,),
            on_connection=guard("tunnel", self._admit) if peer_uri else None,
            make_socket=self._make_socket,
        )

    def _make_socket(
        self,
        sock: socket.socket,
        on_batch: Callable[[memoryview, int, Address], None],
        **rest: object,
    ) -> PrefixedSocket:
        made = PrefixedSocket(sock, on_batch, **rest)  # type: ignore[arg-type]  # the endpoint's
        made.prefix = PREFIX.pack(self._granted.peer_allocation)
        self._socket = made
        return made

    async def open(self) -> Stream:
        """Bring the tunnel up. Returns its stream, not started.

        Raises:
            TunnelFailed: not within `BRING_UP` seconds, or with the wrong peer.
        """
        wildcard = "::" if ":" in self._relay[0] else "0.0.0.0"
        try:
            self._endpoint.attach((wildcard, 0))
            self._register()
            if not self._peer_uri:
                await self._dial()
            async with asyncio.timeout(BRING_UP):
                return await self._stream
        except TimeoutError:
            raise TunnelFailed("timed out") from None
        except (DialFailed, OSError) as error:
            raise TunnelFailed(str(error)) from None

    async def _dial(self) -> None:
        """As the consumer: connect and open the stream, unless given up meanwhile."""
        dialling = asyncio.create_task(self._endpoint.connect(self._relay, timeout=BRING_UP))
        either: set[asyncio.Future[Any]] = {dialling, self._stream}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._stream.done():
                return
            self._connection = connection = dialling.result()
        finally:
            dialling.cancel()
            await asyncio.wait({dialling})
            if not dialling.cancelled():
                dialling.exception()  # given up: what came of it does not matter
        uri = connection.peer.uri
        if not self._same_tenant(uri) or uri != (self._provider or uri):
            raise TunnelFailed(f"{uri} is not the provider")
        connection.start()
        stream = connection.open_stream()
        if stream is None:
            raise TunnelFailed("no stream credit")
        self._stream.set_result(stream)

    @property
    def closed(self) -> bool:
        """True once the connection ended."""
        return self._connection is not None and self._connection.closed is not None

    def close(self) -> None:
        """Everything arrived: end the connection in order, then let go."""
        if self._connection is not None:
            self._connection.close(0, "")
        self.abort()

    def abort(self) -> None:
        """Close the connection and the socket; whoever waits in `open` is told. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._stream.done():
            self._stream.set_exception(TunnelFailed("given up"))
            self._stream.exception()  # nobody may be waiting
        self._endpoint.abort()
        self._socket = None

    def _register(self) -> None:
        """Tell the relay where we are, now and again."""
        if self._socket is None:
            return
        self._socket.send_bare(encode_registration(self._granted.my_allocation), self._relay)
        if self._stream.done():
            pause = REGISTER_OPEN
        else:
            pause = REGISTER_OPENING if self._registered else REGISTER_FIRST
        self._registered += 1
        self._timer = self._loop.call_later(pause, self._guard("registration", self._register))

    def _admit(self, connection: Connection) -> None:
        """As the provider: exactly one connection, of the agent we were told of."""
        if connection.peer.uri != self._peer_uri or self._connection is not None:
            connection.close(0, "")
            return
        self._connection = connection
        self._endpoint.accepting = False
        connection.on_stream = self._guard("tunnel", self._accept)
        connection.start()

    def _accept(self, stream: Stream) -> None:
        if self._stream.done():
            stream.abort()
        else:
            self._stream.set_result(stream)

    def _same_tenant(self, uri: str) -> bool:
        try:
            peer, own = parse_identity(uri), parse_identity(self._identity.uri)
        except IdentityError:
            return False
        return (
            isinstance(peer, AgentUri) and isinstance(own, AgentUri) and peer.tenant == own.tenant
        )


def _literal(endpoint: str) -> tuple[str, int]:
    """An IP literal and a port; names are not looked up.

    Raises:
        TunnelFailed: anything else.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise TunnelFailed("the forward endpoint is no address") from None
    if address.is_unspecified or not 0 < number < 65536:
        raise TunnelFailed("the forward endpoint cannot be reached")
    return str(address), number
