"""The screens above the table: confirming an act, and help."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tools.inspector.rows import number, text
from wire.admin.limits import MAX_REASON_CHARACTERS
from wire.admin.messages import Row

HELP = """\
up down      move             enter  fold, unfold; on "... more": that page
/            filter by path, class or state; empty ends it; esc leaves
t            tree or top view (all actors, sorted)
< >          top view: sort by the column before or after
F            follow: the cursor stays on its actor (on) or on its line (off)
Z            freeze the picture; again to go on
d            details of the actor under the cursor, refreshed

k            kill: ends at once, without clean-up by the actor itself
c            crash: as if the actor had failed in a handler
s            suspend, or resume a suspended actor
x            stop: ends in order, after what it is doing
             each asks first, and is off with --readonly

columns      mail: messages waiting/bound   rst: restarts   B/s: bytes moved
? q          this help, quit
"""

_CONSEQUENCE = {
    "kill": "It ends at once, in the middle of what it does; its messages may be lost.",
    "crash": "It fails as if a handler had raised; its messages may be lost.",
    "stop": "It ends in order after the message at hand.",
    "suspend": "It handles nothing until resumed; its mailbox fills up to its bound.",
    "resume": "It goes on with the messages that have waited.",
}
_RESTART = {
    "permanent": "Its supervisor starts it again.",
    "transient": "Its supervisor starts it again only after a failure.",
    "temporary": "It is not started again.",
}


_TOGETHER = {
    "one_for_all": "All children of its supervisor are restarted with it.",
    "rest_for_one": "The children of its supervisor started after it are restarted with it.",
}


def consequence(verb: str, row: Row, strategy: str = "") -> str:
    """What will happen when the user agrees; `strategy` is that of the actor's supervisor."""
    said = [_CONSEQUENCE[verb]]
    children = int(number(row, "children"))
    if verb not in ("suspend", "resume"):
        if children:
            said.append(f"Its {children} children end with it.")
        if row.get("mount") is True:
            said.append("The process it owns ends with it.")
        restart = text(row, "restart")
        said.append(_RESTART.get(restart, ""))
        comes_back = restart == "permanent" or (restart == "transient" and verb != "stop")
        if comes_back and strategy in _TOGETHER:
            said.append(_TOGETHER[strategy])
    return " ".join(said).strip()


class ConfirmScreen(ModalScreen[str | None]):
    """Asks before acting; the answer is the reason given, None for no."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "no", "no")]

    def __init__(self, verb: str, path: str, row: Row, strategy: str = "") -> None:
        super().__init__()
        self._verb = verb
        self._path = path
        self._consequence = consequence(verb, row, strategy)

    def compose(self) -> ComposeResult:
        """The question, the consequence, room for a reason."""
        with Vertical(id="dialog"):
            yield Static(f"{self._verb} {self._path} ?", id="question", markup=False)
            yield Static(self._consequence, id="consequence", markup=False)
            yield Input(
                placeholder="reason (may be empty)", max_length=MAX_REASON_CHARACTERS, id="reason"
            )
            yield Static(f"enter: {self._verb}    esc: leave it alone", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """The reason is nobody else's business: the app below listens for its filter."""
        event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Agreed."""
        event.stop()
        self.dismiss(event.value.strip())

    def action_no(self) -> None:
        """Refused."""
        self.dismiss(None)


class HelpScreen(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "close", "close")
    ]

    def compose(self) -> ComposeResult:
        """One page."""
        with VerticalScroll(id="help"):
            yield Static(HELP, markup=False)

    def action_close(self) -> None:
        """Back to the table."""
        self.dismiss(None)


__all__ = ["ConfirmScreen", "HelpScreen", "consequence"]
