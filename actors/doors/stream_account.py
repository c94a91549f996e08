"""What every door tells of a stream when it ended: once, and however it ended.

What is told is the door's: its meters, and a record for the access log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.runtime import ActorSystem

#: Until somebody says otherwise: the actor that had the stream is no more.
KILLED: Final = "killed"
_LOST: Final = "access_log_lost_total"


class StreamAccount(ABC):
    """One stream's. A resource of its actor, acquired before what it counts.

    Args:
        clock: monotonic seconds.
        began: when the stream did, by that clock.

    Attributes:
        outcome: how it ended, one of few words.
        detail: why; one of few texts.
    """

    __slots__ = ("_began", "_clock", "_told", "detail", "outcome")

    def __init__(self, clock: Callable[[], float], began: float) -> None:
        self._clock = clock
        self._began = began
        self._told = False
        self.outcome = KILLED
        self.detail = ""

    def abort(self) -> None:
        """The actor ended; idempotent."""
        if not self._told:
            self._told = True
            self.tell(self._clock() - self._began)

    @abstractmethod
    def tell(self, seconds: float) -> None:
        """It is over, after so long."""


def access_log(system: ActorSystem, place: str, meters: Meters) -> Callable[[StreamRecord], object]:
    """Where records go.

    Args:
        place: of the actor that writes them (`DoorContext.access`); empty: none is kept.
        meters: count those it had no room for.
    """
    if not place:
        return _unkept
    meters.declare(_LOST)

    def tell(record: StreamRecord) -> None:
        ref = system.ref(place)
        if ref is None or not ref.try_tell(record):
            meters.counters[_LOST] += 1

    return tell


def _unkept(_: StreamRecord) -> None:
    """No access log."""
