"""What an agent says about relays that it cannot reach: why, in words, and what helps.

Said at the first failure and whenever the reason changes; the same reason is repeated at growing
intervals, so that a log of weeks still says what is wrong and is not full of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from actors.transport.connection import DialFailed

#: Seconds until the same complaint is repeated: the first time, and at most.
FIRST_REPEAT: Final = 30.0
LAST_REPEAT: Final = 3600.0

#: TLS alerts as QUIC carries them (RFC 9001 section 4.8), in the words of the verifier.
_ALERTS: Final = {
    0x12A: "bad_certificate",
    0x12C: "revoked",
    0x12D: "expired",
    0x12E: "bad_certificate",
    0x130: "unknown_ca",
    0x174: "absent",
    0x178: "no_application_protocol",
}

#: Reasons of a failed dial: in words, and what to do.
_WORDS: Final = {
    "unknown_ca": ("its certificate is of another CA", "compare --ca with the relay's CA"),
    "wrong_name": ("its certificate is for another name", "set --server-name to a name in it"),
    "expired": ("its certificate is expired, or this clock is wrong", "renew it; compare clocks"),
    "not_yet_valid": ("its certificate is not valid yet", "compare the clocks"),
    "revoked": ("its certificate was revoked", "is this the relay you mean?"),
    "wrong_purpose": ("its certificate is not one for servers", "issue it as a relay's"),
    "timed out": ("no answer", "is it up, is the port right, does a firewall drop it"),
    "no_application_protocol": ("it speaks another protocol", "is this address a relay's?"),
    "connectionrefused": ("nobody listens there", "is it up, and is the port right?"),
}
#: The same, said by the relay about us.
_REFUSED: Final = {
    "unknown_ca": "our certificate is of a CA the relay does not trust",
    "expired": "the relay finds our certificate expired: renew it, and compare the clocks",
    "revoked": "our certificate was revoked: ask for a new one",
    "bad_certificate": "the relay does not take our certificate; its log says why",
    "absent": "the relay wants a certificate",
    "no_application_protocol": "it speaks another protocol: is this address a relay's?",
}


def explain(error: DialFailed | OSError, transport: str) -> str:
    """Why a relay was not reached, in words."""
    if not isinstance(error, DialFailed):
        text = error.strerror or str(error)
        if "not known" in text or "No address" in text:
            return f"{text}: check the name, and this host's DNS"
        if isinstance(error, ConnectionRefusedError):
            return "nobody listens there: is it up, and is the port right?"
        return text
    reason = error.reason
    if reason.kind == "peer":
        return _REFUSED.get(_ALERTS.get(reason.code, ""), str(reason))
    slug = reason.text
    if slug not in _WORDS:
        slug = _ALERTS.get(reason.code, slug)
    found = _WORDS.get(slug)
    if found is None:
        return str(reason)
    said, remedy = found
    if slug == "timed out":
        remedy += " (where UDP is blocked, --relay-tcp helps)?" if transport == "QUIC" else "?"
    return f"{said}: {remedy}"


class Complaints:
    """What an agent says about relays that it cannot reach: why, in words, and what helps.

    Args:
        log: writes a line at WARNING.
    """

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._last = ""
        self._times = 0
        self._since = self._next = 0.0
        self._pause = FIRST_REPEAT

    def say(self, what: str, now: float) -> None:
        """Perhaps write it.

        Args:
            now: monotonic seconds.
        """
        if what != self._last:
            self._last, self._times, self._since = what, 0, now
            self._pause = FIRST_REPEAT
            self._log(f"{what}; trying again")
        elif now >= self._next:
            self._pause = min(2 * self._pause, LAST_REPEAT)
            self._log(f"{what}; tried {self._times + 1} times in {now - self._since:.0f} s")
        else:
            self._times += 1
            return
        self._times += 1
        self._next = now + self._pause

    def over(self) -> None:
        """A relay was reached: the next trouble is news."""
        self._last = ""
