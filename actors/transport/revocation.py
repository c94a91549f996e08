"""Certificates that were taken back before their end, by lists of their CAs (CRLs).

Source: RFC 5280 section 5; docs/decisions/0133.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from actors.transport.certificate_path import IdentityRejected

_MARK_BYTES: Final = 16


def mark(issuer: x509.Name, serial: int) -> bytes:
    """One certificate of one CA, in 16 bytes."""
    return hashlib.sha256(issuer.public_bytes() + serial.to_bytes(32)).digest()[:_MARK_BYTES]


def marks_of(chain: Iterable[x509.Certificate]) -> tuple[bytes, ...]:
    """Those of a leaf and its intermediates."""
    return tuple(mark(one.issuer, one.serial_number) for one in chain)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a file says.

    Attributes:
        marks: of the certificates that are revoked.
        next_update: when the first of its lists promised news; None: none did.
    """

    marks: frozenset[bytes]
    next_update: datetime | None


NOBODY: Final = RevocationList(frozenset(), None)


class Revocations:
    """The list in force, and who wants to hear when one is revoked. Lives as long as the process.

    Attributes:
        listed: the list in force.
    """

    def __init__(self) -> None:
        self.listed = NOBODY
        #: Bound: the connections there are.
        self._watches: dict[Watch, None] = {}

    def revoked(self, marks: Iterable[bytes]) -> bool:
        """True when one of them is on the list."""
        return not self.listed.marks.isdisjoint(marks)

    def judge(self, marks: Iterable[bytes]) -> None:
        """Raise `IdentityRejected` (revoked) when one of them is on the list."""
        if self.revoked(marks):
            raise IdentityRejected("revoked")

    def use(self, new: RevocationList) -> int:
        """Put a list in force; who is on it hears at once. Returns how many heard."""
        self.listed = new
        hit = [one for one in self._watches if self.revoked(one.marks)]
        for one in hit:
            one.abort()
            one.tell()
        return len(hit)

    def watch(self, marks: tuple[bytes, ...], tell: Callable[[], object]) -> Watch:
        """Call `tell` once, as soon as one of the marks is revoked; now, if it is."""
        watch = Watch(self, marks, tell)
        if self.revoked(marks):
            tell()
        elif marks:
            self._watches[watch] = None
        return watch

    def forget(self, watch: Watch) -> None:
        """Nobody waits for it any more."""
        self._watches.pop(watch, None)


class Watch:
    """Somebody whose certificate may be revoked; a resource of its actor."""

    __slots__ = ("_revocations", "marks", "tell")

    def __init__(
        self, revocations: Revocations, marks: tuple[bytes, ...], tell: Callable[[], object]
    ) -> None:
        self._revocations = revocations
        self.marks = marks
        self.tell = tell

    def abort(self) -> None:
        """Hear nothing; idempotent."""
        self._revocations.forget(self)
