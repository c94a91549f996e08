"""Why an actor ended.

An exit reason is a small immutable value. It never keeps the exception itself, because a
traceback pins every frame it passed through, with their buffers and connections: it keeps the
text only. `abnormal` decides whether a transient child is restarted.

Source: docs/runtime.md section 5.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum

from .tracebacks import drop_frames, format_failure, one_line


class ExitKind(Enum):
    """The kinds of exit; the value is the word used in reports, logs and the inspector."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    KILLED = "killed"
    CRASH = "crash"
    INIT_FAILED = "init_failed"
    REFUSED = "refused"
    RESOURCE = "resource"
    LINKED = "linked"
    ESCALATED = "escalated"
    STUCK = "stuck"
    # Answers only: what a caller or a monitor hears about a place without a running actor.
    NOPROC = "noproc"
    RESTARTING = "restarting"
    INCARNATION = "incarnation"
    NODE_DOWN = "node_down"
    MAILBOX_FULL = "mailbox_full"
    EXPIRED = "expired"


_FRAMES = re.compile(r'^ +File ".*$', re.MULTILINE)
_GRACEFUL = frozenset({ExitKind.NORMAL, ExitKind.SHUTDOWN})


@dataclass(frozen=True, slots=True)
class ExitReason:
    """One exit reason.

    Attributes:
        kind: the class of exit.
        detail: free text, e.g. `goaway` in `shutdown(goaway)`; never payload or secrets.
        error: `ExceptionType: message`, one line; empty when no exception was involved.
        traceback: formatted traceback text, empty when none.
        initiator: who asked for it (an operator, a chaos run), empty when nobody did.
    """

    kind: ExitKind
    detail: str = ""
    error: str = ""
    traceback: str = ""
    initiator: str = ""

    @property
    def abnormal(self) -> bool:
        """True when a transient child with this exit is restarted."""
        return self.kind not in _GRACEFUL

    @property
    def fingerprint(self) -> str:
        """Eight hex digits, equal for the same exception type raised at the same place.

        Messages are left out, as they often hold an address or a number. Empty without
        traceback.
        """
        if not self.traceback:
            return ""
        lines: list[str] = _FRAMES.findall(self.traceback)
        lines.append(self.error.partition(":")[0])
        text = "\n".join(lines).encode("utf-8", "replace")
        return hashlib.blake2s(text, digest_size=4).hexdigest()

    def __str__(self) -> str:
        detail, error = self.detail, self.error
        inner = f"{detail}, {error}" if detail and error else detail or error
        return f"{self.kind.value}({inner})" if inner else self.kind.value


NORMAL = ExitReason(ExitKind.NORMAL)
SHUTDOWN = ExitReason(ExitKind.SHUTDOWN)
KILLED = ExitReason(ExitKind.KILLED)
NOPROC = ExitReason(ExitKind.NOPROC)


def shutdown(detail: str) -> ExitReason:
    """`shutdown(detail)`: a wanted end with a word why, such as `goaway` or `expired`."""
    return ExitReason(ExitKind.SHUTDOWN, detail)


def from_exception(kind: ExitKind, exc: BaseException, detail: str = "") -> ExitReason:
    """Freeze an exception into a reason and drop its frames.

    Never raises, whatever the exception does when it is looked at.
    """
    text = format_failure(exc)
    error = one_line(exc)
    drop_frames(exc)
    return ExitReason(kind, detail, error, text)
