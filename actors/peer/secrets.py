"""Secrets from files; they are in no log and no error text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: Bytes of a secret file.
MAX_FILE = 64 * 1024


def read_secrets(files: Sequence[Path]) -> list[str]:
    """The secret of each file, without the end of its line.

    Raises:
        OSError: a file cannot be read, or has no secret.
    """
    secrets = []
    for file in files:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE)
        try:
            secret = data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise OSError(f"{file}: the secret is no UTF-8 text") from None
        if not secret:
            raise OSError(f"{file}: there is no secret in it")
        secrets.append(secret)
    return secrets
