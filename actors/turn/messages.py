"""What the actors of the TURN door tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from actors.runtime import Request


class Arm:
    """Something expires earlier than what the registry waits for."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Started:
    """An allocation's actor runs, again perhaps."""

    number: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Close(Request[bool]):
    """An operator ends an allocation; the answer is True when it was there."""

    number: int


class Release:
    """The allocation is over."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why
