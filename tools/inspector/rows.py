"""What stands in the table: texts of one row, rates of two snapshots, what is folded.

Pure: knows rows of the control protocol (`watch`), no screen and no connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire.admin.limits import MAX_OPEN_PATHS
from wire.admin.messages import Row

#: Places with more children than this start folded and show the count.
FOLD_ABOVE = 100
#: Snapshots closer together than this make no rates: one message would look like many.
MIN_RATE_SECONDS = 0.2
#: States that are no news in a folded place.
_ORDINARY = ("", "new", "running", "busy", "stopped")
#: Children shown at once below an open place.
PAGE_ROWS = 100

#: Column titles with their least widths in characters; with a blank after each the sum is 79.
COLUMNS: tuple[tuple[str, int], ...] = (
    ("actor", 22),
    ("state", 9),
    ("class", 11),
    ("mail", 7),
    ("msg/s", 5),
    ("busy", 4),
    ("rst", 3),
    ("age", 4),
    ("B/s", 5),
)

#: Sort columns of the top view: title of the column, and the protocol's word.
SORTS: tuple[tuple[str, str], ...] = (
    ("busy", "load"),
    ("msg/s", "rate"),
    ("B/s", "throughput"),
    ("mail", "mailbox"),
    ("rst", "restarts"),
    ("age", "age"),
    ("state", "state"),
    ("start order", "start"),
)


def number(row: Mapping[str, object], name: str) -> float:
    """A numeric field; 0 when it is absent or no number."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def text(row: Mapping[str, object], name: str) -> str:
    """A text field; empty when it is absent or no text."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def amount(value: float) -> str:
    """A count in at most four characters: `0`, `0.4`, `999`, `1.2k`, `65k`, `3M`."""
    if 0 < value < 9.95 and value != int(value):
        return f"{value:.1f}"
    if value < 999.5:
        return f"{value:.0f}"
    for unit in "kMGT":
        value /= 1000
        if value < 9.95:
            return f"{value:.1f}{unit}".replace(".0", "")
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return "lots"


def age(seconds: float) -> str:
    """A duration in at most four characters: `7s`, `12m`, `5h`, `3d`."""
    for unit, size, most in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 100)):
        if seconds < most * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds // 86400)}d"


def clip(value: str, width: int) -> str:
    """Cut at the end, and show that it was."""
    return value if len(value) <= width else value[: width - 1] + "…"


def clip_start(value: str, width: int) -> str:
    """Cut at the beginning, and show that it was: of a path the end tells more."""
    return value if len(value) <= width else "…" + value[len(value) - width + 1 :]


def clip_middle(value: str, width: int) -> str:
    """Cut in the middle, and show that it was: names differ at their ends."""
    if len(value) <= width:
        return value
    tail = width // 3
    return value[: width - 1 - tail] + "…" + value[len(value) - tail :]


@dataclass(frozen=True, slots=True)
class Rate:
    """Changes per second between two snapshots; `busy` is a share, 1.0 for always."""

    messages: float = 0.0
    busy: float = 0.0
    moved: float = 0.0


NO_RATE = Rate()


class Rates:
    """Rates from the last two snapshots. Bound: the rows of one snapshot."""

    def __init__(self) -> None:
        self._at = 0.0
        self._seen: dict[tuple[str, float], tuple[float, float, float]] = {}
        self._rates: dict[str, Rate] = {}

    def update(self, at: float, rows: Sequence[Row]) -> None:
        """A new snapshot, taken at `at` seconds of the daemon's clock.

        An actor that is new, or in a new incarnation, has no rate until the next one. A snapshot
        too soon after the last changes nothing; a clock that went back is another daemon.
        """
        seconds = at - self._at
        if seconds < 0:
            self._seen.clear()
        elif seconds < MIN_RATE_SECONDS and self._seen:
            return
        seen: dict[tuple[str, float], tuple[float, float, float]] = {}
        rates: dict[str, Rate] = {}
        for row in rows:
            path = text(row, "path")
            if not path:
                continue
            key = (path, number(row, "incarnation"))
            moved = number(row, "bytes_in") + number(row, "bytes_out")
            now = (number(row, "handled"), number(row, "busy_seconds"), moved)
            before = self._seen.get(key)
            seen[key] = now
            if before is not None and seconds > 0:
                change = [
                    max(0.0, new - old) / seconds for new, old in zip(now, before, strict=True)
                ]
                rates[path] = Rate(*change)
        self._at, self._seen, self._rates = at, seen, rates

    def of(self, path: str) -> Rate:
        """The newest rate of one actor."""
        return self._rates.get(path, NO_RATE)


class Folds:
    """Which places are unfolded, and which page of their children is shown.

    What the user folded or unfolded stays so; otherwise a place opens by itself unless it has
    more than `FOLD_ABOVE` children. The protocol bounds the open places; the first ones win.
    """

    def __init__(self) -> None:
        self._wish: dict[str, bool] = {"/": True}
        self._pages: dict[str, int] = {}
        #: As given to the daemon: path to the offset of its page.
        self.open: dict[str, int] = {"/": 0}

    def learn(self, rows: Sequence[Row]) -> bool:
        """Look at new rows; True when other places are open now than before."""
        before = dict(self.open)
        present = {text(row, "path") for row in rows}
        for path in [p for p in self.open if p not in present and not self._wish.get(p)]:
            del self.open[path]
        for row in rows:
            path = text(row, "path")
            inside = number(row, "children") > 0 or row.get("mount") is True
            if not path or not inside or path in self.open or len(self.open) >= MAX_OPEN_PATHS:
                continue
            if self._wish.get(path, number(row, "children") <= FOLD_ABOVE):
                self.open[path] = self._pages.get(path, 0)
        return self.open != before

    def toggle(self, path: str) -> None:
        """Fold what is open, unfold what is folded."""
        if path in self.open:
            del self.open[path]
            self._wish[path] = False
            return
        self._wish[path] = True
        if len(self.open) >= MAX_OPEN_PATHS:
            idle = next((p for p in self.open if not self._wish.get(p)), None)
            if idle is None:
                return
            del self.open[idle]
        self.open[path] = self._pages.get(path, 0)

    def turn_page(self, path: str, where: str) -> None:
        """Show the children after or before those on screen."""
        step = -PAGE_ROWS if where == "before" else PAGE_ROWS
        offset = max(0, self.open.get(path, 0) + step)
        self._pages[path] = offset
        self.open[path] = offset
        self._wish[path] = True


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a key that stays the same for the same actor, and its cells."""

    key: str
    path: str
    cells: tuple[str, ...]
    row: Row


def widths(total: int) -> tuple[int, ...]:
    """Column widths for a table of `total` characters; spare room goes to names and classes."""
    least = [width for _, width in COLUMNS]
    spare = max(0, total - sum(least) - len(least))
    for index, most in ((0, 72), (1, 10), (2, 24)):
        more = min(spare, most - least[index])
        if index == 0:
            more = min(more, (spare + 1) * 3 // 4)
        least[index] += more
        spare -= more
    return tuple(least)


def make_lines(
    rows: Sequence[Row], rates: Rates, *, opened: Mapping[str, int], tree: bool, filtered: bool
) -> list[Line]:
    """The lines of one snapshot: indented with fold marks in the tree, paths in the top view."""
    lines = []
    for row in rows:
        indent = " " * int(number(row, "depth")) if tree else ""
        if "more_of" in row:
            path = text(row, "more_of")
            where = text(row, "where")
            label = f"{indent}  {int(number(row, 'more'))} more {where}: enter"
            lines.append(Line(f"{path}\n{where}", "", (label, *[""] * 8), row))
            continue
        path = text(row, "path")
        name = text(row, "id") or path
        if tree:
            inside = number(row, "children") > 0 or row.get("mount") is True
            unfolded = filtered or path in opened
            mark = ("▾ " if unfolded else "▸ ") if inside else "  "
            folded = _inside(row) if inside and not unfolded else ""
            name = f"{indent}{mark}{name}{folded}"
        else:
            name = path
        lines.append(Line(path, path, (name, *_figures(row, rates.of(path))), row))
    return lines


def _inside(row: Row) -> str:
    """What a folded place holds: how many children, and the worst state below if it is news."""
    group = row.get("group")
    worst = text(group, "worst") if isinstance(group, dict) else ""
    news = "" if worst in _ORDINARY else f", {worst}!"
    children = int(number(row, "children"))
    return f" ({amount(children)}{news})" if children else ""


def _figures(row: Row, rate: Rate) -> tuple[str, ...]:
    return (
        text(row, "state"),
        text(row, "class"),
        f"{amount(number(row, 'mailbox'))}/{amount(number(row, 'bound'))}",
        amount(rate.messages),
        f"{min(1.0, rate.busy):.0%}",
        amount(number(row, "restarts")),
        age(number(row, "uptime")),
        amount(rate.moved),
    )


__all__ = [
    "COLUMNS",
    "FOLD_ABOVE",
    "PAGE_ROWS",
    "SORTS",
    "Folds",
    "Line",
    "Rate",
    "Rates",
    "age",
    "amount",
    "clip",
    "clip_middle",
    "clip_start",
    "make_lines",
    "number",
    "text",
    "widths",
]
