"""What a death may take with it: restart groups computed from a tree as the inspector shows it.

Works on plain rows (dicts with `path`, `strategy`, `restart`, `state`, `incarnation`), so that the
chaos tool needs nothing but the control protocol. Rows are in tree order: parents before children,
siblings in start order.

Source: docs/runtime.md section 7 (strategies).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Row = Mapping[str, object]


def parent_path(path: str) -> str | None:
    """The path one level up; None above the root."""
    if path == "/":
        return None
    head = path.rpartition("/")[0]
    return head or "/"


def is_below(path: str, ancestor: str) -> bool:
    """True for the ancestor itself and everything in its subtree."""
    return path == ancestor or path.startswith(ancestor if ancestor == "/" else ancestor + "/")


@dataclass(slots=True)
class Tree:
    """A snapshot of the actor tree, indexed by path."""

    rows: dict[str, Row] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Tree:
        """Index rows in tree order."""
        tree = cls()
        for row in rows:
            path = str(row["path"])
            tree.rows[path] = row
            above = parent_path(path)
            if above is not None:
                tree.children.setdefault(above, []).append(path)
        return tree

    def text(self, path: str, key: str) -> str:
        """One text column of one row; empty when there is none."""
        row = self.rows.get(path)
        return str(row.get(key, "")) if row is not None else ""

    def incarnation(self, path: str) -> int:
        """The incarnation at `path`, 0 when the place does not exist."""
        row = self.rows.get(path)
        value = row.get("incarnation", 0) if row is not None else 0
        return value if isinstance(value, int) else 0

    def permanent(self) -> list[str]:
        """Every place whose actor must come back, in tree order.

        A place below a temporary or transient one comes and goes with it, and does not count.
        """
        found: list[str] = []
        passing: set[str] = set()
        for path in self.rows:
            above = parent_path(path)
            if (above is not None and above in passing) or (
                above is not None and self.text(path, "restart") != "permanent"
            ):
                passing.add(path)
            elif above is not None:
                found.append(path)
        return found

    def group(self, victim: str) -> set[str]:
        """Every place whose incarnation may change when `victim` dies once.

        The victim and its subtree; with one_for_all its siblings and theirs; with rest_for_one
        the siblings started after it and theirs. Roots of subtrees only: test with `covered`.
        """
        above = parent_path(victim)
        if above is None:
            return {victim}
        siblings = self.children.get(above, [])
        strategy = self.text(above, "strategy")
        if strategy == "one_for_all":
            return set(siblings) | {victim}
        if strategy == "rest_for_one" and victim in siblings:
            return set(siblings[siblings.index(victim) :])
        return {victim}


def covered(path: str, group: Iterable[str]) -> bool:
    """True when `path` lies in one of the group's subtrees."""
    return any(is_below(path, top) for top in group)
