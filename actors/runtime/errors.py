"""What `tell`, `ask` and `start_child` can raise.

::

    RuntimeFault
    ├── AskFailed           an ask came to nothing, as any ask may: what most callers catch
    │   ├── NoAnswer        nobody answered; asking again later may help
    │   │   ├── MailboxFull the target's mailbox is at its bound (policy reject or wait)
    │   │   ├── ActorDown   the target is dead, died meanwhile, or is between two incarnations
    │   │   └── AskTimeout  no answer before the deadline
    │   └── ReplyError      the target refused with a value; it lives on
    ├── AskCycle            the target is already waiting for us: it would dead-lock
    ├── TooManyAsks         the caller has too many unanswered asks
    ├── ChildRefused        a supervisor does not take this child (full, duplicate, stopping)
    └── BadChildSpec        a child spec or tree that can never work
"""

from __future__ import annotations

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
