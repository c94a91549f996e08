"""From the rows of a `tree` answer to one object with its children inside."""

from __future__ import annotations

from collections.abc import Iterable

from wire.admin.messages import Row


def nested(rows: Iterable[Row]) -> Row | None:
    """One object per actor with `children`, a list of the same; None when there are no rows.

    The first row is the root. A row's number of children moves to `child_count`, so that a tree
    cut by depth or filter still tells it. A row whose parent was left out, because it went away
    while the answer was made, hangs below its nearest ancestor.
    """
    places: dict[str, Row] = {}
    root: Row | None = None
    for row in rows:
        path = str(row.get("path", ""))
        entry: Row = {**row, "child_count": row.get("children", 0), "children": []}
        places[path] = entry
        if root is None:
            root = entry
            continue
        below = (_nearest(places, path) or root)["children"]
        assert isinstance(below, list)
        below.append(entry)
    return root


def _nearest(places: dict[str, Row], path: str) -> Row | None:
    while path and path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in places:
            return places[path]
    return None
