"""What the actors of the door share: settings, who is here, counters. Outlives all of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.peer.link import Link
from actors.peer.registry import Registry
from actors.peer.settings import PeerSettings
from actors.runtime import ActorRef, ActorSystem
from actors.transport.refusal_log import RefusalLog
from wire.peer.messages import encode_auth_response
from wire.peer.token import check_token, key_of

#: Reasons that are counted from the start.
DROPS = ("queue_full", "absent", "too_large", "rate", "short", "closing")
AUTH_FAILURES = (
    "legacy_hello",
    "auth_expected",
    "bad_signature",
    "expired",
    "malformed_token",
    "unknown_algorithm",
)


def _untold(_: StreamRecord) -> None:
    """No access log is kept."""


class PeerContext:
    """What the actors of the door share: settings, who is here, counters.

    Args:
        url: what this relay calls itself.
        secrets: any of them may have signed a token.
        place: finds the supervisor of the connections.

    Attributes:
        registry: who is connected, and who wants to know.
        answer: what a client that may come in gets.
        dirty: links that have something to flush.
        received, sent: bytes of Transport messages.
        sources: connections of each source.
        lingering: transports that say goodbye.
    """

    def __init__(
        self,
        system: ActorSystem,
        settings: PeerSettings,
        *,
        url: str,
        secrets: Sequence[str],
        place: Callable[[], ActorRef],
        meters: Meters | None = None,
        relay: str = "",
    ) -> None:
        self.system = system
        self.settings = settings
        self.place = place
        self.meters = meters or Meters()
        self.relay = relay
        self.url = url
        self.answer = encode_auth_response(url)
        self.clock = system.loop.time
        self.access_log: Callable[[StreamRecord], object] = _untold
        self.draining = False
        self.dirty: list[Link] = []
        self.lingering: set[Any] = set()
        self.refusals = RefusalLog("peer clients")
        self.received = 0
        self.sent = 0
        self.sources: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.drops = self.meters.family("relay_transport_drops_total", "reason", DROPS)
        self.auth_failures = self.meters.family(
            "relay_auth_failures_total", "reason", AUTH_FAILURES
        )
        self.ended = self.meters.family("relay_connections_ended_total", "reason")
        self.events = self.meters.family("relay_events_total", "event")
        self.registry = Registry(settings.max_subscriptions, self.events)
        self.set_secrets(secrets)
        self._count()

    def set_secrets(self, secrets: Sequence[str]) -> None:
        """From now on any of these may have signed a token."""
        self._keys = tuple(key_of(secret) for secret in secrets)

    def check(self, token: bytes) -> int:
        """When a token expires, Unix seconds.

        Raises:
            BadToken: it is none of ours, or over.
        """
        return check_token(token, self._keys, time.time())

    def flush(self) -> None:
        """Hand over what was collected for the kernel."""
        dirty = self.dirty
        for link in dirty:
            link.flush()
        dirty.clear()

    def _count(self) -> None:
        meters = self.meters
        meters.gauge("relay_peers", lambda: len(self.registry.peers))
        for transport in ("ws", "quic"):
            meters.gauge(f"relay_peers_{transport}", lambda t=transport: self.connections[t])  # type: ignore[misc]
        meters.gauge("relay_peers_active", lambda: self.registry.active(self.clock()))
        meters.gauge(
            "relay_peers_idle",
            lambda: len(self.registry.peers) - self.registry.active(self.clock()),
        )
        meters.gauge("relay_subscriptions", lambda: self.registry.subscriptions)
        meters.gauge(
            "relay_queued_bytes", lambda: sum(p.link.queued for p in self.registry.peers.values())
        )
        meters.totals["relay_transfer_received_bytes_total"] = lambda: self.received
        meters.totals["relay_transfer_sent_bytes_total"] = lambda: self.sent
        meters.totals["relay_peer_reconnections_total"] = lambda: self.registry.replaced
