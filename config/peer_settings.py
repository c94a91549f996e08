"""The settings of the peer door: clients of openZro and NetBird, and what they may use.

Sources: protocol sheet peer 1.4 (address), 4 (health), 8.1 (what the originals have), 9 (limits).
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from config.setting_types import MEBIBYTE, Address, DoorRoom, Seconds


def _network(text: str) -> str:
    return str(ip_network(text))


Network = Annotated[str, AfterValidator(_network)]


class PeerSettings(DoorRoom):
    """The peer door: messages between clients of openZro and NetBird."""

    wiring: ClassVar[str] = "actors.peer.wiring"

    listen: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description="Addresses for clients, usually 0.0.0.0:443. Empty: the door is closed.",
    )
    exposed_address: str = Field(
        "",
        max_length=1024,
        description=(
            "What clients reach this relay by: host:port, or rels://host:port. All pods of one "
            "relay say the same."
        ),
    )
    secret_files: tuple[Path, ...] = Field(
        (),
        max_length=16,
        description=(
            "Files with the auth secret of a management server, one each; tokens of all are good. "
            "Read again by SIGHUP."
        ),
    )
    tls: Literal["off", "on"] = Field(
        "off", description="on = clients speak TLS, with the certificate of node.tls."
    )
    same_origin: bool = Field(
        False, description="Browsers are taken from our own host only, as by openZro."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        max_length=256,
        description="Networks whose X-Real-Ip and X-Real-Port headers are believed.",
    )
    proxy_from: tuple[Network, ...] = Field(
        (),
        max_length=256,
        description="Networks of balancers: their connections must begin with a PROXY header.",
    )
    auth_deadline_seconds: Seconds = Field(10.0, description="From the connection to a good token.")
    max_pending_handshakes: int = Field(
        1024, ge=1, le=100_000, description="Connections at the gate at a time."
    )
    max_pending_handshakes_per_source: int = Field(
        128, ge=1, le=100_000, description="Of those, from one source address."
    )
    max_peers: int = Field(50_000, ge=1, le=1_000_000, description="Connected at a time.")
    max_peers_per_source: int = Field(
        10_000, ge=1, le=1_000_000, description="Of those, from one source address."
    )
    max_subscriptions_per_peer: int = Field(
        10_000, ge=1, le=1_000_000, description="Peers that one peer wants to know of."
    )
    queue_bytes: int = Field(
        262_144,
        ge=8820,
        le=64 * MEBIBYTE,
        description="What waits for one slow peer. Newer messages to it are dropped, and counted.",
    )
    max_queue_messages: int = Field(256, ge=1, le=65_536, description="The same, in messages.")
    write_deadline_seconds: Seconds = Field(
        10.0, description="A peer that takes nothing for so long is gone."
    )
    max_peer_bytes_per_second: int = Field(
        0, ge=0, le=1_000_000_000_000, description="Of messages from one peer. 0: no limit."
    )
    health_interval_seconds: Seconds = Field(
        20.0, description="A peer is asked so often whether it lives. Clients expect at most 30."
    )
    health_timeout_seconds: Seconds = Field(25.0, description="It may answer so much later.")
    max_health_attempts: int = Field(
        1, ge=1, le=100, description="It is gone after so many questions without an answer."
    )
    drain_spread_seconds: Seconds = Field(
        3.0, description="At the end peers are told to go over so long, not all at once."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.listen and not self.exposed_address:
            raise ValueError("listen needs exposed_address: what clients reach this relay by")
        if self.listen and not self.secret_files:
            raise ValueError("listen needs secret_files: a file with the auth secret")
        return self
