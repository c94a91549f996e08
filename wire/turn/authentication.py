"""Who sent a request: the long-term credential mechanism, with MD5 and SHA-256.

Checks come in the order of RFC 8489 section 9.2.4; a request that fails one gets that answer and
leaves nothing behind here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wire.stun import attribute as a
from wire.stun import integrity
from wire.stun.message import ERROR, Message, encode
from wire.stun.nonce import Nonces
from wire.turn.credentials import Account, Accounts

#: PASSWORD-ALGORITHMS: SHA-256, then MD5, neither with parameters.
ALGORITHMS: Final = bytes((0, integrity.SHA256, 0, 0, 0, integrity.MD5, 0, 0))
_CHOICES: Final = {
    bytes((0, integrity.MD5, 0, 0)): integrity.MD5,
    bytes((0, integrity.SHA256, 0, 0)): integrity.SHA256,
}


class Proved(NamedTuple):
    """A request whose sender is known.

    Attributes:
        account: who.
        key: signs the answer.
        sha256: the answer is signed as the request was.
    """

    account: Account
    key: bytes
    sha256: bool


class Authentication:
    """Who sent a request: the long-term credential mechanism, with MD5 and SHA-256.

    Args:
        realm: of this server.
        accounts: who may be somebody.
        nonces: of this server.
    """

    def __init__(self, realm: str, accounts: Accounts, nonces: Nonces) -> None:
        self.accounts = accounts
        self.nonces = nonces
        self._realm = realm
        self._realm_value = realm.encode()

    def check(self, message: Message, source: str, wall: float) -> Proved | bytes:
        """The sender, or the answer that refuses it."""
        if not message.has_integrity:
            return self._challenge(message, 401, source, wall)
        username, digest = message.get(a.USERNAME), message.get(a.USERHASH)
        realm, nonce = message.get(a.REALM), message.get(a.NONCE)
        if (username is None and digest is None) or realm is None or nonce is None:
            return refusal(message, 400)
        algorithm = _algorithm(message)
        if algorithm is None:
            return refusal(message, 400)
        account = self.accounts.find(username, digest, wall)
        if account is None or realm != self._realm_value:
            return self._challenge(message, 401, source, wall)
        for password in account.passwords:
            key = integrity.long_term_key(account.username, self._realm, password, algorithm)
            if message.verify(key):
                break
        else:
            return self._challenge(message, 401, source, wall)
        if not self.nonces.valid(nonce, source, wall):
            return self._challenge(message, 438, source, wall)
        return Proved(account, key, message.has_sha256)

    def _challenge(self, message: Message, code: int, source: str, wall: float) -> bytes:
        return refusal(
            message,
            code,
            (
                (a.REALM, self._realm_value),
                (a.NONCE, self.nonces.make(source, wall)),
                (a.PASSWORD_ALGORITHMS, ALGORITHMS),
            ),
        )


def _algorithm(message: Message) -> int | None:
    """How the key was made; None: what was chosen does not fit what was offered."""
    offered, chosen = message.get(a.PASSWORD_ALGORITHMS), message.get(a.PASSWORD_ALGORITHM)
    if offered is None and chosen is None:
        return integrity.MD5
    if offered != ALGORITHMS or chosen is None:
        return None  # somebody in between took the better ones out, or would like to
    return _CHOICES.get(chosen)


def refusal(
    message: Message,
    code: int,
    attributes: tuple[a.Attribute, ...] = (),
    proved: Proved | None = None,
) -> bytes:
    """An error response, signed when the sender is known."""
    return encode(
        message.method,
        ERROR,
        message.transaction_id,
        (a.error_code(code), *attributes),
        key=proved.key if proved is not None else None,
        sha256=proved is not None and proved.sha256,
        fingerprint=message.has_fingerprint,
    )
