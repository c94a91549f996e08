"""Who may allocate: users of a list, and users whose names say until when and prove nothing else.

An `Account` is who is counted; of a time-limited name that is what follows the time, so that a
user with a new name for every call is still one user.

Source: draft-uberti-behave-turn-rest-00; protocol sheet TURN 1.3, 3.3.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from wire.stun.integrity import opaque, userhash

#: Bytes of a name; RFC 8489 section 14.3.
MAX_NAME: Final = 508
#: Digits of a time in a name: enough for every date, too few for an overflow.
MAX_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Account:
    """A user who may prove to be one.

    Attributes:
        name: who is counted.
        username: as in the request, or as USERHASH stands for.
        passwords: any of these will do; during a rotation there are two.
    """

    name: str
    username: str
    passwords: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Account({self.name!r})"


#: ``find(username, wall)``: the account of that name, which may be used at that time.
Find: TypeAlias = Callable[[str, float], Account | None]


class StaticUsers:
    """Names and passwords of the settings; the only ones that can be found by their hash."""

    def __init__(self, users: Mapping[str, str], realm: str) -> None:
        self._users = {opaque(name): password for name, password in users.items()}
        self._hashes = {userhash(name, realm): name for name in self._users}

    def find(self, username: str, wall: float) -> Account | None:
        name = opaque(username)
        password = self._users.get(name)
        return None if password is None else Account(name, username, (password,))

    def named(self, digest: bytes) -> str | None:
        """The user of this USERHASH."""
        return self._hashes.get(digest)


class RestSecrets:
    """``<unix time>:<id>``, or the time last or alone; the password is a digest under a secret."""

    def __init__(self, secrets: Sequence[bytes], separator: str = ":") -> None:
        self._secrets = tuple(secrets)
        self._separator = separator

    def find(self, username: str, wall: float) -> Account | None:
        until, _, name = username.partition(self._separator)
        if not until.isdigit():
            name, _, until = username.partition(self._separator)
        if not self._secrets or not _in_future(until, wall):
            return None
        return Account(name or until, username, tuple(self._passwords(username)))

    def _passwords(self, username: str) -> list[str]:
        body = username.encode()
        return [b64encode(hmac.digest(one, body, "sha1")).decode() for one in self._secrets] + [
            b64encode(hmac.digest(one, body, "sha256")).decode() for one in self._secrets
        ]


class StampSecret:
    """Firezone's scheme: ``<unix time>:<salt>``, the password a hash of both with our secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def find(self, username: str, wall: float) -> Account | None:
        until, colon, salt = username.partition(":")
        if not colon or ":" in salt or not _in_future(until, wall):
            return None
        return Account(username, username, (stamp_password(self._secret, int(until), salt),))


def stamp_password(secret: str, until: int, salt: str) -> str:
    """The password that a portal derives for a client."""
    digest = sha256(f"{until}:{secret}:{salt}".encode()).digest()
    return b64encode(digest).decode().rstrip("=")


def rest_password(secret: bytes, username: str) -> str:
    """The password of a time-limited name."""
    return b64encode(hmac.digest(secret, username.encode(), "sha1")).decode()


def _in_future(text: str, wall: float) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return digits and int(text) >= wall


class Accounts:
    """All ways to be somebody, asked in order.

    Args:
        static: users of the settings.
        others: time-limited names, and what a door adds.
    """

    def __init__(self, static: StaticUsers, others: Sequence[Find] = ()) -> None:
        self._static = static
        self._finds = (static.find, *others)

    def find(self, username: bytes | None, digest: bytes | None, wall: float) -> Account | None:
        """The account of USERNAME or USERHASH; None: there is none, or its time is over."""
        if username is None:
            name = self._static.named(digest or b"")
            return None if name is None else self._static.find(name, wall)
        if len(username) > MAX_NAME:
            return None
        try:
            text = username.decode()
        except UnicodeDecodeError:
            return None
        for find in self._finds:
            account = find(text, wall)
            if account is not None:
                return account
        return None
