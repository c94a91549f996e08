"""Monitors and links: who hears of whose end.

A monitor is one-way and gets exactly one `Down`, in the user lane, after everything the dead
actor had sent. A link is symmetric and joins two fates. Neither has to do with supervision.

Rules:
1. A monitor set while its target lives or ends is about that incarnation.
2. Set while the target waits for its restart (or for its supervisor's decision), it is about the
   next incarnation; when there will be none, its `Down` comes as soon as that is decided.
3. Set on a place that is gone, its `Down` comes at once, with reason `noproc`.
4. Links and the monitors an actor holds end with its incarnation.

Source: docs/runtime.md section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from .lifecycle import State
from .messages import Down, ExitSignal
from .reasons import NOPROC, ExitKind, ExitReason
from .signals import Notice

if TYPE_CHECKING:
    from .cell import Cell

    #: An actor's cell with its incarnation, or a callback of code outside actors.
    Watcher = tuple[Cell, int] | Callable[[Down], None]


def monitor(cell: Cell, target: Cell) -> int:
    """Let `cell` hear of the end of `target`. Returns the token of its `Down`."""
    token = cell.system.next_token()
    if cell.released:
        return token  # it is ending itself and will serve no message any more
    if cell.watching is None:
        cell.watching = {}
    cell.watching[token] = target
    if target.state is State.STOPPED:
        down = Down(token, target.path, target.incarnation, NOPROC)
        cell.mailbox.offer_reserved(Notice(down))
    else:
        add_watcher(target, token, (cell, cell.incarnation))
    return token


def add_watcher(target: Cell, token: int, watcher: Watcher) -> None:
    """Remember whom to tell about the end of the present (or next) incarnation."""
    if target.monitors is None:
        target.monitors = {}
    target.monitors[token] = watcher


def demonitor(cell: Cell, token: int) -> None:
    """Forget a monitor; the `Down` that may be queued is then skipped."""
    if cell.watching is not None:
        target = cell.watching.pop(token, None)
        if target is not None and target.monitors is not None:
            target.monitors.pop(token, None)


def forget_watching(cell: Cell) -> None:
    """The monitors an actor holds end with it."""
    watching, cell.watching = cell.watching, None
    for token, target in (watching or {}).items():
        if target.monitors is not None:
            target.monitors.pop(token, None)


def notify_monitors(cell: Cell, reason: ExitReason) -> None:
    """Every monitor of `cell` gets its one `Down`."""
    monitors, cell.monitors = cell.monitors, None
    for token, watcher in (monitors or {}).items():
        down = Down(token, cell.path, cell.incarnation, reason)
        if isinstance(watcher, tuple):
            observer, incarnation = watcher
            if observer.incarnation == incarnation and not observer.released:
                observer.mailbox.offer_reserved(Notice(down))
            continue
        try:
            watcher(down)
        except Exception:  # noqa: BLE001  # a broken observer must not hurt what it observes
            logger.exception("monitor callback failed")


def take_notice(cell: Cell, notice: Notice) -> bool:
    """True when a queued `Down` is still wanted; its monitor is then used up."""
    return cell.watching is not None and cell.watching.pop(notice.down.token, None) is not None


def link(cell: Cell, other: Cell) -> None:
    """Join two fates; a link to a place where nobody runs is broken at once."""
    if cell.released or other is cell:
        return
    if other.released or not State.NEW < other.state <= State.STOPPING:
        exit_of_link(cell, other.path, other.incarnation, NOPROC)
        return
    for one, two in ((cell, other), (other, cell)):
        if one.links is None:
            one.links = {}
        one.links[two] = None


def unlink(cell: Cell, other: Cell) -> None:
    """Undo `link`."""
    for one, two in ((cell, other), (other, cell)):
        if one.links is not None:
            one.links.pop(two, None)


def break_links(cell: Cell, reason: ExitReason) -> None:
    """Tell the peers, after taking both ends of every link away."""
    peers, cell.links = cell.links, None
    for peer in peers or ():
        if peer.links is not None:
            peer.links.pop(cell, None)
        exit_of_link(peer, cell.path, cell.incarnation, reason)


def exit_of_link(cell: Cell, path: str, incarnation: int, reason: ExitReason) -> None:
    """A linked actor ended with `reason`."""
    if not State.NEW < cell.state < State.STOPPING or not reason.abnormal:
        return
    if cell.actor is not None and cell.actor.trap_exits:
        cell.mailbox.offer_system(ExitSignal(path, incarnation, reason))
    else:
        cell.abort(ExitReason(ExitKind.LINKED, f"{path}: {reason}"))
