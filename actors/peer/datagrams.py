"""A client over QUIC: a message is a DATAGRAM frame, and may be lost.

Source: protocol sheet peer 1.3, 9 W17, W18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from actors.peer.arrival import admit
from actors.peer.context import PeerContext
from actors.peer.websocket import MAX_EARLY
from actors.runtime import Actor
from actors.transport.addresses import address_text
from actors.transport.connection import Connection
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import CloseReason
from actors.transport.tls import TlsIdentity
from wire.peer.limits import MAX_IDS_DATAGRAM, MAX_MESSAGE, TRANSPORT
from wire.peer.messages import MessageType

ALPN: Final = "nb-quic"
SETTINGS: Final = QuicSettings(
    idle_timeout=30.0, keepalive=0.0, max_streams=0, max_datagram_frame=16_383
)
#: Told once more after so long, if the client may have lost it.
AGAIN_SECONDS: Final = 0.5
#: Of a close, as clients know it.
_REASON: Final = "normal closure"
_REPEATED: Final = frozenset(
    {MessageType.AUTH_RESPONSE, MessageType.PEERS_ONLINE, MessageType.PEERS_WENT_OFFLINE}
)


def make_endpoint(door: PeerContext, identity: TlsIdentity) -> QuicEndpoint:
    """Made once per process; its sockets belong to the listener."""
    return QuicEndpoint(
        alpn=(ALPN,),
        identity=identity,
        settings=SETTINGS,
        peer_policy=PeerPolicy.SERVER_ONLY,
        counters=door.events,
        until_welcome=True,
    )


class DatagramListener(Actor):
    """The UDP side of the first address; connections outlive it."""

    def __init__(
        self, door: PeerContext, endpoint: QuicEndpoint, address: Callable[[], tuple[str, int]]
    ) -> None:
        self._door, self._endpoint, self._where = door, endpoint, address

    def init(self) -> None:
        """Bind."""
        self._endpoint.on_connection = self.guard("accept", self._take)
        self._endpoint.accepting = not self._door.draining
        self._endpoint.attach(self._endpoint.address or self._where(), self.guard)
        self.own(self, "socket")
        self.log.info("listening on {} (QUIC, peer)", address_text(*self._where()))

    def abort(self) -> None:
        """The actor's resource: the socket."""
        self._endpoint.detach()

    def _take(self, connection: Connection) -> None:
        client = DatagramClient(self._door, connection)
        connection.on_datagrams = self.guard("datagrams", client.take)
        connection.on_closed = self.guard("connection", client.closed)
        connection.start()


class DatagramClient:
    """A client over QUIC; see `Client`."""

    transport = "quic"
    most_ids = MAX_IDS_DATAGRAM

    def __init__(self, door: PeerContext, connection: Connection) -> None:
        self.source = address_text(*connection.remote_address)
        self._door = door
        self._connection = connection
        self._admitted = False
        self._over = False
        self._early: list[bytes] = []
        self._received: Callable[[list[bytes]], object] | None = None
        self._lost: Callable[[str], object] | None = None
        loop = door.system.loop
        self._deadline = loop.call_later(door.settings.auth_deadline, self._late)

    def _late(self) -> None:
        self._door.events["handshake_failed_timeout"] += 1
        self.close()

    def take(self, messages: list[bytes]) -> None:
        """What came together."""
        if self._over:
            return
        if any(len(message) > MAX_MESSAGE for message in messages):
            messages = [message for message in messages if len(message) <= MAX_MESSAGE]
            self._door.drops["too_large"] += 1
        if self._received is not None:
            self._received(messages)
            return
        if not self._admitted and messages:
            self._deadline.cancel()
            if not admit(self._door, self, messages[0]):
                self.close()
                return
            self._admitted = True
            self._connection.welcome()
            messages = messages[1:]
        self._early += messages[: MAX_EARLY - len(self._early)]

    def closed(self, reason: CloseReason) -> None:
        """The connection is over."""
        self._end("lost" if reason.kind in ("peer", "local") else str(reason.kind))

    def begin(
        self, received: Callable[[list[bytes]], object], lost: Callable[[str], object]
    ) -> None:
        if self._over:
            lost("lost")
            return
        self._received, self._lost = received, lost
        if self._early:
            early, self._early = self._early, []
            received(early)

    def send(self, message: bytes) -> None:
        if not self._connection.send_datagram(message):
            self._door.drops["too_large"] += 1
        elif message[1] in _REPEATED:
            self._door.system.loop.call_later(AGAIN_SECONDS, self._again, message)

    def _again(self, message: bytes) -> None:
        if not self._over:
            self._connection.send_datagram(message)

    def deliver(self, sender: bytes, message: bytes) -> str:
        if self._over:
            return "closing"
        if len(message) > self._connection.largest_datagram:
            return "too_large"
        self._connection.send_datagram(sender + message[TRANSPORT:])
        return ""

    def flush(self) -> None:
        """The endpoint gathers what leaves together."""

    @property
    def queued(self) -> int:
        return 0

    def close(self) -> None:
        if not self._over:
            self._connection.close(0, _REASON)
            self._end("closed")

    def abort(self) -> None:
        self._lost = None
        self.close()

    def _end(self, why: str) -> None:
        self._over = True
        self._deadline.cancel()
        self._received = None
        self._early.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(why)
