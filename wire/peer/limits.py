"""Sizes of the peer relay protocol (sheet peer 1.1, 2.1), bytes unless stated."""

from __future__ import annotations

from typing import Final

#: Of a peer ID.
ID: Final = 36
#: Version and type.
HEADER: Final = 2
#: Header and ID, before what a Transport message carries.
TRANSPORT: Final = HEADER + ID
#: Of a message.
MAX_MESSAGE: Final = 8820
#: Of an Auth message; what is behind it is not looked at.
MAX_AUTH: Final = 212
#: Of an AuthResponse.
MAX_AUTH_RESPONSE: Final = 8192
#: IDs in one message.
MAX_IDS: Final = (MAX_MESSAGE - HEADER) // ID
#: The same in a QUIC datagram, on the smallest path.
MAX_IDS_DATAGRAM: Final = 32
#: Of a message in a QUIC datagram.
MAX_DATAGRAM: Final = 1415
