"""Why an actor ended.

An exit reason is a small immutable value. It never keeps the exception itself, because a
traceback pins every frame it passed through, with their buffers and connections: it keeps the
text only. `abnormal` decides whether a transient child is restarted.

Source: docs/runtime.md section 5.
"""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass
from enum import Enum


class ExitKind(Enum):
    """The kinds of exit; the value is the word used in reports, logs and the inspector."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    KILLED = "killed"
    CRASH = "crash"
    INIT_FAILED = "init_failed"
    RESOURCE = "resource"
    LINKED = "linked"
    ESCALATED = "escalated"
    STUCK = "stuck"
    # Answers only: what a caller or a monitor hears about a place without a running actor.
    NOPROC = "noproc"
    RESTARTING = "restarting"
    INCARNATION = "incarnation"
    NODE_DOWN = "node_down"


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
        """Eight hex digits that are equal for crashes with the same traceback; empty without."""
        if not self.traceback:
            return ""
        return hashlib.blake2s(self.traceback.encode(), digest_size=4).hexdigest()

    def __str__(self) -> str:
        inner = ", ".join(part for part in (self.detail, self.error) if part)
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

    The exception's own `__traceback__` is cleared, so that nothing the failed actor touched
    stays alive because somebody kept the reason.
    """
    text = "".join(traceback.format_exception(exc))
    message = str(exc).splitlines()
    error = f"{type(exc).__name__}: {message[0]}" if message else type(exc).__name__
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return ExitReason(kind, detail=detail, error=error[:300], traceback=text[-8000:])
