"""The actor runtime: mailboxes, supervision, monitors, timers, inspection on plain asyncio.

It knows nothing of relays. docs/runtime.md is its specification; this module is its public API.
"""

from __future__ import annotations

from .actor import Actor, Guard, handles, unguarded
from .asks import Reply
from .child_spec import KILL, UNBOUNDED, ChildSpec, Restart, escape_id
from .dynamic import DynamicSupervisor
from .errors import (
    ActorDown,
    AskCycle,
    AskFailed,
    AskTimeout,
    BadChildSpec,
    ChildRefused,
    MailboxFull,
    NoAnswer,
    ReplyError,
    RuntimeFault,
    StartRefused,
    TooManyAsks,
    naming,
)
from .events import DeadLetter, Event, EventStream
from .mailbox import MailboxSpec, MailboxStatistics, Overflow
from .messages import DEFERRED, Deferred, Down, ExitSignal, Refusal, Request
from .owned_task import OwnedTask
from .reasons import KILLED, NORMAL, SHUTDOWN, ExitKind, ExitReason, shutdown
from .ref import ActorRef, PinnedRef
from .resources import Resource
from .restart import Backoff, Intensity
from .supervisor import Strategy, Supervisor
from .system import ActorSystem
from .timers import Timer
from .tracing import TraceRecord

__all__ = [
    "DEFERRED",
    "KILL",
    "KILLED",
    "NORMAL",
    "SHUTDOWN",
    "UNBOUNDED",
    "Actor",
    "ActorDown",
    "ActorRef",
    "ActorSystem",
    "AskCycle",
    "AskFailed",
    "AskTimeout",
    "Backoff",
    "BadChildSpec",
    "ChildRefused",
    "ChildSpec",
    "DeadLetter",
    "Deferred",
    "Down",
    "DynamicSupervisor",
    "Event",
    "EventStream",
    "ExitKind",
    "ExitReason",
    "ExitSignal",
    "Guard",
    "Intensity",
    "MailboxFull",
    "MailboxSpec",
    "MailboxStatistics",
    "NoAnswer",
    "Overflow",
    "OwnedTask",
    "PinnedRef",
    "Refusal",
    "Reply",
    "ReplyError",
    "Request",
    "Resource",
    "Restart",
    "RuntimeFault",
    "StartRefused",
    "Strategy",
    "Supervisor",
    "Timer",
    "TooManyAsks",
    "TraceRecord",
    "escape_id",
    "handles",
    "naming",
    "shutdown",
    "unguarded",
]
