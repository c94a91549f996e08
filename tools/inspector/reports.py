"""Words for people: one line per supervision event, the pages of the detail pane."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tools.inspector.rows import amount, clip, clip_middle, number, text
from wire.admin.messages import Row

#: Fields of an event worth a place in its line, in this order.
_SHOWN = ("reason", "decision", "verb", "initiator", "error", "count", "what")
MAX_VALUE_CHARACTERS = 300


#: Of a path at least this much is shown.
LEAST_PATH_CHARACTERS = 28


def event_line(event: Row, width: int) -> str:
    """One event in `width` characters: time of day here, kind, path, and why."""
    clock = time.strftime("%H:%M:%S", time.localtime(number(event, "at")))
    fields = event.get("fields")
    said = ""
    if isinstance(fields, Mapping):
        words = [str(fields[name]) for name in _SHOWN if fields.get(name)]
        said = " · ".join(words)
    kind = text(event, "kind")
    if kind == "lost":
        return f"{clock} lost      some events came too fast to be shown"
    said = " ".join(said.split())
    begin = f"{clock} {kind:<9} "
    room = max(LEAST_PATH_CHARACTERS, width - len(begin) - len(said) - 2)
    path = clip_middle(text(event, "path"), room)
    return clip(f"{begin}{path}  {said}".rstrip(), width)


def detail_lines(details: Row) -> list[str]:
    """Everything known of one actor, its own words first."""
    lines = [
        f"{text(details, 'path')}",
        f"{text(details, 'class')} · {text(details, 'state')} · incarnation "
        f"{int(number(details, 'incarnation'))} · {amount(number(details, 'handled'))} messages",
    ]
    own = details.get("describe")
    if isinstance(own, Mapping) and own:
        lines.append("describes itself:")
        lines.extend(_indented(own))
    lines.append("runtime:")
    passed = {"path", "class", "state", "incarnation", "handled", "describe", "id"}
    rest = {name: value for name, value in details.items() if name not in passed}
    lines.extend(_indented({name: value for name, value in rest.items() if value not in ("", [])}))
    return lines


def _indented(values: Mapping[str, object]) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            shown = ", ".join(f"{key} {_value(inner)}" for key, inner in value.items()) or "-"
        elif isinstance(value, list):
            shown = ", ".join(_value(inner) for inner in value) or "-"
        else:
            shown = _value(value)
        lines.append(f"  {name}: {' '.join(shown[:MAX_VALUE_CHARACTERS].split())}")
    return lines


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return "-" if value is None else str(value)


__all__ = ["detail_lines", "event_line"]
