"""The settings of the daemon: one model per room, the unit in every field name.

A leaf: knows pydantic and nothing of ours, opens no file and reads no environment (`config.load`
does). Every field carries its description, its range and whether SIGHUP may change it (`live`);
docs/configuration.md, config/defaults.toml and config/reload.py are derived from these fields, so
this is the only place a setting is spelled. Unknown keys are errors. Instances are frozen.

Sources: protocol sheet orp 1.1 (names), 1.5 (QUIC parameters), 3.14 (timers, ports), 6.1 R9-R11
(deadlines and stream limits).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from config.control_settings import ControlSettings, ServerName
from config.endpoint import Endpoint
from config.setting_types import (
    KIBIBYTE,
    LIVE,
    MEBIBYTE,
    Address,
    Name,
    OptionalAddress,
    OptionalPath,
    RelayName,
    Room,
    Seconds,
)


class NodeSettings(Room):
    """The process itself: where its state lives, how it stops, how it watches its own loop."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(
        "trunkline", description="Name of this node in logs and in the inspector."
    )
    state_directory: OptionalPath = Field(
        None,
        description=(
            "Where the daemon keeps its state (0700). Empty: $STATE_DIRECTORY as given by "
            "systemd, else .trunkline below the working directory for the demo or when it exists "
            "there, else $XDG_STATE_HOME/trunkline."
        ),
    )
    control_socket: OptionalPath = Field(
        None,
        description=(
            "Unix socket for ctl, inspect and chaos; its file permission (0600) is the "
            "authentication. Empty: control.sock in the state directory."
        ),
    )
    drain_deadline_seconds: Seconds = Field(
        30.0,
        description="How long SIGTERM lets open streams finish before the tree is stopped.",
        json_schema_extra=LIVE,
    )
    watchdog_stall_seconds: Seconds = Field(
        0.25,
        description="A loop iteration longer than this is logged with the stack that held it.",
    )
    watchdog_abort_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description=(
            "A loop iteration longer than this dumps all stacks and aborts the process. 0 turns "
            "it off; use it where a service manager starts the daemon again."
        ),
    )
    uvloop: Literal["auto", "on", "off"] = Field(
        "off",
        description=(
            "Event loop: off = asyncio, on = uvloop (an error if it is not installed), auto = "
            "uvloop when it is installed."
        ),
    )


class LogSettings(Room):
    """What is written to stderr, and how."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe level that is written.", json_schema_extra=LIVE
    )
    format: Literal["human", "json"] = Field(
        "human",
        description="human = one readable line, json = one JSON object per line.",
        json_schema_extra=LIVE,
    )
    access_file: OptionalPath = Field(
        None, description="The access log: one JSON line per stream. Empty: none is kept."
    )
    max_file_bytes: int = Field(
        268_435_456,
        ge=0,
        description=(
            "Size at which access log and metrics dump are renamed to NAME.1, in the place of the "
            "one before. 0: never."
        ),
    )


class MetricsSettings(Room):
    """Counters, durations, health and readiness for operators and their monitoring."""

    listen: OptionalAddress = Field(
        None,
        description=(
            "HTTP address for /metrics, /debug/metrics, /health and /ready; it asks nobody who "
            "they are. Empty: none."
        ),
    )
    dump: OptionalPath = Field(
        None, description="File that gets a snapshot as a JSON line per interval. Empty: none."
    )
    interval_seconds: Seconds = Field(10.0, description="Between two snapshots of the dump.")


class TlsSettings(Room):
    """Certificate, key and CA of the edge listeners (PEM files)."""

    certificate: OptionalPath = Field(
        None,
        description="Certificate chain of this relay, leaf first. Empty only with the demo.",
        json_schema_extra=LIVE,
    )
    key: OptionalPath = Field(
        None, description="Private key of the leaf (PKCS#8 PEM).", json_schema_extra=LIVE
    )
    ca: OptionalPath = Field(
        None,
        description="CA certificates that agent certificates must chain to.",
        json_schema_extra=LIVE,
    )
    key_log: OptionalPath = Field(
        None,
        description="Write TLS secrets here, for Wireshark. Whoever reads it reads all traffic.",
    )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        missing = [name for name, path in given.items() if path is None]
        if 0 < len(missing) < len(given):
            raise ValueError(f"set all of certificate, key and ca; missing: {', '.join(missing)}")
        return self


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


class EdgeSettings(Room):
    """The ORP door: listeners, identity of this relay, deadlines and limits."""

    listen: tuple[Address, ...] = Field(
        (Endpoint("127.0.0.1", 7443),),
        min_length=1,
        max_length=16,
        description="UDP addresses for QUIC, host:port or [ipv6]:port; port 0 takes a free one.",
    )
    listen_tcp: tuple[Address, ...] = Field(
        (),
        max_length=16,
        description="TCP addresses for agents whose network lets no UDP through: TLS and yamux.",
    )
    advertise: OptionalAddress = Field(
        None, description="Address other relays reach this one at. Empty: the first of listen."
    )
    relay_id: Name = Field("r1", description="Name of this relay at the controller.")
    region: Name = Field("local", description="Region used to prefer near providers.")
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
    max_pending_handshakes: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Connections that have not completed HELLO; above it new ones are dropped.",
    )
    max_pending_handshakes_per_source: int = Field(
        128, ge=1, le=1_000_000, description="The same limit for one source address."
    )
    tls: TlsSettings = Field(TlsSettings(), description="Certificates of the listeners.")
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


class DemoSettings(Room):
    """The built-in demonstration: consumer agent, relay, provider agent, web service."""

    enabled: bool = Field(False, description="Start it (the flag --demo).")
    cluster: bool = Field(
        False,
        description=(
            "Two relays and a controller, each relay a process of its own (the flag "
            "--demo=cluster); stop one, and streams go on over the other."
        ),
    )
    consumer_listen: Address = Field(
        Endpoint("127.0.0.1", 8480),
        description="Where the consumer agent listens: the address to curl; port 0 = a free one.",
    )
    web_listen: Address = Field(
        Endpoint("127.0.0.1", 0),
        description="Where the web service behind the provider agent listens.",
    )
    tenant: Name = Field("acme", description="Tenant of both demo agents.")


class Settings(Room):
    """Everything. `config.load.load` is how a Settings comes to be."""

    node: NodeSettings = Field(NodeSettings(), description="The process.")
    log: LogSettings = Field(LogSettings(), description="Logging.")
    edge: EdgeSettings = Field(EdgeSettings(), description="The ORP door.")
    control: ControlSettings = Field(ControlSettings(), description="Registry, policy, audit.")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Metrics and health.")
    demo: DemoSettings = Field(DemoSettings(), description="Demonstration.")
