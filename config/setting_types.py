"""The kinds of values settings have, and what every settings group shares.

A leaf below `config.schema`: pydantic and nothing of ours but the endpoint. Texts only: no file is
opened and no name resolved.

Source: protocol sheet ORP 1.1 (names).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from config.endpoint import Endpoint, parse_endpoint

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

#: Tenant, region and relay id share one grammar (sheet 1.1).
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


def _endpoint(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    if isinstance(value, str):
        return parse_endpoint(value)
    raise ValueError("expected host:port as text")


def _optional_path(value: object) -> object:
    return None if value == "" else value


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
#: A relay id, or * for every relay.
RelayName = Annotated[str, StringConstraints(pattern=rf"(?:{NAME_PATTERN})|^\*$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Address = Annotated[
    Endpoint, BeforeValidator(_endpoint), PlainSerializer(str, return_type=str, when_used="json")
]
#: An empty text in TOML or the environment means "not set": TOML has no null.
OptionalPath = Annotated[Path | None, BeforeValidator(_optional_path)]


def _optional_endpoint(value: object) -> Endpoint | None:
    return None if value in ("", None) else _endpoint(value)


OptionalAddress = Annotated[
    Endpoint | None,
    BeforeValidator(_optional_endpoint),
    PlainSerializer(lambda e: "" if e is None else str(e), return_type=str, when_used="json"),
]

#: Field metadata: SIGHUP may change this setting in a running daemon.
LIVE: dict[str, Any] = {"live": True}


class Room(BaseModel):
    """What every settings group shares: frozen, unknown keys refused, defaults checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DoorRoom(Room):
    """The table of a door: a protocol family that clients come in by.

    Attributes:
        wiring: the module that opens it, by its `DOOR`; named, not imported.
    """

    wiring: ClassVar[str]


class TlsDoorRoom(DoorRoom):
    """The table of a door whose clients need not know the CA of the relay network."""

    tls_certificate: OptionalPath = Field(
        None,
        description=(
            "Certificate chain that this door shows, leaf first, such as one of a public CA. "
            "Empty: that of node.tls."
        ),
        json_schema_extra=LIVE,
    )
    tls_key: OptionalPath = Field(
        None, description="Its private key (PKCS#8 PEM).", json_schema_extra=LIVE
    )

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both of tls_certificate and tls_key, or none")
        return self
