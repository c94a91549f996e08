"""Settings of the way to and from other relays: plain values, seconds and counts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How this relay meets others.

    Attributes:
        relay_id: of this relay, as the controller knows it.
        accept: ids (from the certificate) of relays whose streams are taken in; "*": every relay
            the CA vouches for.
        known: endpoints of relays the controller need not name, by id.
        server_name: DNS name in other relays' certificates.
        check_id: a dialled relay must have the id in its certificate that the controller knows it
            by; False for relays whose id is not the one in their certificate.
        dial_timeout: for the handshake with another relay.
        backoff, backoff_cap: after a failed dial no other is tried for so long, doubling.
        idle: a link nobody used for so long is closed.
        max_connections: to one relay; one more is dialled when the stream credit of all is used.
        max_links: relays linked at a time.
        refresh: the list of relays is asked of the controller so often; six times less while it
            stays the same.
        offer_after: a stream that waits for its agent's return is offered to other relays then.
    """

    relay_id: str = ""
    accept: frozenset[str] = frozenset()
    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    server_name: str = "localhost"
    check_id: bool = True
    dial_timeout: float = 5.0
    backoff: float = 0.1
    backoff_cap: float = 5.0
    idle: float = 120.0
    max_connections: int = 4
    max_links: int = 1024
    refresh: float = 5.0
    offer_after: float = 0.3
