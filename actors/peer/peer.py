"""One client: what it says, and what it is told. Without I/O of its own.

Source: protocol sheet peer 2.3, 3, 5, 9 W2, W4, W9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actors.peer.link import Link
from actors.transport.quic.rate_limit import RateLimit
from wire.peer.errors import BadMessage
from wire.peer.health import HealthCheck
from wire.peer.limits import HEADER, TRANSPORT
from wire.peer.messages import (
    FROM_CLIENT,
    VERSION,
    MessageType,
    decode_peers,
    encode_peers,
    id_text,
)

if TYPE_CHECKING:
    from actors.peer.context import PeerContext

_TRANSPORT: Final = MessageType.TRANSPORT
#: Bytes one unit of the rate limit stands for.
RATE_UNIT: Final = 1024


class Peer:
    """One client that showed a good token.

    Args:
        over: called when the client has to end, with why; one of few words.

    Attributes:
        id: 36 bytes.
        awaited, watched: IDs it wants to know of; see `Registry`.
        health: who asks whether it lives.
        since: when it came, monotonic seconds.
        path: place of its actor.
        last_sent: when its last Transport message came, monotonic seconds.
        messages_in, bytes_in, messages_out, bytes_out: Transport messages from it, and to it.
    """

    __slots__ = (
        "__weakref__",
        "_door",
        "_news",
        "_over",
        "_rate",
        "_stamp",
        "awaited",
        "bytes_in",
        "bytes_out",
        "health",
        "id",
        "last_sent",
        "link",
        "messages_in",
        "messages_out",
        "path",
        "since",
        "watched",
    )

    def __init__(
        self,
        door: PeerContext,
        peer_id: bytes,
        link: Link,
        health: HealthCheck,
        over: Callable[[str], object],
        path: str,
    ) -> None:
        self.since = door.clock()
        self.path = path
        self.id = peer_id
        self.link = link
        self.health = health
        self.awaited: set[bytes] = set()
        self.watched: set[bytes] = set()
        self.last_sent = 0.0
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0
        self._door = door
        self._over = over
        self._stamp = bytes((VERSION, _TRANSPORT)) + peer_id
        self._news: list[tuple[MessageType, bytes]] = []
        rate = door.settings.bytes_per_second
        self._rate = RateLimit(max(1.0, rate / RATE_UNIT)) if rate else None

    @property
    def text(self) -> str:
        """Its ID for people."""
        return id_text(self.id)

    def end(self, why: str) -> None:
        """It has to go."""
        self._over(why)

    def row(self) -> dict[str, str | int | float]:
        """For operators."""
        return {
            "peer": self.text,
            "transport": self.link.transport,
            "source": self.link.source,
            "messages_in": self.messages_in,
            "bytes_in": self.bytes_in,
            "messages_out": self.messages_out,
            "bytes_out": self.bytes_out,
            "queued": self.link.queued,
            "subscriptions": len(self.watched),
        }

    def received(self, messages: list[bytes]) -> None:
        """Messages that came together, oldest first."""
        door = self._door
        peers, drops, before = door.registry.peers, door.drops, self.messages_in
        for message in messages:
            if message[:2] != b"\x01\x03":
                if self._other(message):
                    continue
                break
            size = len(message)
            if size < TRANSPORT:
                drops["short"] += 1
                continue
            self.messages_in += 1
            self.bytes_in += size
            door.received += size
            if self._rate is not None and not self._within_rate(size):
                drops["rate"] += 1
                continue
            to = peers.get(message[HEADER:TRANSPORT])
            if to is None:
                drops["absent"] += 1
                continue
            why = to.link.deliver(self._stamp, message)
            if why:
                drops[why] += 1
                continue
            to.messages_out += 1
            to.bytes_out += size
            door.sent += size
        if self.messages_in != before:
            self.last_sent = door.clock()
        door.flush()

    def _within_rate(self, size: int) -> bool:
        assert self._rate is not None
        now = self._door.clock()
        return all(self._rate.take(now) for _ in range(-(-size // RATE_UNIT)))

    def _other(self, message: bytes) -> bool:
        """A message that is no Transport. False: the client is over."""
        if len(message) < HEADER or message[0] != VERSION or message[1] not in FROM_CLIENT:
            self._over("bad_message")
            return False
        kind = message[1]
        if kind == MessageType.HEALTH_CHECK:
            self.health.answered()
        elif kind == MessageType.CLOSE:
            self._over("closed_by_peer")
            return False
        elif kind in (MessageType.SUBSCRIBE, MessageType.UNSUBSCRIBE):
            self._subscription(kind, message)
        return True  # a second Auth or a Hello changes nothing

    def _subscription(self, kind: int, message: bytes) -> None:
        try:
            wanted = decode_peers(message)
        except BadMessage as bad:
            self._door.events[bad.label] += 1
            return
        if kind == MessageType.UNSUBSCRIBE:
            self._door.registry.unsubscribe(self, wanted)
            return
        here = self._door.registry.subscribe(self, wanted)
        if here:
            self.tell_now()
            self._list(MessageType.PEERS_ONLINE, here)

    def tell(self, kind: MessageType, peer_id: bytes) -> None:
        """News of a peer; what comes up in one turn of the loop leaves together, in order."""
        if not self._news:
            self._door.system.loop.call_soon(self.tell_now)
        self._news.append((kind, peer_id))

    def tell_now(self) -> None:
        """Send what there is to tell."""
        news, self._news = self._news, []
        at = 0
        while at < len(news):
            kind, end = news[at][0], at
            while end < len(news) and news[end][0] is kind:
                end += 1
            self._list(kind, [peer_id for _, peer_id in news[at:end]])
            at = end

    def _list(self, kind: MessageType, peers: list[bytes]) -> None:
        for message in encode_peers(kind, peers, self.link.most_ids):
            self.link.send(message)
