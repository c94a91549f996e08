"""Frames between the pods of one relay, and the parser of a stream of them.

::

    type (1)   payload length (2)   payload

    WHO_HAS       36 peer ID
    I_HAVE        36 peer ID, seqno (4)
    FWD           36 destination, a Transport message stamped with its source
    PRESENCE_ON   36 peer ID, seqno (4)      ours
    PRESENCE_OFF  36 peer ID, seqno (4)      ours
    NOT_HERE      36 peer ID                 ours
    PING, PONG    nothing

Pods of openZro ignore types they do not know, and so do we.

Source: protocol sheet peer 7.1, 9 W8, W10, W13, W15.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from wire.peer.errors import BadFrame, NotEncodable
from wire.peer.limits import ID, MAX_MESSAGE, TRANSPORT
from wire.peer.messages import VERSION, MessageType

_HEADER: Final = struct.Struct(">BH")
_SEQNO: Final = struct.Struct(">I")
MAX_PAYLOAD: Final = 65535


class FrameType(IntEnum):
    """The first byte."""

    HELLO = 0x00
    WHO_HAS = 0x01
    I_HAVE = 0x02
    PRESENCE_ON = 0x03
    PRESENCE_OFF = 0x04
    NOT_HERE = 0x05
    FWD = 0x14
    PING = 0x20
    PONG = 0x21


class Frame(NamedTuple):
    """One frame as it came."""

    type: int
    payload: bytes


class Binding(NamedTuple):
    """A peer is with the pod that says so.

    Attributes:
        seqno: the greater is the later; of ours it is the Unix second the peer came.
    """

    peer: bytes
    seqno: int


class Forward(NamedTuple):
    """A Transport message for a peer of the pod that gets it."""

    destination: bytes
    message: bytes


def encode(kind: int, payload: bytes = b"") -> bytes:
    """One frame.

    Raises:
        NotEncodable: the payload does not fit.
    """
    if len(payload) > MAX_PAYLOAD:
        raise NotEncodable(f"a frame of {len(payload)} bytes, at most {MAX_PAYLOAD}")
    return _HEADER.pack(kind, len(payload)) + payload


def encode_peer(kind: FrameType, peer: bytes) -> bytes:
    """WHO_HAS or NOT_HERE."""
    return encode(kind, peer)


def encode_binding(kind: FrameType, peer: bytes, seqno: int) -> bytes:
    """I_HAVE, PRESENCE_ON or PRESENCE_OFF."""
    return encode(kind, peer + _SEQNO.pack(seqno))


def encode_forward(destination: bytes, message: bytes) -> bytes:
    """FWD; the message has its source already."""
    return encode(FrameType.FWD, destination + message)


def decode_peer(payload: bytes) -> bytes:
    """WHO_HAS or NOT_HERE.

    Raises:
        BadFrame: another length.
    """
    if len(payload) != ID:
        raise BadFrame("bad_length", f"an ID of {len(payload)} bytes")
    return payload


def decode_binding(payload: bytes) -> Binding:
    """I_HAVE, PRESENCE_ON or PRESENCE_OFF.

    Raises:
        BadFrame: another length.
    """
    if len(payload) != ID + _SEQNO.size:
        raise BadFrame("bad_length", f"a binding of {len(payload)} bytes")
    return Binding(payload[:ID], _SEQNO.unpack_from(payload, ID)[0])


def decode_forward(payload: bytes) -> Forward:
    """FWD; only a Transport message goes to a peer.

    Raises:
        BadFrame: it is cut, or has something else inside.
    """
    if len(payload) < ID + TRANSPORT:
        raise BadFrame("short_forward", f"a FWD of {len(payload)} bytes")
    message = payload[ID:]
    if len(message) > MAX_MESSAGE:
        raise BadFrame("long_forward", f"a message of {len(message)} bytes")
    if message[0] != VERSION or message[1] != MessageType.TRANSPORT:
        raise BadFrame("forged_forward", f"type {message[1]} inside a FWD")
    return Forward(payload[:ID], message)


class FrameParser:
    """Frames from any pieces their bytes come in; keeps less than one frame."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are complete now."""
        held = self._held
        held += data
        frames: list[Frame] = []
        at = 0
        while len(held) - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(held, at)
            end = at + _HEADER.size + length
            if len(held) < end:
                break
            frames.append(Frame(kind, bytes(held[at + _HEADER.size : end])))
            at = end
        del held[:at]
        return frames

    @property
    def inside(self) -> bool:
        """True when the end of the stream now would cut a frame."""
        return bool(self._held)
