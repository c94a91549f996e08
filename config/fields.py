"""The schema as a flat table: one row per setting, keyed by its dotted name.

Derived from `config.schema` by introspection, so loading, reloading and the reference page agree on
names, kinds and allowed values without repeating them. Pure; cached once per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr, StringConstraints
from pydantic.fields import FieldInfo

from config.endpoint import Endpoint
from config.schema import Settings
from config.setting_types import NAME_PATTERN, DoorRoom, Room

_CONSTRAINTS = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
    "min_length": "at least",
    "max_length": "at most",
}


class Kind(Enum):
    """What a single value is; a list setting has the kind of its items."""

    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    NUMBER = "a number"
    CHOICE = "one of"
    NAME = "a name"
    TEXT = "text"
    PATH = "a path"
    ADDRESS = "host:port"
    SECRET = "a secret"
    TABLE = "a table of names and secrets"


@dataclass(frozen=True, slots=True)
class Setting:
    """One settable key."""

    key: str
    kind: Kind
    is_list: bool
    #: "" is legal and means "not set".
    is_optional: bool
    #: Legal texts of a CHOICE, else empty.
    choices: tuple[str, ...]
    #: Range or length as text, "" when there is none.
    bounds: str
    #: SIGHUP may change it in a running daemon.
    is_live: bool
    description: str
    #: The default as TOML and JSON would hold it.
    default: object

    @property
    def allowed_item(self) -> str:
        """What one value may be; for a list setting, one of its items."""
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(self.choices)
        if self.kind is Kind.NAME:
            return "a name (a-z, 0-9, -; at most 63)"
        return str(self.kind.value)

    @property
    def allowed(self) -> str:
        """What may stand there, as a phrase for error texts and the reference."""
        text = f"a list, each {self.allowed_item}" if self.is_list else self.allowed_item
        if self.bounds:
            text += f", {self.bounds}"
        return f"{text}, or empty" if self.is_optional else text

    @property
    def environment_name(self) -> str:
        return "TRUNKLINE_" + self.key.upper().replace(".", "__")


@cache
def settings_table(schema: type[Settings] = Settings) -> MappingProxyType[str, Setting]:
    """Every setting by dotted key, in the order of the schema."""
    table: dict[str, Setting] = {}
    defaults = schema().model_dump(mode="json")
    _collect(schema, "", defaults, table)
    return MappingProxyType(table)


@cache
def groups_table(schema: type[Settings] = Settings) -> MappingProxyType[str, str]:
    """Every settings group by dotted key with its one-line description, outermost first."""
    groups: dict[str, str] = {}

    def walk(model: type[Room], prefix: str) -> None:
        for name, field in model.model_fields.items():
            inner = _room(field)
            if inner is not None:
                groups[prefix + name] = (inner.__doc__ or "").strip().splitlines()[0]
                walk(inner, f"{prefix}{name}.")

    walk(schema, "")
    return MappingProxyType(groups)


def door_modules(schema: type[Settings]) -> dict[str, str]:
    """The doors of a daemon with these settings: by name, the module that opens each."""
    return {
        name: inner.wiring
        for name, field in schema.model_fields.items()
        if (inner := _room(field)) is not None and issubclass(inner, DoorRoom)
    }


def _room(field: FieldInfo) -> type[Room] | None:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Room):
        return annotation
    return None


def _collect(
    model: type[Room], prefix: str, defaults: dict[str, Any], table: dict[str, Setting]
) -> None:
    for name, field in model.model_fields.items():
        inner = _room(field)
        if inner is not None:
            _collect(inner, f"{prefix}{name}.", defaults[name], table)
        else:
            table[prefix + name] = _setting(prefix + name, field, defaults[name])


def _setting(key: str, field: FieldInfo, default: object) -> Setting:
    extra = field.json_schema_extra
    annotation, metadata = _unwrap(field.annotation, list(field.metadata))
    is_list = get_origin(annotation) is tuple
    bounds = _bounds(metadata, is_list)
    if is_list:
        annotation, metadata = _unwrap(get_args(annotation)[0], [])
    if get_origin(annotation) is dict:
        annotation = dict
    is_optional = False
    if get_origin(annotation) in (Union, UnionType):
        is_optional = True
        members = [a for a in get_args(annotation) if a is not NoneType]
        annotation, metadata = _unwrap(members[0], metadata)
    kind, choices = _kind(annotation, metadata)
    return Setting(
        key=key,
        kind=kind,
        is_list=is_list,
        is_optional=is_optional,
        choices=choices,
        bounds=bounds,
        is_live=isinstance(extra, dict) and extra.get("live") is True,
        description=field.description or "",
        default="" if default is None else default,
    )


def _unwrap(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata = [*metadata, *inner]
    return annotation, metadata


def _kind(annotation: Any, metadata: list[Any]) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(annotation) is Literal:
        return Kind.CHOICE, tuple(str(a) for a in get_args(annotation))
    simple: dict[Any, Kind] = {
        bool: Kind.BOOLEAN,
        int: Kind.INTEGER,
        float: Kind.NUMBER,
        Path: Kind.PATH,
        Endpoint: Kind.ADDRESS,
        SecretStr: Kind.SECRET,
        dict: Kind.TABLE,
        str: Kind.TEXT,
    }
    kind = simple[annotation]
    if kind is Kind.TEXT and any(_pattern(m) == NAME_PATTERN for m in metadata):
        kind = Kind.NAME
    return kind, ()


def _pattern(item: Any) -> str | None:
    if isinstance(item, StringConstraints):
        return item.pattern if isinstance(item.pattern, str) else None
    pattern = getattr(item, "pattern", None)
    return pattern if isinstance(pattern, str) else None


def _bounds(metadata: list[Any], is_list: bool) -> str:
    """Range or length as text; reads the constraint objects by their documented attributes."""
    words: list[str] = []
    for item in metadata:
        for attribute, phrase in _CONSTRAINTS.items():
            limit = getattr(item, attribute, None)
            if limit is not None:
                words.append(f"{phrase} {limit}")
        pattern = _pattern(item)
        if pattern is not None and pattern != NAME_PATTERN:
            words.append(f"matching {pattern}")
    text = ", ".join(words)
    return f"{text} entries" if is_list and text else text
