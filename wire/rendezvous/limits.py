"""Bounds of the rendezvous handshake (sheet rendezvous 1.7 row 16, 1.8)."""

from __future__ import annotations

from typing import Final

#: Bytes of a line, its end included.
MAX_LINE: Final = 256
#: The same for a line with options.
MAX_OPTIONS_LINE: Final = 2048
#: Characters of a service's name.
MAX_NAME: Final = 63
#: Networks in one list of visitors.
MAX_NETWORKS: Final = 64
#: Bytes of what a relay answers in one line.
MAX_ANSWER: Final = 256
