"""What the control protocol says, in words for people: shared by `ctl` and `inspect`.

Rows come from a daemon that may be newer than this tool, so every field is read with care and
nothing but text is printed: control characters of a path or reason never reach the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from config.endpoint import Endpoint
from wire.admin.messages import Row

#: A supervisor's decision, an operator's act and the like, in a fixed width.
KIND_WIDTH = 11
_UNITS = ("B", "K", "M", "G", "T", "P")


def text(value: object) -> str:
    """Any value on one line, without control characters."""
    return "".join(
        one if one.isprintable() else " " if one in "\n\t" else "�" for one in str(value)
    )


def number(row: Mapping[str, object], name: str) -> float:
    """A numeric field; 0 when it is absent or something else."""
    value = row.get(name, 0)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def whole(row: Mapping[str, object], name: str) -> int:
    """A whole-number field; 0 when it is absent or something else."""
    return int(number(row, name))


def size(amount: float) -> str:
    """Bytes in at most five characters: `0B`, `999B`, `1.5K`, `12M`."""
    for unit in _UNITS[:-1]:
        if amount < 999.5:
            return f"{amount:.0f}{unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.0f}{_UNITS[-1]}"


def count(amount: float) -> str:
    """A number in at most five characters: `999`, `1.5k`, `12k`, `3.4M`."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if amount < 999.5 or unit == "P":
            small = unit and amount < 9.95
            return f"{amount:.1f}{unit}" if small else f"{amount:.0f}{unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """A span of time in at most five characters: `0s`, `59s`, `4m10`, `3h05`, `12d`."""
    whole_seconds = max(0, int(seconds))
    if whole_seconds < 60:
        return f"{whole_seconds}s"
    if whole_seconds < 3600:
        return f"{whole_seconds // 60}m{whole_seconds % 60:02}"
    if whole_seconds < 86400:
        return f"{whole_seconds // 3600}h{whole_seconds % 3600 // 60:02}"
    return f"{whole_seconds // 86400}d"


def clock(at: object) -> str:
    """Wall-clock seconds as local time."""
    if not isinstance(at, (int, float)) or at <= 0:
        return "--:--:--"
    return time.strftime("%H:%M:%S", time.localtime(at))


def event_line(row: Row) -> str:
    """One event of the stream: time, kind, path, and what matters of its fields."""
    kind = text(row.get("kind", "?"))
    words = event_words(row)
    path = text(row.get("path", ""))
    return f"{clock(row.get('at'))} {kind:<{KIND_WIDTH}} {path}{'  ' if words else ''}{words}"


def event_words(row: Row) -> str:
    """What an event says beside its kind and path."""
    fields = row.get("fields")
    if not isinstance(fields, dict):
        return ""
    kind = row.get("kind")
    if kind == "started":
        return text(fields.get("class", ""))
    if kind == "exited":
        words = text(fields.get("reason", ""))
        if fields.get("initiator"):
            words += f", by {text(fields['initiator'])}"
        if "uptime" in fields:
            words += f", after {number(fields, 'uptime'):.1f} s"
        return f"{text(fields['decision'])}: {words}" if fields.get("decision") else words
    if kind == "operator":
        reason = f": {text(fields['reason'])}" if fields.get("reason") else ""
        return f"{text(fields.get('verb', ''))} by {text(fields.get('initiator', ''))}{reason}"
    if kind == "lost":
        return f"{whole(fields, 'events')} events were lost: this reader is too slow"
    hidden = ("traceback", "fingerprint")
    return ", ".join(f"{text(k)} {text(v)}" for k, v in fields.items() if v and k not in hidden)


def actor_words(row: Row) -> str:
    """One actor in a line: class, state, and every figure that is not at rest."""
    words = [text(row.get("class") or "-"), state(row)]
    if row.get("strategy"):
        words.append(text(row["strategy"]))
    if whole(row, "mailbox"):
        words.append(f"mailbox {whole(row, 'mailbox')}/{whole(row, 'bound')}")
    if whole(row, "restarts"):
        words.append(f"restarts {whole(row, 'restarts')}")
    received, sent = whole(row, "bytes_in"), whole(row, "bytes_out")
    if received or sent:
        words.append(f"in {size(received)} out {size(sent)}")
    words.append(f"up {duration(number(row, 'uptime'))}")
    return "  ".join(words)


def state(row: Row) -> str:
    """The state; capitals where it is not an actor at work."""
    word = text(row.get("state", "?"))
    return word if word in ("running", "busy") else word.upper()


def places(door: Row) -> list[str]:
    """Where a door listens: transport, address and the actor that has the socket."""
    listening = door.get("listening")
    rows = listening if isinstance(listening, list) else []
    return [
        f"{row['transport']} "
        f"{Endpoint(*row['address']) if row['address'] else 'not bound'} ({row['path']})"
        for row in rows
    ]
