"""The TLS key log: secrets of every connection, for Wireshark and the like.

Whoever reads the file reads all traffic, so it exists only when it is asked for by name, never by
an environment variable, and is readable for its owner alone.

Source: https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html
"""

from __future__ import annotations

import os
from pathlib import Path

from actors.files.ownership import open_private


class KeyLog:
    """An append-only file; one line per secret. Also what aioquic writes to.

    Raises:
        OSError: the file cannot be opened, is not ours, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_private(path, os.O_WRONLY | os.O_APPEND)

    def write(self, line: str) -> None:
        """Append a line; a full disk costs the line, not the connection."""
        try:
            os.write(self._descriptor, line.encode("ascii"))
        except OSError:
            return

    def flush(self) -> None:
        """Every line is written at once."""

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)
