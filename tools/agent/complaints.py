"""What an agent says about relays that it cannot reach: why, in words, and what helps.

Said at the first failure and whenever the reason changes; the same reason is repeated at growing
intervals, so that a log of weeks still says what is wrong and is not full of it.
"""

from __future__ import annotations

import socket
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
    "lookup timed out": ("this host's DNS does not answer", "check the name, and this host's DNS"),
    "no_application_protocol": ("it speaks another protocol", "is this address a relay's?"),
    "connectionrefused": ("nobody listens there", "is it up, and is the port right?"),
}
#: In the words of getaddrinfo(3): there is none, or nobody can tell.
_NO_ADDRESS: Final = ("not known", "No address", "name resolution")
#: The same, said by the relay about us.
_REFUSED: Final = {
    "unknown_ca": (
        "our certificate is of a CA the relay does not trust",
        "take one that the relay's CA signed",
    ),
    "expired": (
        "the relay finds our certificate expired",
        "renew it, and compare the clocks",
    ),
    "revoked": ("our certificate was revoked", "ask for a new one"),
    "bad_certificate": (
        "the relay does not take our certificate",
        "its log says why; `trunkline ctl explain --cert` there",
    ),
    "absent": ("the relay wants a certificate", "give --cert and --key"),
    "no_application_protocol": ("it speaks another protocol", "is this address a relay's?"),
}
#: What helps against a name without an address.
_DNS: Final = "check the name, and this host's DNS"


def reason(error: DialFailed | OSError, transport: str) -> tuple[str, str]:
    """Why a relay was not reached, in words, and what helps; that is empty when nobody can tell."""
    if not isinstance(error, DialFailed):
        text = error.strerror or str(error)
        if isinstance(error, socket.gaierror):
            return text, _DNS
        if isinstance(error, ConnectionRefusedError):
            return _WORDS["connectionrefused"]
        return text, ""
    failed = error.reason
    if failed.kind == "peer":
        return _REFUSED.get(_ALERTS.get(failed.code, ""), (str(failed), ""))
    slug = failed.text
    if slug not in _WORDS:
        slug = _ALERTS.get(failed.code, slug)
    found = _WORDS.get(slug)
    if found is None:
        # Over TCP a name without an address is a failed dial like any other.
        named = any(word in failed.text for word in _NO_ADDRESS)
        return (failed.text, _DNS) if named else (str(failed), "")
    said, remedy = found
    if slug == "timed out":
        remedy += " (where UDP is blocked, --relay-tcp helps)?" if transport == "QUIC" else "?"
    return said, remedy


def explain(error: DialFailed | OSError, transport: str) -> str:
    """As `reason`, as one text."""
    said, remedy = reason(error, transport)
    return f"{said}: {remedy}" if remedy else said


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
