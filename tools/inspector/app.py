"""The inspector's main screen: table of actors, details, recent supervision events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ClassVar, ParamSpec

from rich.text import Text
from textual.app import App, ComposeResult, ScreenStackError
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.css.query import NoMatches
from textual.events import Resize
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import DataTable, Input, Static

from tools.control_client import ControlError, Disconnected
from tools.inspector.reports import detail_lines, event_line
from tools.inspector.rows import (
    COLUMNS,
    PAGE_ROWS,
    SORTS,
    Folds,
    Line,
    Rates,
    clip,
    clip_middle,
    clip_start,
    make_lines,
    number,
    text,
    widths,
)
from tools.inspector.screens import ConfirmScreen, HelpScreen
from tools.inspector.subscriptions import Subscriptions
from wire.admin.limits import MAX_FILTER_CHARACTERS, MAX_WATCH_ROWS
from wire.admin.messages import Row

#: Events kept for the bottom pane; the oldest is forgotten.
KEPT_EVENTS = 50
#: Columns of words stand left, those of numbers after them right.
WORD_COLUMNS = 3
LOOK_KEYS = "/filter t:top <>:sort d:detail"
ACT_KEYS = "k:kill c:crash s:suspend x:stop"
#: Seconds an answer to a key stays before the keys are shown again.
MESSAGE_SECONDS = 8.0

P = ParamSpec("P")


def _while_shown(update: Callable[P, None]) -> Callable[P, None]:
    """For what comes by itself: on the way out it may find its widgets gone already."""

    @wraps(update)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            update(*args, **kwargs)
        except (NoMatches, ScreenStackError):
            pass  # nobody looks any more

    return call


class InspectorApp(App[None]):
    """Shows one daemon.

    Args:
        socket: its control socket.
        readonly: never act on actors.
        interval: seconds between two pictures.
    """

    CSS_PATH = "inspector.tcss"
    TITLE = "trunkline inspect"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter"),
        Binding("t", "view", "tree/top"),
        Binding("less_than_sign", "sort(-1)", "sort"),
        Binding("greater_than_sign", "sort(1)", "sort"),
        Binding("F", "follow", "follow"),
        Binding("Z", "freeze", "freeze"),
        Binding("d", "detail", "detail"),
        Binding("k", "act('kill')", "kill"),
        Binding("c", "act('crash')", "crash"),
        Binding("s", "act('suspend')", "suspend"),
        Binding("x", "act('stop')", "stop"),
        Binding("question_mark", "help", "help"),
        Binding("q", "quit", "quit"),
        Binding("escape", "leave", "leave", show=False),
    ]

    def __init__(self, socket: Path, *, readonly: bool = False, interval: float = 1.0) -> None:
        super().__init__()
        self._socket = socket
        self._readonly = readonly
        self._interval = interval
        self._subscriptions = Subscriptions(
            socket,
            self._query,
            on_snapshot=self._take_snapshot,
            on_event=self._take_event,
            on_state=self._take_state,
        )
        self._folds = Folds()
        self._rates = Rates()
        self._lines: list[Line] = []
        self._snapshot: Row = {}
        self._events: deque[Row] = deque(maxlen=KEPT_EVENTS)
        self._trouble = "connecting"
        self._tree = True
        self._needle = ""
        self._sort = 0
        self._follow = True
        self._frozen = False
        self._widths: tuple[int, ...] = ()
        self._drawn: list[tuple[str, ...]] = []
        self._message_timer: Timer | None = None

    # Screen.

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="status", markup=False)
        yield Input(placeholder="filter", max_length=MAX_FILTER_CHARACTERS, id="filter")
        yield DataTable[Text](id="table", cursor_type="row", cell_padding=0)
        with VerticalScroll(id="detail", can_focus=False):
            yield Static(id="detail-text", markup=False)
        yield Static(id="events", markup=False)
        yield Static(self._keys(), id="message", markup=False)

    def on_mount(self) -> None:
        """Begin."""
        self._table.focus()
        self.run_worker(self._subscriptions.run(), name="link", exit_on_error=True)
        self.set_interval(self._interval, self._refresh_detail)
        self._show_status()

    @property
    def _main(self) -> Screen[object]:
        """The screen with the tree; a dialog may be on top.

        Raises:
            ScreenStackError: the app ends.
        """
        if not self.screen_stack:
            raise ScreenStackError("no screen any more")
        return self.screen_stack[0]

    @property
    def _table(self) -> DataTable[Text]:
        return self._main.query_one("#table", DataTable)

    @_while_shown
    def _say(self, name: str, words: str | Text) -> None:
        self._main.query_one(f"#{name}", Static).update(words)

    @_while_shown
    def on_resize(self, event: Resize) -> None:
        """Columns use the width there is."""
        self._widths = widths(event.size.width - 1)
        table = self._table
        key = self._cursor_key()
        table.clear(columns=True)
        for index, ((title, _), width) in enumerate(zip(COLUMNS, self._widths, strict=True)):
            shown = title.rjust(width) if index >= WORD_COLUMNS else title
            table.add_column(Text(shown), key=title, width=width + 1)
        self._fill(key, table.cursor_row)
        self._show_events()
        self._show_status()

    # What comes from the daemon.

    def _query(self) -> Row:
        query: Row = {
            "view": "tree" if self._tree else "top",
            "filter": self._needle,
            "max_rows": MAX_WATCH_ROWS,
            "page": PAGE_ROWS,
            "interval": self._interval,
        }
        if self._tree:
            query["open"] = dict(self._folds.open)
        else:
            query["sort"] = SORTS[self._sort][1]
            query["descending"] = SORTS[self._sort][1] != "start"
        return query

    @_while_shown
    def _take_snapshot(self, snapshot: Row) -> None:
        if self._frozen or snapshot.get("view") != ("tree" if self._tree else "top"):
            return
        self._snapshot = snapshot
        rows = self._rows()
        self._rates.update(number(snapshot, "at"), rows)
        if self._tree and not self._needle and self._folds.learn(rows):
            self._subscriptions.ask_again()
        self._show_rows()
        self._show_status()

    def _rows(self) -> list[Row]:
        rows = self._snapshot.get("rows")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    @_while_shown
    def _take_event(self, event: Row) -> None:
        self._events.append(event)
        if not self._frozen:
            self._show_events()

    @_while_shown
    def _take_state(self, trouble: str) -> None:
        if self._trouble and not trouble:
            # The daemon replays its past; what was shown before may be of another one.
            self._events.clear()
            self._rates = Rates()
        self._trouble = trouble
        self._show_status()

    # Showing.

    def _show_rows(self) -> None:
        key, row = self._cursor_key(), self._table.cursor_row
        self._lines = make_lines(
            self._rows(),
            self._rates,
            opened=self._folds.open,
            tree=self._tree,
            filtered=bool(self._needle),
        )
        self._fill(key, row)

    def _cells(self, line: Line) -> list[Text]:
        if not line.path:
            return [Text(line.cells[0]), *[Text("")] * (len(COLUMNS) - 1)]
        cells = []
        for index, (value, width) in enumerate(zip(line.cells, self._widths, strict=True)):
            if index == 0:
                shown = clip_middle(value, width) if self._tree else clip_start(value, width)
            else:
                shown = clip(value, width)
            # Numbers stand right, words left.
            shown = shown.rjust(width) if index >= WORD_COLUMNS else shown
            quiet = index != 1 or value in ("running", "busy")
            cells.append(Text(shown, style="" if quiet else "bold", no_wrap=True))
        return cells

    def _fill(self, key: str, row: int) -> None:
        """Put the lines into the table; rebuild it only when other actors are shown."""
        table = self._table
        if not self._widths:
            return
        keys = [line.key for line in self._lines]
        drawn = [line.cells for line in self._lines]
        if keys == [str(known.value) for known in table.rows]:
            for index, line in enumerate(self._lines):
                if line.cells == self._drawn[index]:
                    continue
                for column, cell in enumerate(self._cells(line)):
                    place = Coordinate(index, column)
                    if table.get_cell_at(place) != cell:
                        table.update_cell_at(place, cell)
            self._drawn = drawn
            return
        self._drawn = drawn
        scroll = table.scroll_y
        table.clear()
        for line in self._lines:
            table.add_row(*self._cells(line), key=line.key)
        if self._follow and key in keys:
            row = keys.index(key)
        table.move_cursor(row=max(0, min(row, len(keys) - 1)), scroll=False)
        table.scroll_to(y=scroll, animate=False, immediate=True)
        self.call_after_refresh(self._keep_cursor_in_sight)

    @_while_shown
    def _keep_cursor_in_sight(self) -> None:
        table = self._table
        top = round(table.scroll_y)
        height = max(1, table.size.height - 1)
        if table.cursor_row < top:
            table.scroll_to(y=table.cursor_row, animate=False)
        elif table.cursor_row >= top + height:
            table.scroll_to(y=table.cursor_row - height + 1, animate=False)

    def _show_status(self) -> None:
        if self._trouble:
            said = [f"disconnected, retrying: {self._trouble}"]
        else:
            totals = self._snapshot.get("totals")
            actors = int(number(totals, "actors")) if isinstance(totals, dict) else 0
            view = "tree" if self._tree else f"top by {SORTS[self._sort][0]}"
            said = [self._subscriptions.node, f"{actors} actors", view]
            if self._needle:
                said.append(f'filter "{self._needle}"')
            if self._snapshot.get("truncated") is True:
                said.append(f"first {MAX_WATCH_ROWS} rows only")
            missing = self._snapshot.get("unavailable")
            if isinstance(missing, list) and missing:
                said.append(f"{len(missing)} process(es) not answering")
        if self._frozen:
            said.append("FROZEN")
        if not self._follow:
            said.append("follow off")
        if self._readonly:
            said.append("read-only")
        self._say("status", " " + " · ".join(said))

    def _show_events(self) -> None:
        width = max(20, self.size.width)
        latest = list(self._events)[-5:]
        shown = "\n".join(event_line(event, width) for event in latest)
        self._say("events", shown)

    def say(self, words: str) -> None:
        """Tell the user what came of his last key."""
        self._say("message", words)
        if self._message_timer is not None:
            self._message_timer.stop()
        self._message_timer = self.set_timer(MESSAGE_SECONDS, self._show_keys)

    @_while_shown
    def _show_keys(self) -> None:
        self._say("message", self._keys())

    def _keys(self) -> str:
        return " ".join([LOOK_KEYS, *([] if self._readonly else [ACT_KEYS]), "?:help q:quit"])

    # The cursor.

    def _current(self) -> Line | None:
        row = self._table.cursor_row
        return self._lines[row] if 0 <= row < len(self._lines) else None

    def _cursor_key(self) -> str:
        line = self._current()
        return line.key if line is not None else ""

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter: fold, unfold, turn the page."""
        event.stop()
        line = self._current()
        if line is None or not self._tree:
            return
        if not line.path:
            self._folds.turn_page(text(line.row, "more_of"), text(line.row, "where"))
        elif number(line.row, "children") > 0 or line.row.get("mount") is True:
            if self._needle:
                self.say("a filtered tree is always unfolded")
                return
            self._folds.toggle(line.path)
        self._subscriptions.ask_again()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Another actor under the cursor: show its details."""
        event.stop()
        self._refresh_detail()

    # Keys.

    def action_filter(self) -> None:
        """Ask for a filter."""
        box = self.query_one("#filter", Input)
        box.add_class("shown")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        event.stop()
        self._needle = event.value.strip()
        self._subscriptions.ask_again()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the table; the status line tells the filter."""
        event.stop()
        event.input.remove_class("shown")
        self._table.focus()

    def action_leave(self) -> None:
        """Esc: end the filter, then the detail pane."""
        if len(self.screen_stack) > 1:
            return
        box = self.query_one("#filter", Input)
        if self._needle or box.has_class("shown"):
            box.value = ""
            box.remove_class("shown")
        else:
            self.query_one("#detail").remove_class("shown")
        self._table.focus()

    def action_view(self) -> None:
        """Tree or top."""
        self._tree = not self._tree
        self._subscriptions.ask_again()
        self._show_status()

    def action_sort(self, step: int) -> None:
        """The next or previous sort column of the top view."""
        if self._tree:
            self.say("the tree is in start order; t for the sorted view")
            return
        self._sort = (self._sort + step) % len(SORTS)
        self._subscriptions.ask_again()
        self._show_status()

    def action_follow(self) -> None:
        """Whether the cursor keeps its actor or its line."""
        self._follow = not self._follow
        self._show_status()

    def action_freeze(self) -> None:
        """Stop or go on showing what comes."""
        self._frozen = not self._frozen
        if not self._frozen:
            self._show_events()
            self._subscriptions.ask_again()
        self._show_status()

    def action_detail(self) -> None:
        """Show or hide the detail pane."""
        self.query_one("#detail").toggle_class("shown")
        self.call_after_refresh(self._keep_cursor_in_sight)
        self._refresh_detail()

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(HelpScreen())

    @_while_shown
    def _refresh_detail(self) -> None:
        line = self._current()
        if not self._main.query_one("#detail").has_class("shown") or self._frozen:
            return
        if line is not None and line.path and not self._trouble:
            self.run_worker(self._load_detail(line.path), group="detail", exclusive=True)

    async def _load_detail(self, path: str) -> None:
        try:
            details = await self._subscriptions.request("describe", path=path)
        except (ControlError, Disconnected) as error:
            words = f"{path}\n{error}"
        except TimeoutError:
            words = f"{path}\nno answer in time"
        else:
            words = "\n".join(detail_lines(details))
        self._say("detail-text", words)

    # Acting.

    def action_act(self, verb: str) -> None:
        """Ask, then do it."""
        line = self._current()
        if len(self.screen_stack) > 1 or line is None or not line.path:
            return
        if self._readonly:
            self.say(f"{verb}: not with --readonly")
            return
        if verb == "suspend" and text(line.row, "state") == "suspended":
            verb = "resume"
        path = line.path

        def answered(reason: str | None) -> None:
            if reason is None:
                self.say(f"{path} left alone")
            else:
                self.run_worker(self._act(verb, path, reason), group="acts")

        above = path.rpartition("/")[0] or "/"
        rows = (known.row for known in self._lines if known.path == above)
        strategy = text(next(rows, {}), "strategy")
        self.push_screen(ConfirmScreen(verb, path, line.row, strategy), answered)

    async def _act(self, verb: str, path: str, reason: str) -> None:
        try:
            await self._subscriptions.request(verb, path=path, reason=reason)
        except (ControlError, Disconnected) as error:
            self.say(f"refused: {error}")
        except TimeoutError:
            self.say(f"{verb} {path}: no answer in time")
        else:
            self.say(f"{verb} {path}: done")
            self._subscriptions.ask_again()


__all__ = ["InspectorApp"]
