"""A log line about whom a listener turned away and why: at once, and then one in a while.

Strangers decide how often this is asked, so what is written is bounded by time and not by them.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from loguru import logger

from actors.transport.stream import CloseReason

#: TLS alerts are QUIC error codes from here on (RFC 9001 section 4.8).
CRYPTO_ERROR: Final = 0x100
#: What an application's close is called while its handshake goes on (RFC 9000 section 10.2.3).
APPLICATION_ERROR: Final = 0x0C
#: Between two lines, seconds.
LOG_SECONDS: Final = 10.0
#: Reasons counted between two lines; others are "other".
MAX_REASONS: Final = 16


class RefusalLog:
    """Tells of refusals at once, and then at most every `LOG_SECONDS`, with what came meanwhile.

    Args:
        name: of the listener, for the line.
        log: writes a line; None: the general log, at WARNING.
        what: was refused.
    """

    def __init__(
        self,
        name: str,
        log: Callable[[str], object] | None = None,
        *,
        what: str = "connections turned away",
    ) -> None:
        self.name = name
        self._what = what
        self._log = log
        self._untold: Counter[str] = Counter()
        self._next = 0.0

    def note(self, why: str, who: str = "") -> None:
        """One more.

        Args:
            why: in a few words, and of few kinds.
            who: address or identity; the line has the last one.
        """
        known = why in self._untold or len(self._untold) < MAX_REASONS
        self._untold[why if known else "other"] += 1
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOG_SECONDS
        reasons = ", ".join(
            reason if count == 1 else f"{reason} ({count} times)"
            for reason, count in self._untold.items()
        )
        self._untold.clear()
        last = f" (last: {who})" if who else ""
        (self._log or logger.warning)(f"{self.name}: {self._what}: {reasons}{last}")


def changed_its_mind(reason: CloseReason) -> bool:
    """Did the peer end its handshake for no fault of ours? Another relay answered it first, say."""
    return reason.kind == "peer" and reason.code in (0, APPLICATION_ERROR)


def turned_away(reason: CloseReason) -> str:
    """Why a handshake ended, for `RefusalLog.note`: without the text, which is the stranger's."""
    if reason.kind == "aborted":
        return "gave way to others"
    alert = reason.code - CRYPTO_ERROR
    if reason.kind == "peer" and 0 <= alert <= 0xFF:
        try:
            name = ssl.AlertDescription(alert).name.removeprefix("ALERT_DESCRIPTION_")
        except ValueError:
            name = str(alert)
        return f"it said {name.lower().replace('_', ' ')}"
    return str(CloseReason(reason.kind, reason.code))
