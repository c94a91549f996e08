"""The settings of the rendezvous door: services that register for a port, and their users.

Sources: protocol sheet rendezvous 1.4 (ports), 1.7 (limits), 1.8 (defaults), 5.6 (what users of
such relays ask for).
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from config.setting_types import MEBIBYTE, Address, OptionalPath, Seconds, TlsDoorRoom


def _network(text: str) -> str:
    return str(ip_network(text))


def parse_range(text: str) -> range:
    """Ports written as one number or as `first-last`.

    Raises:
        ValueError: it is neither.
    """
    first, dash, last = text.partition("-")
    ports = range(int(first), int(last if dash else first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ValueError("ports are 1 to 65535, the first not above the last")
    return ports


def _range(text: str) -> str:
    parse_range(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
PortRange = Annotated[
    str, StringConstraints(pattern=r"^\d{1,5}(-\d{1,5})?$"), AfterValidator(_range)
]
#: 0 turns a limit in time off.
SecondsOrNever = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


class RendezvousSettings(TlsDoorRoom):
    """The rendezvous door: TCP services that register for a port here, and their users."""

    wiring: ClassVar[str] = "actors.rendezvous.wiring"

    listen: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description=(
            "Addresses where services register, usually 0.0.0.0:1234. Their users come to the "
            "ports above the first one's, at the same host. Empty: the door is closed."
        ),
    )
    user_host: str = Field(
        "", max_length=253, description="Where users come to. Empty: the host of listen."
    )
    ports: tuple[PortRange, ...] = Field(
        (),
        max_length=256,
        description=(
            "Ports that services may have, as 8000-8999 or 8080, whether they ask for one or not. "
            "Empty: all above the port of listen."
        ),
    )
    require_auth: bool = Field(
        False, description="Only services with a token (or a client certificate) may register."
    )
    tokens: OptionalPath = Field(
        None,
        description=(
            "TOML file of clients: name, SHA-256 of the token, and what they may do. Read again "
            "by SIGHUP. Empty: nobody has a token."
        ),
    )
    tls: Literal["off", "on", "required"] = Field(
        "off",
        description=("on = services may speak TLS on the same port, required = they must."),
    )
    client_certificates: Literal["off", "required"] = Field(
        "off", description="required = TLS needs a client certificate that node.tls.ca vouches for."
    )
    visitors: tuple[Network, ...] = Field(
        (),
        max_length=1024,
        description="Networks users may come from. Empty: from anywhere.",
    )
    proxy_from: tuple[Network, ...] = Field(
        (),
        max_length=256,
        description=(
            "Networks of balancers in front of us: their connections must begin with a PROXY "
            "header, and count as those of the source it names."
        ),
    )
    handshake_deadline_seconds: Seconds = Field(
        10.0, description="From the connection to its complete first lines."
    )
    max_pending_handshakes: int = Field(
        1024, ge=1, le=100_000, description="Connections at the gate at a time."
    )
    max_pending_handshakes_per_source: int = Field(
        128, ge=1, le=100_000, description="Of those, from one source address."
    )
    user_wait_seconds: Seconds = Field(
        10.0, description="A user waits so long for a connection of the service."
    )
    max_waiting_users: int = Field(
        1024, ge=1, le=100_000, description="Users of one service that wait."
    )
    max_pool_members: int = Field(
        1024, ge=1, le=100_000, description="Idle connections of one pool."
    )
    pool_grace_seconds: Seconds = Field(
        30.0, description="A pool without members and users keeps its port so long."
    )
    keepalive_seconds: Seconds = Field(
        30.0, description="A service that is silent for so long is asked whether it lives."
    )
    keepalive_deadline_seconds: Seconds = Field(
        10.0, description="It is taken for dead when it does not answer for so long."
    )
    half_closed_seconds: SecondsOrNever = Field(
        300.0, description="A user whose one direction ended, and that is quiet, ends. 0: never."
    )
    idle_seconds: SecondsOrNever = Field(
        0.0, description="A user that is quiet for so long is ended. 0: never."
    )
    stall_seconds: Seconds = Field(
        60.0,
        description=(
            "Multiplex: a service that ended a stream and reads nothing of it for so long is gone."
        ),
    )
    port_quarantine_seconds: SecondsOrNever = Field(
        30.0,
        description="A freed port is kept so long for the source that had it.",
    )
    name_seconds: SecondsOrNever = Field(
        86_400.0,
        description="The port of a named service with a token is kept for it so long.",
    )
    max_services: int = Field(10_000, ge=1, le=60_000, description="Registered at a time.")
    max_services_per_source: int = Field(
        256, ge=1, le=60_000, description="Of those, without a token, from one source address."
    )
    max_services_per_client: int = Field(
        256, ge=1, le=60_000, description="Of those, with one client's token."
    )
    max_users_per_service: int = Field(
        10_000, ge=1, le=1_000_000, description="Users of one service, waiting ones included."
    )
    max_users_per_source: int = Field(
        1024, ge=1, le=1_000_000, description="Of those, from one source address."
    )
    max_new_users_per_second: int = Field(
        5000, ge=1, le=1_000_000, description="Users of one service that come in a second."
    )
    max_service_bytes_per_second: int = Field(
        0, ge=0, le=1_000_000_000_000, description="Of one service, both directions. 0: no limit."
    )
    stream_window_bytes: int = Field(
        262_144,
        ge=262_144,
        le=16 * MEBIBYTE,
        description=(
            "Multiplex: unread bytes of one stream; services that ask for another window get it. "
            "The default is what the protocol implies, and what every service knows."
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.require_auth and self.tokens is None and self.client_certificates == "off":
            raise ValueError("require_auth needs tokens or client_certificates = required")
        if self.client_certificates == "required" and self.tls == "off":
            raise ValueError("client_certificates = required needs tls = on or required")
        return self
