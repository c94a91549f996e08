"""The settings of the daemon: one model per room, the unit in every field name.

A leaf: knows pydantic and nothing of ours, opens no file and reads no environment (`config.load`
does). Every field carries its description, its range and whether SIGHUP may change it (`live`);
docs/configuration.md, config/defaults.toml and config/reload.py are derived from these fields, so
this is the only place a setting is spelled. Unknown keys are errors. Instances are frozen.

The node, control and every door have a module of their own beside this one.

Source: protocol sheet orp 1.1 (names).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.control_settings import ControlSettings
from config.edge_settings import EdgeSettings
from config.endpoint import Endpoint
from config.node_settings import NodeSettings
from config.peer_settings import PeerSettings
from config.rendezvous_settings import RendezvousSettings
from config.setting_types import (
    LIVE,
    Address,
    Name,
    OptionalAddress,
    OptionalPath,
    Room,
    Seconds,
)
from config.turn_settings import TurnSettings


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
    """Everything. `config.load.load` is how a Settings comes to be.

    A field of a `DoorRoom` is a door of the daemon: its line in the list of doors.
    """

    node: NodeSettings = Field(NodeSettings(), description="The process.")
    log: LogSettings = Field(LogSettings(), description="Logging.")
    edge: EdgeSettings = Field(EdgeSettings(), description="The ORP door.")
    rendezvous: RendezvousSettings = Field(RendezvousSettings(), description="The rendezvous door.")
    peer: PeerSettings = Field(PeerSettings(), description="The peer door.")
    turn: TurnSettings = Field(TurnSettings(), description="The TURN door.")
    control: ControlSettings = Field(ControlSettings(), description="Registry, policy, audit.")
    metrics: MetricsSettings = Field(MetricsSettings(), description="Metrics and health.")
    demo: DemoSettings = Field(DemoSettings(), description="Demonstration.")
