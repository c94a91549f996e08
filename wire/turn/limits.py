"""Numbers of the protocol, and bounds of one allocation (sheet TURN 3.5, 3.7)."""

from __future__ import annotations

from typing import Final

#: Seconds.
PERMISSION: Final = 300.0
CHANNEL: Final = 600.0
#: A channel that expired cannot be bound to somebody else for so long, nor its peer to another.
CHANNEL_REST: Final = 300.0
#: A reserved port waits so long for the one who has its token.
RESERVATION: Final = 30.0

FIRST_CHANNEL: Final = 0x4000
LAST_CHANNEL: Final = 0x4FFF
#: The last one of RFC 5766, which clients of that age still choose from.
LAST_OLD_CHANNEL: Final = 0x7FFF

UDP: Final = 17
TCP: Final = 6
