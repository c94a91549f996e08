"""Frames of yamux, and which of them hashicorp/yamux (revision e14d7fe) survives: facts only.

Source: protocol sheet rendezvous 2; see `test_vectors` for how ours may differ.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class FrameVector(NamedTuple):
    """A frame, and whether a session survives it on which no stream is open."""

    version: int
    kind: int
    flags: int
    stream_id: int
    length: int
    data: str  #: hex, payload included
    survived: bool = True


FRAMES: Final[dict[str, FrameVector]] = {
    "open": FrameVector(0, 1, 1, 1, 0, "000100010000000100000000"),
    "open by a server": FrameVector(0, 1, 1, 2, 0, "000100010000000200000000"),
    "open, 6 MiB window": FrameVector(0, 1, 1, 1, 6029312, "0001000100000001005c0000"),
    "accept": FrameVector(0, 1, 2, 1, 0, "000100020000000100000000"),
    "accept, 6 MiB window": FrameVector(0, 1, 2, 1, 6029312, "0001000200000001005c0000"),
    "accept of 2016, 3 unread bytes": FrameVector(0, 1, 2, 1, 3, "000100020000000100000003"),
    "credit": FrameVector(0, 1, 0, 1, 131072, "000100000000000100020000"),
    "end of one direction": FrameVector(0, 1, 4, 1, 0, "000100040000000100000000"),
    "accept and end": FrameVector(0, 1, 6, 1, 0, "000100060000000100000000"),
    "reset": FrameVector(0, 1, 8, 1, 0, "000100080000000100000000"),
    "reset with a code": FrameVector(0, 1, 8, 1, 7, "000100080000000100000007"),
    "data": FrameVector(0, 0, 0, 1, 5, "00000000000000010000000568656c6c6f"),
    "data, empty": FrameVector(0, 0, 0, 1, 0, "000000000000000100000000"),
    "data, opens": FrameVector(0, 0, 1, 1, 3, "000000010000000100000003616263"),
    "data, opens and ends": FrameVector(0, 0, 5, 1, 3, "000000050000000100000003616263"),
    "data, accepts": FrameVector(0, 0, 2, 1, 3, "000000020000000100000003616263"),
    "data, ends": FrameVector(0, 0, 4, 1, 3, "000000040000000100000003656e64"),
    "data, resets": FrameVector(0, 0, 8, 1, 3, "000000080000000100000003616263"),
    "ping": FrameVector(0, 2, 1, 0, 3735928559, "0002000100000000deadbeef"),
    "pong": FrameVector(0, 2, 2, 0, 3735928559, "0002000200000000deadbeef"),
    "first keepalive of hashicorp": FrameVector(0, 2, 1, 0, 0, "000200010000000000000000"),
    "ping with a stream id": FrameVector(0, 2, 1, 7, 1, "000200010000000700000001"),
    "ping without flags": FrameVector(0, 2, 0, 0, 3, "000200000000000000000003"),
    "go away, normal": FrameVector(0, 3, 0, 0, 0, "000300000000000000000000"),
    "go away, protocol error": FrameVector(0, 3, 0, 0, 1, "000300000000000000000001", False),
    "go away, internal error": FrameVector(0, 3, 0, 0, 2, "000300000000000000000002", False),
    "go away, unknown code": FrameVector(0, 3, 0, 0, 99, "000300000000000000000063", False),
    "go away with a stream id": FrameVector(0, 3, 0, 7, 0, "000300000000000700000000"),
    "unknown flags": FrameVector(0, 1, 65281, 1, 0, "0001ff010000000100000000"),
    "all flags": FrameVector(0, 1, 15, 1, 0, "0001000f0000000100000000"),
    "largest id": FrameVector(0, 1, 1, 4294967295, 0, "00010001ffffffff00000000"),
    "id 0": FrameVector(0, 1, 1, 0, 0, "000100010000000000000000", False),
    "largest credit": FrameVector(0, 1, 0, 1, 4294705151, "0001000000000001fffbffff"),
    "credit beyond 2^32-1": FrameVector(0, 1, 0, 1, 4294705152, "0001000000000001fffc0000", False),
    "announces the largest length": FrameVector(
        0, 0, 0, 1, 4294967295, "0000000000000001ffffffff", False
    ),
    "version 1": FrameVector(1, 1, 1, 1, 0, "010100010000000100000000", False),
    "version 255": FrameVector(255, 0, 0, 0, 0, "ff0000000000000000000000", False),
    "type 4": FrameVector(0, 4, 0, 0, 0, "000400000000000000000000", False),
    "type 255": FrameVector(0, 255, 0, 0, 0, "00ff00000000000000000000", False),
}
