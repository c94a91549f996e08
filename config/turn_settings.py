"""The settings of the TURN door: clients that need an address their peers can send to.

Sources: protocol sheet TURN 3.5 (times), 3.7 (abuse), 1.7 and coturn's options (names).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from config.rendezvous_settings import PortRange
from config.setting_types import LIVE, MEBIBYTE, Address, Seconds, TlsDoorRoom


def _network(text: str) -> str:
    return str(ip_network(text))


def _host(text: str) -> str:
    return str(ip_address(text))


Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]


class TurnSettings(TlsDoorRoom):
    """The TURN door: STUN and TURN for WebRTC, Firezone and whoever is behind a NAT."""

    wiring: ClassVar[str] = "actors.turn.wiring"

    listen: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description="UDP addresses for clients, usually 0.0.0.0:3478. Empty: none.",
    )
    listen_tcp: tuple[Address, ...] = Field(
        (), max_length=16, description="The same over TCP, usually 0.0.0.0:3478."
    )
    listen_tls: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description="The same over TLS, usually 0.0.0.0:5349 or :443.",
    )
    realm: str = Field(
        "trunkline",
        min_length=1,
        max_length=127,
        description="Realm of the credentials; keys are made with it.",
    )
    relay_addresses: tuple[Host, ...] = Field(
        (),
        max_length=2,
        description=(
            "IP addresses of ours that peers send to, one IPv4, one IPv6 or both. Empty: those of "
            "listen, or the one that the default route leaves from."
        ),
    )
    external_addresses: tuple[Host, ...] = Field(
        (),
        max_length=2,
        description=(
            "What the world sees instead of relay_addresses, behind a one-to-one NAT; at most one "
            "of each family. Empty: the same."
        ),
    )
    ports: PortRange = Field("49152-65535", description="Ports of relayed addresses, first-last.")
    users: dict[Annotated[str, StringConstraints(min_length=1, max_length=508)], SecretStr] = Field(
        {},
        description=(
            "Users who are always welcome: a table [turn.users] of name and password (in the "
            "environment and in --set: a JSON object). Read again by SIGHUP."
        ),
        json_schema_extra=LIVE,
    )
    secret_files: tuple[Path, ...] = Field(
        (),
        max_length=8,
        description=(
            "Files that hold one secret each, for time-limited users (REST API: name = expiry:id, "
            "password = base64(HMAC-SHA1(secret, name))). Several during a rotation. Read again "
            "by SIGHUP."
        ),
        json_schema_extra=LIVE,
    )
    allowed_peers: tuple[Network, ...] = Field(
        (),
        max_length=1024,
        description="Networks that clients may reach, whatever else is said here.",
        json_schema_extra=LIVE,
    )
    denied_peers: tuple[Network, ...] = Field(
        (),
        max_length=1024,
        description="Networks that clients may not reach, beside those of private_peers.",
        json_schema_extra=LIVE,
    )
    private_peers: Literal["deny", "allow"] = Field(
        "deny",
        description=(
            "deny = no client reaches loopback, private, link-local (cloud metadata) and other "
            "networks that are not public, in any spelling."
        ),
        json_schema_extra=LIVE,
    )
    default_lifetime_seconds: Seconds = Field(
        600.0, description="Of an allocation that is not refreshed; the least a client gets."
    )
    max_lifetime_seconds: Seconds = Field(3600.0, description="The most a client gets.")
    max_allocations: int = Field(
        10_000, ge=1, le=1_000_000, description="Of all clients; beyond: 508."
    )
    max_allocations_per_user: int = Field(
        64, ge=1, le=1_000_000, description="Of one user, without the expiry in its name; 486."
    )
    max_allocations_per_source: int = Field(
        1024, ge=1, le=1_000_000, description="Of one IP address of clients; beyond: 486."
    )
    max_permissions: int = Field(256, ge=1, le=65_535, description="Of one allocation.")
    max_channels: int = Field(256, ge=1, le=16_384, description="Of one allocation.")
    one_allocation_per_user: bool = Field(
        False, description="A new allocation of a user ends its old one, as Firezone has it."
    )
    mobility: bool = Field(
        True, description="Clients that change networks keep their allocation (RFC 8016)."
    )
    old_channel_numbers: bool = Field(
        False, description="Also take the channel numbers 0x5000 to 0x7FFF of RFC 5766."
    )
    alternates: tuple[Address, ...] = Field(
        (),
        max_length=2,
        description="Where new clients are sent while this relay drains (300 Try Alternate).",
    )
    software: str = Field(
        "", max_length=127, description="SOFTWARE of answers. Empty: none, which is safer."
    )
    nonce_seconds: Seconds = Field(3600.0, description="How long a nonce is good.")
    replies_per_second_per_source: float = Field(
        100.0,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description=(
            "Answers to strangers (Binding, 401) of one source address; more is silence, so that "
            "nobody is flooded through us. 0: no limit."
        ),
    )
    port_quarantine_seconds: float = Field(
        120.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="A freed port rests, so that late packets do not reach another client.",
    )
    max_streams: int = Field(
        10_000, ge=1, le=1_000_000, description="Clients over TCP and TLS, of one address."
    )
    max_streams_per_source: int = Field(
        256, ge=1, le=1_000_000, description="Of those, from one source address."
    )
    stream_deadline_seconds: Seconds = Field(
        30.0, description="A client over TCP or TLS must have an allocation by then."
    )
    stream_buffer_bytes: int = Field(
        MEBIBYTE // 4,
        ge=65_536,
        le=64 * MEBIBYTE,
        description="Data for a client over TCP that does not read; beyond, data is dropped.",
    )
    proxy_from: tuple[Network, ...] = Field(
        (),
        max_length=256,
        description="Networks of balancers: their TCP connections begin with a PROXY header.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_lifetime_seconds < self.default_lifetime_seconds:
            raise ValueError("max_lifetime_seconds is less than default_lifetime_seconds")
        return self
