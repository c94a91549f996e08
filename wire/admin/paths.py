"""Paths of a node whose processes each have a tree of their own.

A process actor at `/node/echo` mounts the tree of its child process: the child's `/` is that same
place, the child's `/links` is seen as `/node/echo/links`.
"""

from __future__ import annotations

from collections.abc import Iterable

from wire.admin.messages import Row

ROOT = "/"
#: Fields of rows, details and events that hold one path, and those that hold a list of them.
PATH_FIELDS = ("path", "supervisor", "target", "sender", "more_of")
PATH_LIST_FIELDS = ("monitors", "links")


def below(path: str, top: str) -> bool:
    """True when `path` is `top` or lies below it."""
    return top == ROOT or path == top or path.startswith(top + "/")


def outward(mount: str, inner: str) -> str:
    """The name outside of a path inside the mounted tree."""
    if not inner.startswith(ROOT):
        return inner
    return mount if inner == ROOT else mount + inner


def inward(mount: str, path: str) -> str:
    """The name inside the mounted tree of a path at or below `mount`.

    Raises:
        ValueError: `path` lies elsewhere.
    """
    if path == mount:
        return ROOT
    if not path.startswith(mount + "/"):
        raise ValueError(f"{path} is not below {mount}")
    return path[len(mount) :]


def row_outward(mount: str, row: Row) -> Row:
    """Rename every path in one row of an answer, in place; returns the row."""
    for name in PATH_FIELDS:
        value = row.get(name)
        if isinstance(value, str) and value:
            row[name] = outward(mount, value)
    for name in PATH_LIST_FIELDS:
        values = row.get(name)
        if isinstance(values, list):
            row[name] = [outward(mount, v) if isinstance(v, str) else v for v in values]
    fields = row.get("fields")
    if isinstance(fields, dict):
        row_outward(mount, fields)
    return row


def rows_outward(mount: str, rows: Iterable[Row]) -> list[Row]:
    """`row_outward` for each."""
    return [row_outward(mount, row) for row in rows]
