"""The proof that the peer is at a new address, repeated. Pure.

The core sends its PATH_CHALLENGE once. If that is lost, or what answers it, the connection would go
on sending to where nobody is. So the frame is taken out of the core's packet, and sent again in a
packet of our own whenever something comes from the address that is not proven. Whoever sends less
than a third of what it would be sent hears nothing (RFC 9000 sections 8.2.1, 13.3).
"""

from __future__ import annotations

from aioquic.buffer import Buffer, BufferReadError

from actors.transport.quic.engine import Address

#: Pause between two challenges, seconds: at least so long, and two round trips.
PAUSE = 0.05
#: What a packet with the frame takes, bytes, at most.
PACKET_BYTES = 1 + 20 + 4 + 9 + 16
_PATH_CHALLENGE, _PATH_RESPONSE = 0x1A, 0x1B
_DATA_BYTES = 8
_ACK, _ACK_ECN = 0x02, 0x03
_STREAMS = range(0x08, 0x10)
_STREAM_HAS_OFFSET, _STREAM_HAS_LENGTH = 4, 2
_NEW_CONNECTION_ID = 0x18
_TOKEN_BYTES = 16
#: Frames that are varints and nothing else, with their number (RFC 9000 section 19).
_VARINTS = {
    0x00: 0,
    0x01: 0,
    0x04: 3,
    0x05: 2,
    0x10: 1,
    0x11: 2,
    0x12: 1,
    0x13: 1,
    0x14: 1,
    0x15: 2,
    0x16: 1,
    0x17: 1,
    0x19: 1,
    0x1E: 0,
}


def challenge_in(payload: bytes) -> bytes:
    """The first PATH_CHALLENGE frame among the frames of a packet; empty: there is none."""
    buffer = Buffer(data=payload)
    try:
        while not buffer.eof():
            kind = buffer.pull_uint_var()
            if kind == _PATH_CHALLENGE:
                return bytes([_PATH_CHALLENGE]) + buffer.pull_bytes(_DATA_BYTES)
            if not _skip(kind, buffer):
                break
    except BufferReadError:
        pass
    return b""


def _skip(kind: int, buffer: Buffer) -> bool:
    """Go on behind a frame. False: it is the last, or unknown."""
    if kind in (_ACK, _ACK_ECN):
        for _ in range(2):
            buffer.pull_uint_var()
        ranges = buffer.pull_uint_var()
        for _ in range(1 + 2 * ranges + (3 if kind == _ACK_ECN else 0)):
            buffer.pull_uint_var()
    elif kind in _STREAMS:
        if not kind & _STREAM_HAS_LENGTH:
            return False
        buffer.pull_uint_var()
        if kind & _STREAM_HAS_OFFSET:
            buffer.pull_uint_var()
        buffer.pull_bytes(buffer.pull_uint_var())
    elif kind == _NEW_CONNECTION_ID:
        for _ in range(2):
            buffer.pull_uint_var()
        buffer.pull_bytes(buffer.pull_uint8() + _TOKEN_BYTES)
    elif kind == _PATH_RESPONSE:
        buffer.pull_bytes(_DATA_BYTES)
    elif kind in _VARINTS:
        for _ in range(_VARINTS[kind]):
            buffer.pull_uint_var()
    else:
        return False
    return True


class Challenge:
    """What proves one address, until the core trusts it.

    Args:
        name: of the address (see `paths`).

    Attributes:
        frame: the PATH_CHALLENGE that was sent there; empty: none yet.
        cid: the connection id of the peer that it went to.
        due: it is to be sent again.
    """

    __slots__ = ("_next_at", "cid", "due", "frame", "name")

    def __init__(self, name: Address) -> None:
        self.name = name
        self.frame = self.cid = b""
        self.due = False
        self._next_at = 0.0

    def sent(self, now: float, round_trip: float) -> None:
        """It left."""
        self.due = False
        self._next_at = now + max(PAUSE, 2 * round_trip)

    def heard(self, name: Address, count: int, now: float) -> None:
        """So many bytes came from an address."""
        if name == self.name and self.frame and now >= self._next_at:
            self.due = 3 * count >= PACKET_BYTES
