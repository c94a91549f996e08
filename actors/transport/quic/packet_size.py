"""What fits into a packet beside its overhead. Source: RFC 9000 section 17.3.1, RFC 9221."""

from __future__ import annotations

from typing import Final

#: First byte, packet number at its longest, and AEAD tag of a 1-RTT packet without its id.
_PACKET: Final = 1 + 4 + 16
#: Type and length of a DATAGRAM frame; payloads have less than 16 KiB.
_FRAME: Final = 1 + 2


def frame_payload(packet: int, cid_length: int, frame: int | None) -> int:
    """Bytes that a DATAGRAM frame may carry.

    Args:
        packet: largest packet, bytes of UDP payload.
        cid_length: of the peer's connection ids.
        frame: max_datagram_frame_size of the peer; None: absent.
    """
    return max(0, min(packet - _PACKET - cid_length, frame or 0) - _FRAME)
