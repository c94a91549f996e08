"""yamux frames: a 12-byte header, and payload behind DATA only (sheet rendezvous 2.1).

====== ===== ========= ===========================================================================
offset size  field     value
====== ===== ========= ===========================================================================
0      1     version   0; anything else ends the session
1      1     type      `FrameType`; anything else ends the session
2      2     flags     `Flag`; unknown bits are ignored
4      4     stream id 0 is the session itself
8      4     length    DATA: payload bytes that follow; WINDOW_UPDATE: credit added;
                       PING: opaque; GO_AWAY: a code
====== ===== ========= ===========================================================================

All numbers are big-endian. The smallest frame has 12 bytes, the largest the format allows
12 + 2**32 - 1; what is accepted is bounded by the receiver's window.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

VERSION: Final = 0
HEADER: Final = Struct("!BBHII")
HEADER_BYTES: Final = HEADER.size
MAX_NUMBER: Final = 0xFFFF_FFFF


class FrameType(IntEnum):
    """What a frame carries."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """Life of a stream; SYN and ACK also tell the two directions of a PING apart."""

    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAway(IntEnum):
    """Codes of GO_AWAY."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def header(frame_type: FrameType, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes in front of a frame.

    Raises:
        struct.error: a number does not fit; a bug of the caller.
    """
    return HEADER.pack(VERSION, frame_type, flags, stream_id, length)
