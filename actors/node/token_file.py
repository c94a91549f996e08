"""The key that signs enrolment tokens and the tokens that were used, beside the CA.

`enrolment.key` is made at the first use, 0600; `enrolment.used` is a JSON object of token ids and
their ends. One process at a time: the file is locked while it is read and written.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actors.node.enrolment import Tokens
from actors.node.pki_files import PRIVATE_FILE_MODE, PkiError, private_pem, write_new


class TokenFile:
    """See the module docstring.

    Args:
        directory: of the CA.
    """

    def __init__(self, directory: Path) -> None:
        self._key = directory / "enrolment.key"
        self._used = directory / "enrolment.used"

    @contextmanager
    def locked(self) -> Iterator[Tokens]:
        """The tokens, for as long as nobody else has them; what was redeemed is kept.

        Raises:
            PkiError: a file cannot be used.
        """
        if not self._key.exists():
            key = ed25519.Ed25519PrivateKey.generate()
            write_new(self._key, private_pem(key), PRIVATE_FILE_MODE)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._used, flags, PRIVATE_FILE_MODE), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            tokens = Tokens(self._load_key(), self._load_used(file.read()))
            try:
                yield tokens
            finally:
                file.seek(0)
                file.truncate()
                json.dump(tokens.redeemed, file)
                file.flush()
                os.fsync(file.fileno())

    def _load_key(self) -> ed25519.Ed25519PrivateKey:
        try:
            key = load_pem_private_key(self._key.read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            raise PkiError(f"{self._key}: not a PEM private key, or damaged") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise PkiError(f"{self._key}: not an Ed25519 key")
        return key

    def _load_used(self, text: str) -> dict[str, int]:
        try:
            used = json.loads(text or "{}")
            return {str(identifier): int(end) for identifier, end in used.items()}
        except (ValueError, AttributeError, TypeError):
            raise PkiError(f"{self._used}: damaged; a used token might be good again") from None
