"""What providers said last when they refused a stream, for whoever asks why a service fails."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

#: Providers' services remembered; the oldest refusal is forgotten first.
MAX_REFUSALS: Final = 1024


class Refusal(NamedTuple):
    """One refused stream.

    Attributes:
        reason: in the provider's words.
        moment: monotonic seconds.
    """

    reason: str
    moment: float


class Refusals:
    """The last refusal of each service of a provider, until it accepts a stream again."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], Refusal] = OrderedDict()

    def refused(self, provider: str, service: str, reason: str, now: float) -> None:
        """It refused a stream."""
        self._last[provider, service] = Refusal(reason, now)
        self._last.move_to_end((provider, service))
        if len(self._last) > MAX_REFUSALS:
            self._last.popitem(last=False)

    def accepted(self, provider: str, service: str) -> None:
        """It accepted one."""
        self._last.pop((provider, service), None)

    def last(self, provider: str, service: str) -> Refusal | None:
        """None: it never refused, or accepted since."""
        return self._last.get((provider, service))
