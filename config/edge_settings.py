"""The settings of the edge: the ORP door, its forward plane, and the way to other relays.

Sources: protocol sheet orp 1.1 (names), 1.5 (QUIC parameters), 3.14 (timers, ports), 6.1 R9-R11
(deadlines and stream limits).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from config.control_settings import ServerName
from config.endpoint import Endpoint
from config.setting_types import (
    KIBIBYTE,
    MEBIBYTE,
    Address,
    DoorRoom,
    Name,
    OptionalAddress,
    RelayName,
    Room,
    Seconds,
)


class ForwardSettings(Room):
    """The UDP forward plane: streams whose policy says relay_mode = forward."""

    listen: OptionalAddress = Field(
        None,
        description=(
            "UDP address of the plane, usually 0.0.0.0:9443; port 0 takes a free one. Empty: "
            "no forward plane, and streams that need one are refused."
        ),
    )
    advertise: OptionalAddress = Field(
        None,
        description=(
            "Address told to the agents, an IP literal (they look no names up); port 0 means the "
            "port of listen. Empty: the address of listen or, when that is a wildcard, the one "
            "this machine has towards the agent."
        ),
    )
    idle_timeout_seconds: Seconds = Field(
        60.0, description="An allocation pair that hears nothing for this long ends."
    )
    max_streams: int = Field(
        32_768, ge=1, le=1_000_000, description="Forward streams at a time, two ids each."
    )
    check_source: bool = Field(
        True,
        description=(
            "Datagrams of an allocation must come from the IP address its agent is connected "
            "from. false for agents whose NAT uses several addresses."
        ),
    )
    invented_ids: bool = Field(
        False,
        description=(
            "Also serve ids nobody granted, without any check of their source. For closed labs "
            "only: anybody can use the relay to send datagrams."
        ),
    )

    @model_validator(mode="after")
    def _literal(self) -> Self:
        for name in ("listen", "advertise"):
            endpoint = getattr(self, name)
            if endpoint is None:
                continue
            try:
                literal = ip_address(endpoint.host)
            except ValueError:
                raise ValueError(f"{name} needs an IP address, not {endpoint.host!r}") from None
            if name == "advertise" and literal.is_unspecified:
                raise ValueError("advertise must be an address agents can reach, not a wildcard")
        return self


class RelaysSettings(Room):
    """Streams to and from other relays."""

    accept: tuple[RelayName, ...] = Field(
        (),
        max_length=10_000,
        description=(
            "Ids of relays whose streams are taken in, as in their certificates; * = every relay "
            "the CA vouches for. Empty: none; streams to other relays need no entry here."
        ),
    )
    server_name: ServerName = Field(
        "localhost", description="DNS name other relays' certificates must have."
    )
    check_id: bool = Field(
        True,
        description=(
            "A relay we dial must have the id in its certificate that the controller knows it by. "
            "false for relays whose id is free text."
        ),
    )
    dial_deadline_seconds: Seconds = Field(
        5.0, description="For the handshake with another relay; then 502."
    )
    idle_timeout_seconds: Seconds = Field(
        120.0, description="A link to another relay that nobody uses for this long is closed."
    )
    max_connections: int = Field(
        4,
        ge=1,
        le=64,
        description="Connections to one other relay; a further one when stream credit is used up.",
    )


class EdgeSettings(DoorRoom):
    """The ORP door: listeners, deadlines and limits."""

    wiring: ClassVar[str] = "actors.edge.wiring"

    listen: tuple[Address, ...] = Field(
        (Endpoint("127.0.0.1", 7443),),
        min_length=1,
        max_length=16,
        description=(
            "UDP addresses for QUIC, host:port or [ipv6]:port; port 0 takes a free one. [::] takes "
            "IPv4 as well, unless an IPv4 address with its port is listed, too."
        ),
    )
    listen_tcp: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description="TCP addresses for agents whose network lets no UDP through: TLS and yamux.",
    )
    advertise: OptionalAddress = Field(
        None,
        description=(
            "Address other relays reach this one at. Empty: the first of listen that is neither "
            "a wildcard nor link-local."
        ),
    )
    tenants: tuple[Name, ...] = Field(
        (),
        max_length=10_000,
        description="Tenants whose agents may connect. Empty: every tenant the CA vouches for.",
    )
    handshake_deadline_seconds: Seconds = Field(
        5.0, description="From the first packet of a connection to the end of its TLS handshake."
    )
    hello_deadline_seconds: Seconds = Field(5.0, description="From the handshake to a valid HELLO.")
    first_frame_deadline_seconds: Seconds = Field(
        10.0, description="From a new stream to its complete first frame."
    )
    register_deadline_seconds: Seconds = Field(
        5.0, description="For the registry to confirm a REGISTER; then the connection is closed."
    )
    judge_registers: bool = Field(
        False,
        description=(
            "A service may be provided only by agents that a rule allows it to, with the method "
            "REGISTER. Off: any agent of a tenant may provide any name, as with OutRelay."
        ),
    )
    resolve_deadline_seconds: Seconds = Field(
        5.0, description="For the registry to answer who provides a service; then 404."
    )
    policy_deadline_seconds: Seconds = Field(
        5.0, description="For a policy decision; then the stream is refused (never allowed)."
    )
    incoming_deadline_seconds: Seconds = Field(
        5.0, description="To open the stream to the provider when its stream credit is used up."
    )
    accept_deadline_seconds: Seconds = Field(
        10.0, description="From INCOMING_STREAM to STREAM_ACCEPT or STREAM_REJECT of the provider."
    )
    idle_timeout_seconds: Seconds = Field(
        10.0, description="QUIC max_idle_timeout; the smaller of both sides counts."
    )
    keepalive_seconds: Seconds = Field(
        3.0, description="PING interval on an idle connection; must be below half the timeout."
    )
    stream_window_bytes: int = Field(
        1 * MEBIBYTE,
        ge=16 * KIBIBYTE,
        le=64 * MEBIBYTE,
        description="Most bytes held for one direction of one stream whose reader stalls.",
    )
    connection_window_bytes: int = Field(
        16 * MEBIBYTE,
        ge=4 * MEBIBYTE,
        le=1024 * MEBIBYTE,
        description="Most bytes held for all streams of one connection; then all of them wait.",
    )
    tcp_unread_bytes: int = Field(
        256 * MEBIBYTE,
        ge=16 * MEBIBYTE,
        le=16_384 * MEBIBYTE,
        description="Most bytes held for stalled readers of all TCP connections together: from "
        "half of it on, connections with more than their share get no credit.",
    )
    quic_engine: Literal["auto", "native", "aioquic"] = Field(
        "auto",
        description="auto: native when it works on this machine, else aioquic; the log says which.",
    )
    max_agents: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Connected agents; a further one is refused at HELLO.",
    )
    max_streams_per_agent: int = Field(
        10_240,
        ge=1,
        le=1_000_000,
        description="Concurrent streams one agent may open, its control stream included.",
    )
    max_services_per_agent: int = Field(
        256, ge=1, le=100_000, description="Services one agent may register."
    )
    max_connections_per_agent: int = Field(
        8,
        ge=2,
        le=1000,
        description="Connections of one agent, or from one relay; two while it comes back.",
    )
    max_streams: int = Field(
        100_000, ge=1, le=10_000_000, description="Streams carried; a further one is refused (503)."
    )
    max_halves: int = Field(
        20_000,
        ge=2,
        le=1_000_000,
        description="Streams that came back and wait for their other half; above it agents retry.",
    )
    max_halves_per_agent: int = Field(
        4096, ge=1, le=1_000_000, description="The same of one agent."
    )
    max_forward_streams_per_agent: int = Field(
        1024, ge=1, le=1_000_000, description="Forward streams of one consumer."
    )
    max_tenant_percent: int = Field(
        90,
        ge=1,
        le=100,
        description=(
            "A tenant may hold this part of what it has and what is free together: of agents, "
            "streams, services, halves, forward streams. Below 100 it never takes everything."
        ),
    )
    max_opens_per_second: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description=(
            "Streams one agent may open per second, a second's worth at once; then 503. As many "
            "may end without a first frame; with more, the agent's connection is closed."
        ),
    )
    max_candidates_per_second: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="Lists of addresses one agent may send to others per second; more are dropped.",
    )
    max_tenant_multiple: int = Field(
        8,
        ge=1,
        le=1000,
        description="A tenant may do so many times per second what one agent may.",
    )
    max_pending_handshakes: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Connections that have not completed HELLO; above it new ones are dropped.",
    )
    max_pending_handshakes_per_source: int = Field(
        128, ge=1, le=1_000_000, description="The same limit for one source address."
    )
    forward: ForwardSettings = Field(ForwardSettings(), description="UDP forward plane.")
    relays: RelaysSettings = Field(RelaysSettings(), description="Other relays.")

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for name, addresses in (("listen", self.listen), ("listen_tcp", self.listen_tcp)):
            fixed = [e for e in addresses if e.port != 0]
            if len(set(fixed)) != len(fixed):
                raise ValueError(f"{name} names the same address twice")
        if self.keepalive_seconds * 2 > self.idle_timeout_seconds:
            raise ValueError("keepalive_seconds must be at most half of idle_timeout_seconds")
        if self.connection_window_bytes < self.stream_window_bytes:
            raise ValueError("connection_window_bytes must not be below stream_window_bytes")
        if self.max_pending_handshakes_per_source > self.max_pending_handshakes:
            raise ValueError(
                "max_pending_handshakes_per_source must not exceed max_pending_handshakes"
            )
        return self
