"""Supervision reports: one event and one log line per exit, with the decision taken.

Exits alike (crashes at the same place; otherwise the same kind of exit of the same class) are
logged at most `PER_MINUTE` times a minute; the next line after that says how many were left out.
What an operator did is always logged. Events are never left out. A report names message types and
resource kinds only, never payload, tokens or keys.

Source: docs/runtime.md section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from loguru import logger

from .events import Event
from .reasons import ExitReason

if TYPE_CHECKING:
    from .cell import Cell

PER_MINUTE: Final = 5
#: Distinct failures remembered for suppression; the oldest is forgotten.
MAX_FINGERPRINTS: Final = 512


class Reporter:
    """Publishes and logs what supervisors decide."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int, int]] = {}

    def exited(
        self,
        supervisor: Cell,
        cell: Cell,
        reason: ExitReason,
        uptime: float,
        decision: str,
        *,
        attempt: int = 0,
        window: Mapping[str, object] | None = None,
        siblings_stopped: int = 0,
    ) -> None:
        """Report one exit of `cell` and what its supervisor does about it.

        Args:
            attempt: which restart in a row this would be, for the backoff.
            window: how much of the restart intensity is spent.
            siblings_stopped: how many siblings stop because of it.
        """
        system = cell.system
        mailbox = cell.mailbox
        initiator = reason.initiator or cell.initiator
        fields: dict[str, object] = {
            "supervisor": supervisor.path,
            "restart": cell.spec.restart.value,
            "reason": str(reason),
            "kind": reason.kind.value,
            "decision": decision,
            "uptime": round(uptime, 6),
            "restarts": cell.restarts,
            "last_message": cell.last_type.__name__ if cell.last_type else "",
            "high_water": mailbox.high_water,
            "dead_letters": cell.dead,
        }
        remains = cell.remains
        if remains is not None:
            fields["class"] = remains.class_name
            fields["depth"] = remains.depth
            fields["asks_failed"] = remains.asks_failed
            if remains.resources:
                fields["resources"] = remains.resources
            if remains.resource_errors:
                fields["resource_errors"] = remains.resource_errors
        if attempt:
            fields["attempt"] = attempt
        if window is not None:
            fields["window"] = window
        if siblings_stopped:
            fields["siblings_stopped"] = siblings_stopped
        if initiator:
            fields["initiator"] = initiator
        fingerprint = reason.fingerprint
        if fingerprint:
            fields["traceback"] = reason.traceback
            fields["fingerprint"] = fingerprint
        system.events.publish(Event("exited", cell.path, cell.incarnation, fields))
        self._log(cell, reason, uptime, decision, initiator, fingerprint)

    def _log(
        self,
        cell: Cell,
        reason: ExitReason,
        uptime: float,
        decision: str,
        initiator: str,
        fingerprint: str,
    ) -> None:
        if not reason.abnormal or decision in ("supervisor ended", "start refused"):
            # Its supervisor's own report says what happened to all of them, or who started it.
            logger.bind(actor=cell.path).debug("actor ended: {}; {}", reason, decision)
            return
        class_name = cell.remains.class_name if cell.remains is not None else ""
        alike = "" if initiator else fingerprint or f"{reason.kind.value} {class_name}"
        suppressed = self._suppressed(alike, cell.system.clock())
        if suppressed is None:
            return
        text = f"\n{reason.traceback.rstrip()}" if reason.traceback else ""
        more = f" ({suppressed} equal reports left out)" if suppressed else ""
        by = f", by {initiator}" if initiator else ""
        logger.bind(actor=cell.path, incarnation=cell.incarnation).log(
            "WARNING" if initiator else "ERROR",
            "actor ended: {}{} after {:.3f} s; {}{}{}",
            reason,
            by,
            uptime,
            decision,
            more,
            "" if initiator else text,
        )

    def _suppressed(self, alike: str, now: float) -> int | None:
        """None: leave this one out. Otherwise how many were left out before it."""
        if not alike:
            return 0
        start, count, left_out = self._windows.pop(alike, (now, 0, 0))
        before = 0
        if now - start >= 60.0:
            start, count, before, left_out = now, 0, left_out, 0
        if count >= PER_MINUTE:
            self._windows[alike] = (start, count, left_out + 1)
            return None
        while len(self._windows) >= MAX_FINGERPRINTS:
            del self._windows[next(iter(self._windows))]
        self._windows[alike] = (start, count + 1, left_out)
        return before
