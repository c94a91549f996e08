"""CertificateWatch: certificates that end soon are told of, and a changed revocation list is used.

Source: docs/decisions/0133.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from actors.observe.expiry import DAY_SECONDS, Dated, says, show_first_end
from actors.observe.meters import Meters
from actors.runtime import Actor, ActorRef, ChildSpec, OwnedTask, handles
from actors.transport.revocation import NOBODY, RevocationList
from actors.transport.revocation_file import read_revocations
from actors.transport.tls import TlsIdentity, TlsMaterialError

#: Seconds between two looks at the time a list was changed.
LOOK_SECONDS: Final = 5.0


class Watched(NamedTuple):
    """What is in force now.

    Attributes:
        identity: of the relay.
        shown: what doors show instead, by name of the door.
        path: of the revocation list; None: there is none.
        optional: the list may be missing.
        others: further certificates in use, by what they are called for people.
    """

    identity: TlsIdentity
    shown: dict[str, TlsIdentity]
    path: Path | None
    optional: bool = False
    others: Sequence[tuple[str, x509.Certificate]] = ()


class Reloaded:
    """Something else is in force."""

    __slots__ = ()


class _Look:
    """Is the list another one."""

    __slots__ = ()


class _Daily:
    """Who ends soon."""

    __slots__ = ()


class CertificateWatch(Actor):
    """Certificates that end soon are told of, and a changed revocation list is used.

    Args:
        watched: what is in force.
        wall: the time, timezone-aware.
    """

    def __init__(
        self,
        watched: Callable[[], Watched],
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._watched = watched
        self._wall = wall
        self._seen: object = None
        self._reading: OwnedTask | None = None
        self._problem = ""

    def init(self) -> None:
        """Begin. The list was read before."""
        self._seen = _stamp(self._watched().path)
        self._daily(_Daily())
        self._arm()

    def describe(self) -> dict[str, object]:
        """When certificates end, and what is revoked."""
        watched = self._watched()
        listed = watched.identity.revocations.listed
        return {
            "ends": {one.name: str(one.ends) for one in _certificates(watched)},
            "revocations": str(watched.path or ""),
            "revoked": len(listed.marks),
            "next_update": str(listed.next_update or ""),
            "problem": self._problem,
        }

    @handles(Reloaded)
    def _reloaded(self, _: Reloaded) -> None:
        self._seen, self._problem = _stamp(self._watched().path), ""
        self._daily(_Daily())
        self._arm()

    @handles(_Daily)
    def _daily(self, _: _Daily) -> None:
        now = self._wall()
        for one in _certificates(self._watched()):
            line = says(one, now)
            if line:
                self.log.warning("{}", line)
        self.start_timer(DAY_SECONDS, _Daily(), "daily")

    # The list.

    def _arm(self) -> None:
        if self._watched().path is None:
            self.cancel_timer("look")
        else:
            self.start_timer(LOOK_SECONDS, _Look(), "look")

    @handles(_Look)
    def _look(self, _: _Look) -> None:
        watched = self._watched()
        stamp = _stamp(watched.path)
        if stamp != self._seen and (self._reading is None or self._reading.done):
            self._seen = stamp
            self._reading = self.spawn_task(self._read(watched), "read")
        self._arm()

    async def _read(self, watched: Watched) -> None:
        assert watched.path is not None
        if self._seen is None and watched.optional:
            self._use(NOBODY)
            return
        try:
            listed = await asyncio.to_thread(
                read_revocations, watched.path, watched.identity.authorities
            )
        except TlsMaterialError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self.log.error("{}; the list before stays in force", error)
            return
        self._use(listed)

    def _use(self, listed: RevocationList) -> None:
        self._problem = ""
        ended = self._watched().identity.revocations.use(listed)
        self.log.info(
            "revocation list: {} certificates; {} connections ended", len(listed.marks), ended
        )


def _stamp(path: Path | None) -> object:
    """What changes when the file does; None: it is not there."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)


def _certificates(watched: Watched) -> Iterable[Dated]:
    """All of ours, and those we trust, by what they are called for people."""
    found = [("the certificate of this relay", watched.identity.chain[0])]
    for name, identity in watched.shown.items():
        found.append((f"the certificate of the {name} door", identity.chain[0]))
    found += [
        (f"the CA {authority.subject.rfc4514_string()[:100]}", authority)
        for authority in watched.identity.authorities
    ]
    return [Dated(name, one.not_valid_after_utc) for name, one in (*found, *watched.others)]


def certificate_watch(watched: Callable[[], Watched], meters: Meters) -> ChildSpec:
    """Its place in the tree, and its metrics."""

    show_first_end(meters, lambda: _certificates(watched()))
    meters.gauge("revoked_certificates", lambda: len(watched().identity.revocations.listed.marks))
    return ChildSpec("certificates", lambda: CertificateWatch(watched))


def tell_reloaded(ref: ActorRef | None) -> None:
    """Something else is in force."""
    if ref is not None:
        ref.tell(Reloaded())
