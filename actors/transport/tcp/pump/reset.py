"""Closing a socket so that its peer sees an error."""

from __future__ import annotations

import socket
import struct
from typing import Final

_LINGER_RESET: Final = struct.pack("ii", 1, 0)


def close_with_reset(sock: socket.socket) -> None:
    """RST, and what was not sent is dropped; idempotent."""
    if sock.fileno() < 0:
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    except OSError:
        pass  # it is closed all the same
    sock.close()
