"""What SIGHUP may change: the difference of two settings, and the settings in force afterwards.

A key is live when its schema field says so. Keys that need a restart keep their old value, so the
running daemon never believes a setting it does not follow. Certificates, rule files and the like
are read again on every reload even when their path is unchanged; that is the caller's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from config.endpoint import Endpoint
from config.errors import ConfigError, Problem
from config.fields import Kind, settings_table
from config.schema import Settings


@dataclass(frozen=True, slots=True)
class Change:
    """One changed key; the values are texts fit for a log, hidden when secret."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """The outcome of `plan_reload`."""

    #: Changes that take effect now, in schema order.
    live: tuple[Change, ...]
    #: Changes ignored until the daemon is started again, in schema order.
    needs_restart: tuple[Change, ...]
    #: Settings in force after the reload: the new live values, the old others.
    settings: Settings


def plan_reload(old: Settings, new: Settings) -> ReloadPlan:
    """Compare two valid settings of one schema.

    Raises:
        ConfigError: the new live values contradict old values that need a restart.
    """
    merged: dict[str, Any] = {}
    live: list[Change] = []
    needs_restart: list[Change] = []
    for key, setting in settings_table(type(old)).items():
        before, after = _get(old, key), _get(new, key)
        _put(merged, key, after if setting.is_live else before)
        if before == after:
            continue
        hidden = setting.kind in (Kind.SECRET, Kind.TABLE)
        change = Change(key, _shown(before, hidden=hidden), _shown(after, hidden=hidden))
        if setting.is_live:
            live.append(change)
        else:
            needs_restart.append(change)
    try:
        settings = type(old).model_validate(merged)
    except ValidationError as error:
        raise ConfigError(
            [
                Problem(
                    "reload",
                    ".".join(str(part) for part in detail["loc"]),
                    f"{detail['msg'].removeprefix('Value error, ')} (one side needs a restart)",
                )
                for detail in error.errors(include_url=False)
            ]
        ) from None
    return ReloadPlan(tuple(live), tuple(needs_restart), settings)


def _get(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


def _shown(value: Any, *, hidden: bool) -> str:
    if hidden:
        return "(hidden)"
    if isinstance(value, tuple) and not isinstance(value, Endpoint):
        return f"[{', '.join(str(v) for v in value)}]"
    return "(not set)" if value is None else str(value)
