"""The message types the runtime itself knows.

User messages are plain slots dataclasses. A message that expects an answer derives from
`Request[Answer]`, which types `ActorRef.ask`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .reasons import ExitReason

R_co = TypeVar("R_co", covariant=True)


class Request(Generic[R_co]):
    """A message whose handler returns an `R_co` (or a `Refusal`)."""

    __slots__ = ()


@dataclass(slots=True)
class Refusal:
    """Returned by a handler to answer an ask with `ReplyError(value)`: the actor lives on."""

    value: object


class Deferred:
    """What a handler returns when it answers later through `Actor.defer()`'s `Reply`."""

    __slots__ = ()


DEFERRED = Deferred()


@dataclass(slots=True)
class Down:
    """A monitored actor ended; sent exactly once per monitor, in the user lane.

    It arrives after everything the dead actor had sent to this receiver.
    """

    token: int
    path: str
    incarnation: int
    reason: ExitReason


@dataclass(slots=True)
class ExitSignal:
    """A linked actor ended abnormally and this actor traps exits."""

    path: str
    incarnation: int
    reason: ExitReason
