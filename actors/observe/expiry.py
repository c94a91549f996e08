"""Certificates that end soon: what is said of them, when, and in the metrics.

Whose certificate ends is lost to everybody at once, at night: so it is said from 14 days before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from actors.observe.meters import Meters
from actors.runtime import Actor, handles

#: Certificates that end sooner are named.
SOON: Final = timedelta(days=14)
DAY_SECONDS: Final = 86_400.0


class Dated(NamedTuple):
    """One certificate that is in use.

    Attributes:
        name: what it is called for people.
        ends: timezone-aware.
    """

    name: str
    ends: datetime


def says(one: Dated, now: datetime) -> str:
    """A sentence about a certificate that ends soon; empty about any other.

    Args:
        now: timezone-aware.
    """
    if one.ends - now >= SOON:
        return ""
    verb = "ends" if one.ends > now else "ended"
    until = f"{one.ends:%Y-%m-%d %H:%M} UTC"
    return f"{one.name} {verb} on {until}: renew it and reload (SIGHUP or `trunkline ctl reload`)"


def show_first_end(meters: Meters, look: Callable[[], Iterable[Dated]]) -> None:
    """`certificate_expires_seconds`: until the first of them ends; below zero when one has."""

    def left() -> float:
        now = datetime.now(UTC)
        return min(((one.ends - now).total_seconds() for one in look()), default=float("inf"))

    meters.gauge("certificate_expires_seconds", left)


class LookAgain:
    """Certificates were read again: say which of them end soon."""

    __slots__ = ()


class _NextDay:
    """A day is over."""

    __slots__ = ()


class ExpiryWatch(Actor):
    """Certificates that end soon: a line for each at the start, at `LookAgain`, and once a day.

    Args:
        look: the certificates in use now.
        clock: the time of day, timezone-aware.
    """

    def __init__(
        self,
        look: Callable[[], Iterable[Dated]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._look = look
        self._clock = clock

    def init(self) -> None:
        """Begin."""
        self.ref.tell(_NextDay())

    def describe(self) -> dict[str, object]:
        """What is in use, and until when."""
        return {"ends": {one.name: str(one.ends) for one in self._look()}}

    @handles(_NextDay)
    def _next_day(self, _: _NextDay) -> None:
        self._say()
        self.start_timer(DAY_SECONDS, _NextDay(), "day")

    @handles(LookAgain)
    def _say(self, _: LookAgain | None = None) -> None:
        now = self._clock()
        for one in self._look():
            line = says(one, now)
            if line:
                self.log.warning("{}", line)
