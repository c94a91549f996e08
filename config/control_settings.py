"""Settings of the control room: which backend, where the controller is, and how it is served.

Part of the schema; see `config.schema` for what holds for all of it.

Sources: protocol sheet ORP 4.5 (addresses and ports), 6.2 R19, R21, R28.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from config.endpoint import Endpoint
from config.setting_types import LIVE, Address, OptionalPath, Room, Seconds

#: A DNS name a certificate may carry.
ServerName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
]
Identity = Annotated[str, StringConstraints(pattern=r"^outrelay://[!-~]{1,300}$")]


def _all_or_none(certificate: Path | None, key: Path | None, ca: Path | None) -> None:
    given = {"certificate": certificate, "key": key, "ca": ca}
    missing = [name for name, path in given.items() if path is None]
    if 0 < len(missing) < len(given):
        raise ValueError(f"set all of certificate, key and ca; missing: {', '.join(missing)}")


class PolicySettings(Room):
    """Where the rules come from, and whether they are enforced at all."""

    enforce: bool = Field(
        True,
        description=(
            "true = default deny, both checks of a stream must find an allowing rule. false "
            "allows everything and writes no audit; it must be said explicitly."
        ),
    )
    files: tuple[Path, ...] = Field(
        (),
        max_length=256,
        description="TOML files with [[rule]] tables, read in this order before the store's rules.",
        json_schema_extra=LIVE,
    )


class AuditSettings(Room):
    """The record of policy decisions."""

    max_queued_events: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        description=(
            "Decisions waiting to be stored; above it the tenant, and of it the caller, that has "
            "most of them waiting loses one, and it is counted by tenant."
        ),
    )
    max_age_seconds: float = Field(
        7_776_000.0,
        ge=0,
        allow_inf_nan=False,
        description="Age at which decisions are removed from the store (90 days). 0: never.",
    )
    max_kept_events: int = Field(
        1_000_000,
        ge=0,
        description=(
            "Decisions kept; above it the oldest of the tenant with the most are removed. 0: any "
            "number."
        ),
    )
    max_kept_bytes: int = Field(
        1_073_741_824,
        ge=0,
        description="The same by what they take on disk, about. 0: any size.",
    )


class ControllerTlsSettings(Room):
    """Certificate of this relay towards the controller (PEM files); empty: plaintext."""

    certificate: OptionalPath = Field(
        None, description="Certificate chain, leaf first; usually that of node.tls."
    )
    key: OptionalPath = Field(None, description="Private key of the leaf (PKCS#8 PEM).")
    ca: OptionalPath = Field(
        None, description="CA certificates that the controller's certificate must chain to."
    )
    server_name: ServerName = Field(
        "localhost", description="DNS name the controller's certificate must have."
    )
    require_relay: bool = Field(
        True,
        description="The controller's certificate must have a relay's identity, as an agent's may "
        "have the same DNS name; false: any certificate of the CA with the name.",
    )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        _all_or_none(self.certificate, self.key, self.ca)
        return self


class ServedTlsSettings(Room):
    """Certificate of the served controller (PEM files); empty: plaintext, on loopback only."""

    certificate: OptionalPath = Field(
        None, description="Certificate chain, leaf first. Renewed files are taken by themselves."
    )
    key: OptionalPath = Field(None, description="Private key of the leaf (PKCS#8 PEM).")
    ca: OptionalPath = Field(
        None, description="CA certificates that every caller's certificate must chain to."
    )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        _all_or_none(self.certificate, self.key, self.ca)
        return self


class ServeSettings(Room):
    """The embedded controller, served over gRPC to other relays and to operators."""

    enabled: bool = Field(False, description="Serve it; needs control.backend = embedded.")
    listen: Address = Field(
        Endpoint("127.0.0.1", 7444), description="TCP address; port 0 takes a free one."
    )
    plaintext_anywhere: bool = Field(
        False,
        description=(
            "Allow an address other than loopback without TLS, where every caller may change "
            "every rule. For closed networks only."
        ),
    )
    operators: tuple[Identity, ...] = Field(
        (),
        max_length=1000,
        description=(
            "Identities (URI of the certificate) with the role operator: they change and list "
            "rules and read the audit log. With TLS nobody else may; relay certificates have the "
            "role relay."
        ),
    )
    expire_silent_relays: bool = Field(
        False,
        description=(
            "Also expire relays that do not say they repeat their announcement. Relays of the "
            "reference announce themselves once: leave it off where there are any."
        ),
    )
    max_watches: int = Field(
        1024, ge=1, le=100_000, description="Watches of all callers; a further one is refused."
    )
    max_watch_queue: int = Field(
        1024,
        ge=16,
        le=1_000_000,
        description=(
            "Changes waiting for one watcher; above it the watch ends and its caller starts over "
            "with a snapshot."
        ),
    )

    tls: ServedTlsSettings = Field(ServedTlsSettings(), description="mTLS and roles.")

    @model_validator(mode="after")
    def _plaintext_stays_home(self) -> Self:
        if self.tls.certificate is None and not self.plaintext_anywhere:
            host = self.listen.host
            try:
                home = ip_address(host).is_loopback
            except ValueError:
                home = host == "localhost"
            if not home:
                raise ValueError(
                    "listen is not a loopback address: set tls, or plaintext_anywhere = true"
                )
        return self


class ControlSettings(Room):
    """Registry, policy and audit."""

    backend: Literal["embedded", "grpc"] = Field(
        "embedded",
        description=(
            "embedded = SQLite store inside the daemon. grpc = an OutRelay controller, or another "
            "relay that serves its embedded one; TOML rules are read in both cases."
        ),
    )
    address: Address = Field(
        Endpoint("127.0.0.1", 7444), description="The controller, with backend = grpc."
    )
    max_known_services: int = Field(
        65_536,
        ge=1,
        le=1_000_000,
        description=(
            "Services remembered for when the controller is away; above it the one unused for "
            "longest is forgotten."
        ),
    )
    relay_alive_seconds: Seconds = Field(
        120.0,
        description=(
            "A relay that repeats its announcement (every 30 s) and was silent for so long is "
            "dead: its services are not resolved."
        ),
    )
    database: OptionalPath = Field(
        None,
        description=(
            "SQLite file of the store; :memory: keeps nothing. Empty: control.db in the state "
            "directory."
        ),
    )
    policy: PolicySettings = Field(PolicySettings(), description="Rules.")
    audit: AuditSettings = Field(AuditSettings(), description="Audit.")
    tls: ControllerTlsSettings = Field(ControllerTlsSettings(), description="Towards it.")
    serve: ServeSettings = Field(ServeSettings(), description="The controller for others.")

    @model_validator(mode="after")
    def _serve_what_is_here(self) -> Self:
        if self.serve.enabled and self.backend != "embedded":
            raise ValueError("serve.enabled needs backend = embedded")
        return self
