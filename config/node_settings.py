"""The settings of the node: who it is to all who talk to it, and how its process lives.

Source: protocol sheet orp 1.1 (names).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from config.setting_types import LIVE, Name, OptionalPath, Room, Seconds


class TlsSettings(Room):
    """Certificate, key and CA of this relay (PEM files)."""

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
    revocations: OptionalPath = Field(
        None,
        description=(
            "Revocation lists (CRL, PEM or DER) of the CAs above: what `trunkline pki revoke` "
            "writes. Read again within seconds when it changes."
        ),
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


class NodeSettings(Room):
    """The process itself: who it is, where its state lives, how it stops and watches its loop."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(
        "trunkline", description="Name of this node in logs and in the inspector."
    )
    id: Name = Field(
        "r1", description="Id of this relay: in its certificate, and at the controller."
    )
    region: Name = Field("local", description="Region used to prefer near providers.")
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
    tls: TlsSettings = Field(TlsSettings(), description="Who this relay is.")
