"""What `tell`, `ask` and `start_child` can raise.

::

    RuntimeFault
    ├── AskFailed           an ask came to nothing, as any ask may: what most callers catch
    │   ├── NoAnswer        nobody answered; asking again later may help
    │   │   ├── MailboxFull the target's mailbox is at its bound (policy reject)
    │   │   ├── ActorDown   the target is dead, died meanwhile, or is between two incarnations
    │   │   └── AskTimeout  no answer before the deadline
    │   └── ReplyError      the target refused with a value; it lives on
    ├── AskCycle            the target is already waiting for us: it would dead-lock
    ├── TooManyAsks         the caller has too many unanswered asks
    ├── ChildRefused        a supervisor does not take this child (full, duplicate, stopping)
    └── BadChildSpec        a child spec or tree that can never work

`StartRefused` goes the other way: an actor\'s `init` raises it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .reasons import ExitReason


class RuntimeFault(Exception):
    """Root of everything the runtime raises at its callers."""


class AskFailed(RuntimeFault):
    """An ask came to nothing: no answer, or a refusal."""


class NoAnswer(AskFailed):
    """Nobody answered; asking again later may help. (`MailboxFull` is raised by `tell` too.)"""


class MailboxFull(NoAnswer):
    """The mailbox of `path` holds `bound` messages."""

    def __init__(self, path: str, bound: int) -> None:
        super().__init__(f"mailbox of {path} is full ({bound} messages)")
        self.path = path
        self.bound = bound


class ActorDown(NoAnswer):
    """The actor at `path` cannot answer; `reason` says why."""

    def __init__(self, path: str, incarnation: int, reason: ExitReason) -> None:
        super().__init__(f"{path} is down: {reason}")
        self.path = path
        self.incarnation = incarnation
        self.reason = reason


class AskTimeout(NoAnswer):
    """`path` did not answer a message of type `message_type` within `timeout` seconds."""

    def __init__(self, path: str, message_type: str, timeout: float) -> None:
        super().__init__(f"{path} did not answer {message_type} within {timeout:g} s")
        self.path = path


class AskCycle(RuntimeFault):
    """Asking `path` would wait for an actor that waits for us."""

    def __init__(self, path: str) -> None:
        super().__init__(f"asking {path} would dead-lock: it is waiting for this ask's caller")
        self.path = path


class TooManyAsks(RuntimeFault):
    """The caller already waits for `limit` answers."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(f"{path} has {limit} unanswered asks")


class ReplyError(AskFailed):
    """A typed refusal: `refusal` is the value the target answered with."""

    def __init__(self, refusal: object) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class ChildRefused(RuntimeFault):
    """A supervisor refused to start a child; `why` is one of full, duplicate, stopping, down."""

    def __init__(self, supervisor: str, child_id: str, why: str) -> None:
        super().__init__(f"{supervisor} refused child {child_id!r}: {why}")
        self.why = why


class BadChildSpec(RuntimeFault):
    """A child spec, supervisor setting or message handler that can never work."""


class StartRefused(Exception):
    """Raised by `init`, or by the factory of an actor: with these settings it
    cannot start, and trying again is no help.

    While the tree comes up for the first time it ends the whole start at once, without restarts or
    traceback; whoever started the program reads the sentence. Later, in a running tree, the place
    is restarted like any other, as an address may be free again.

    The text is one sentence: the setting, its value, the cause, and what to do.
    """


#: What helps, by what the system said.
_REMEDIES: Final = {
    errno.EADDRINUSE: "; another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "; no interface of this host has that address",
    errno.EACCES: "; this user may not: see the owner and mode, or CAP_NET_BIND_SERVICE for a port",
    errno.ENOENT: "; make its directory first",
}


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """What the operating system refuses within (`OSError`) becomes `StartRefused`.

    Args:
        setting: the dotted key the refused value came from, for the sentence.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise StartRefused(f"{setting}: {where}{error.strerror or error}{remedy}") from None
