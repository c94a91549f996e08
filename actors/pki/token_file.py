"""The key that signs enrolment tokens and the tokens that were used, beside the CA.

`enrolment.key` is made at the first use, 0600; `enrolment.used` is a JSON object of token ids and
their ends, replaced whole; `enrolment.lock` is held while it is read and written, one process at a
time.
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

from actors.files.atomic import replace_file
from actors.files.ownership import FileRefused, check_secret, open_private
from actors.pki.enrolment import Tokens
from actors.pki.files import PRIVATE_FILE_MODE, PkiError, private_pem, write_new


class TokenFile:
    """The key that signs enrolment tokens and the tokens that were used, beside the CA.

    Args:
        directory: of the CA.
    """

    def __init__(self, directory: Path) -> None:
        self._key = directory / "enrolment.key"
        self._used = directory / "enrolment.used"
        self._lock = directory / "enrolment.lock"

    @contextmanager
    def locked(self) -> Iterator[Tokens]:
        """The tokens, for as long as nobody else has them.

        What was redeemed is on the disk when this is left without an exception; until then nothing
        may be signed for it.

        Raises:
            PkiError: a file cannot be used.
        """
        try:
            descriptor = open_private(self._lock)
        except FileRefused as error:
            raise PkiError(str(error)) from error
        except OSError as error:
            raise PkiError(f"{self._lock}: cannot open: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.path.lexists(self._key):
                key = ed25519.Ed25519PrivateKey.generate()
                write_new(self._key, private_pem(key), PRIVATE_FILE_MODE)
            used = self._load_used()
            tokens = Tokens(self._load_key(), dict(used))
            yield tokens
            if tokens.redeemed != used:
                self._store(tokens.redeemed)
        finally:
            os.close(descriptor)

    def _store(self, used: dict[str, int]) -> None:
        try:
            replace_file(self._used, json.dumps(used).encode(), PRIVATE_FILE_MODE)
        except OSError as error:
            raise PkiError(f"{self._used}: cannot write: {error.strerror}") from error

    def _load_key(self) -> ed25519.Ed25519PrivateKey:
        try:
            check_secret(self._key)
            key = load_pem_private_key(self._key.read_bytes(), password=None)
        except FileRefused as error:
            raise PkiError(str(error)) from error
        except (OSError, ValueError, TypeError):
            raise PkiError(f"{self._key}: not a PEM private key, or damaged") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise PkiError(f"{self._key}: not an Ed25519 key")
        return key

    def _load_used(self) -> dict[str, int]:
        try:
            check_secret(self._used)
            used = json.loads(self._used.read_bytes())
            return {str(identifier): int(end) for identifier, end in used.items()}
        except FileNotFoundError:
            return {}
        except FileRefused as error:
            raise PkiError(str(error)) from error
        except (OSError, ValueError, AttributeError, TypeError):
            # An empty one too: a writer that did not replace it whole may have emptied it.
            raise PkiError(
                f"{self._used}: damaged; a used token might be good again: remove "
                f"{self._key.name} and {self._used.name}, which voids every token"
            ) from None
