"""When a client is gone: the relay asks, the client answers, and only answers count as life.

Source: protocol sheet peer 4, 9 W17.
"""

from __future__ import annotations


class HealthCheck:
    """The relay's questions to one client.

    Args:
        now: when the client came in, monotonic seconds.
        interval: from one question to the next.
        timeout: a client may answer so much later; looked at every `interval` and `timeout`
            together.
        attempts: so many looks in a row without an answer are the end.

    Attributes:
        unanswered: looks in a row without an answer.
    """

    __slots__ = (
        "_answered",
        "_ask_at",
        "_attempts",
        "_interval",
        "_look",
        "_look_at",
        "unanswered",
    )

    def __init__(
        self,
        now: float,
        *,
        interval: float,
        timeout: float,
        attempts: int = 1,
        look: float | None = None,
    ) -> None:
        self._interval = interval
        self._look = interval + timeout if look is None else look
        self._attempts = max(1, attempts)
        self._ask_at = now + interval
        self._look_at = now + self._look
        self._answered = False
        self.unanswered = 0

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return min(self._ask_at, self._look_at)

    def answered(self) -> None:
        """The client said HealthCheck."""
        self._answered = True

    def tick(self, now: float) -> tuple[bool, bool]:
        """Whether to ask now, and whether the client is gone."""
        gone = False
        if now >= self._look_at:
            self._look_at = now + self._look
            self.unanswered = 0 if self._answered else self.unanswered + 1
            self._answered = False
            gone = self.unanswered >= self._attempts
        ask = now >= self._ask_at and not gone
        if ask:
            self._ask_at = now + self._interval
        return ask, gone
