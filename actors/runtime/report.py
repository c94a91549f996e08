"""Supervision reports: one event and one log line per exit, with the decision taken.

Crashes with the same traceback are logged at most `PER_MINUTE` times a minute; the next line
after that says how many were left out. Events are never left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from .events import Event
from .reasons import ExitReason

if TYPE_CHECKING:
    from .cell import Cell

PER_MINUTE = 5
#: Distinct tracebacks remembered for suppression; the oldest is forgotten.
MAX_FINGERPRINTS = 512


class Reporter:
    """Publishes and logs what supervisors decide."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int, int]] = {}

    def exited(
        self, supervisor: Cell, cell: Cell, reason: ExitReason, uptime: float, decision: str
    ) -> None:
        """Report one exit of `cell` and what its supervisor does about it."""
        system = cell.system
        mailbox = cell.mailbox
        fields: dict[str, object] = {
            "supervisor": supervisor.path,
            "restart": cell.spec.restart.value,
            "reason": str(reason),
            "kind": reason.kind.value,
            "decision": decision,
            "uptime": round(uptime, 6),
            "restarts": cell.restarts,
            "last_message": cell.last_type.__name__ if cell.last_type else "",
            "depth": len(mailbox.queue),
            "high_water": mailbox.high_water,
            "dead_letters": cell.dead,
        }
        initiator = reason.initiator or cell.initiator
        if initiator:
            fields["initiator"] = initiator
        if reason.traceback:
            fields["traceback"] = reason.traceback
            fields["fingerprint"] = reason.fingerprint
        system.events.publish(Event("exited", cell.path, cell.incarnation, fields))
        if not reason.abnormal:
            logger.bind(actor=cell.path).debug("actor ended: {}; {}", reason, decision)
            return
        suppressed = self._suppressed(reason.fingerprint, system.loop.time())
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

    def _suppressed(self, fingerprint: str, now: float) -> int | None:
        """None: leave this one out. Otherwise how many were left out before it."""
        if not fingerprint:
            return 0
        start, count, left_out = self._windows.get(fingerprint, (now, 0, 0))
        if now - start >= 60.0:
            start, count, before = now, 0, left_out
            left_out = 0
        else:
            before = 0
        if count >= PER_MINUTE:
            self._windows[fingerprint] = (start, count, left_out + 1)
            return None
        if fingerprint not in self._windows and len(self._windows) >= MAX_FINGERPRINTS:
            del self._windows[next(iter(self._windows))]
        self._windows[fingerprint] = (start, count + 1, left_out)
        return before
