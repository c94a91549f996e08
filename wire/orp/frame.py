"""ORP frames: an 8-byte header and a payload (sheet 2.1, 2.2).

====== ===== ========= ======================================== ==============================
offset size  field     value sent                               checked on receive
====== ===== ========= ======================================== ==============================
0      2     version   bits 15..13, always 1                    no, kept in `Frame.version`
..     ..    reserved  bits 12..11, always 0                    no, kept in `Frame.reserved`
..     ..    type      bits 10..0, `FrameType`                  by the reader of the frame
2      2     flags     0, none is defined                       no, kept in `Frame.flags`
4      4     length    payload bytes                            against the reader's limit
8      n     payload   protobuf message                         by `messages.decode`
====== ===== ========= ======================================== ==============================

All numbers are big-endian. The smallest frame has 8 bytes, the largest the format allows
8 + 2**24. This module knows neither messages nor streams: what may be sent where is the sessions'
subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from wire.orp.errors import EncodeError, FrameTooLarge, SessionMisuse, TruncatedFrame
from wire.orp.limits import MAX_CTRL_PAYLOAD_BYTES, MAX_FRAME_PAYLOAD_BYTES

VERSION: Final = 1
HEADER: Final = Struct("!HHI")
HEADER_BYTES: Final = HEADER.size
MAX_TYPE: Final = 0x7FF


class FrameType(IntEnum):
    """Every type number of sheet 2.2; the ones marked unused have no message and no sender."""

    HELLO = 0x001
    HELLO_ACK = 0x002
    REGISTER = 0x003
    REGISTER_ACK = 0x004
    RESOLVE = 0x005  #: unused
    RESOLVE_RESP = 0x006  #: unused
    OPEN_STREAM = 0x010
    INCOMING_STREAM = 0x011
    STREAM_ACCEPT = 0x012
    STREAM_REJECT = 0x013
    PING = 0x020
    PONG = 0x021
    POLICY_UPDATE = 0x030  #: unused
    METRIC_REPORT = 0x040  #: unused
    GOAWAY = 0x0FF
    STREAM_INIT = 0x100  #: unused
    STREAM_DATA = 0x101  #: unused
    STREAM_FIN = 0x102  #: unused
    STREAM_RESET = 0x103  #: unused
    STREAM_CHECKPOINT = 0x110
    STREAM_RESUME = 0x111
    OBSERVED_ADDR_QUERY = 0x120
    OBSERVED_ADDR_RESP = 0x121
    CANDIDATE_OFFER = 0x122
    CANDIDATE_ANSWER = 0x123
    MIGRATE_TO_P2P = 0x124
    MIGRATE_TO_RELAY = 0x125
    FORWARD_STREAM = 0x140
    ALLOC_GRANTED = 0x151
    STREAM_READY = 0x152


_NAMES: Final[dict[int, str]] = {member.value: member.name for member in FrameType}


def type_name(frame_type: int) -> str:
    """`HELLO` for 1; ``type 0x7ff`` for a number the sheet does not list."""
    return _NAMES.get(frame_type) or f"type 0x{frame_type:03x}"


@dataclass(slots=True)
class Frame:
    """One received frame. `payload` is a copy and stays valid for ever.

    `type` is a plain number because a peer may send types we do not know.
    """

    type: int
    payload: bytes
    flags: int = 0
    version: int = VERSION
    reserved: int = 0

    @property
    def irregular(self) -> bool:
        """Another version, reserved bits or flags: accepted and ignored, worth counting."""
        return self.version != VERSION or self.reserved != 0 or self.flags != 0

    def encode(self) -> bytes:
        """The frame's bytes exactly as received, header bits included: for verbatim forwarding."""
        first = self.version << 13 | self.reserved << 11 | self.type
        return HEADER.pack(first, self.flags, len(self.payload)) + self.payload


def encode_frame(frame_type: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """One whole frame, version 1, reserved bits 0.

    Raises:
        EncodeError: type above 0x7FF, flags above 0xFFFF, payload above 2**24 bytes.
    """
    if not 0 <= frame_type <= MAX_TYPE:
        raise EncodeError(f"frame type {frame_type} is outside 0..{MAX_TYPE}")
    if not 0 <= flags <= 0xFFFF:
        raise EncodeError(f"frame flags {flags} are outside 0..65535")
    if len(payload) > MAX_FRAME_PAYLOAD_BYTES:
        raise EncodeError(f"payload has {len(payload)} bytes, limit {MAX_FRAME_PAYLOAD_BYTES}")
    return HEADER.pack(VERSION << 13 | frame_type, flags, len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames, whatever the chunk borders.

    Feed one chunk, take frames until there is none left, feed the next. A frame that lies whole
    in its chunk is copied once, out of the chunk; only an unfinished frame is kept between chunks,
    at most 8 + `limit` bytes, grown by bytes received and never by a declared length. A length
    above `limit` raises when the eighth header byte is seen, before any payload is kept. After an
    error every further call raises it again: frame borders are lost.

    For a data stream, where application bytes may follow the first frame in the same chunk:
    `feed`, `next_frame`, and when that gave a frame `take_rest`.

    Args:
        limit: largest payload accepted, in bytes, 0 .. 2**24.
    """

    __slots__ = ("_chunk", "_declared", "_ended", "_limit", "_partial", "_position")

    def __init__(self, limit: int = MAX_CTRL_PAYLOAD_BYTES) -> None:
        if not 0 <= limit <= MAX_FRAME_PAYLOAD_BYTES:
            raise SessionMisuse(f"frame limit {limit} is outside 0..{MAX_FRAME_PAYLOAD_BYTES}")
        self._limit = limit
        self._partial = bytearray()  # bound: 8 + limit, see _keep; overflow cannot happen
        self._chunk = memoryview(b"")
        self._position = 0
        self._declared = -1  # the length that broke the limit, -1 while none did
        self._ended = False

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame kept so far; 0 at a frame border."""
        return len(self._partial)

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hand over the next chunk. It must not change until `next_frame` has returned None.

        Raises:
            SessionMisuse: frames of the last chunk were not taken, or `eof` was called.
            FrameTooLarge: an earlier frame broke the limit.
        """
        self._raise_if_broken()
        if self._ended:
            raise SessionMisuse("data after end of stream")
        if self._position < len(self._chunk):
            raise SessionMisuse("take all frames before feeding the next chunk")
        self._chunk = memoryview(chunk)
        self._position = 0

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None when more bytes are needed.

        Raises:
            FrameTooLarge: the header declares more than `limit` bytes; the peer's fault.
        """
        self._raise_if_broken()
        if not self._partial:
            return self._next_in_chunk()
        if len(self._partial) < HEADER_BYTES:
            self._keep(HEADER_BYTES)
            if len(self._partial) < HEADER_BYTES:
                return None
        first, flags, length = HEADER.unpack_from(self._partial)
        self._check(length)
        self._keep(HEADER_BYTES + length)
        if len(self._partial) < HEADER_BYTES + length:
            return None
        payload = bytes(memoryview(self._partial)[HEADER_BYTES:])
        self._partial = bytearray()
        return _frame(first, flags, payload)

    def __iter__(self) -> Iterator[Frame]:
        """Every complete frame of the chunk; ends when more bytes are needed."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def take_rest(self) -> bytes:
        """The bytes behind the last frame taken, which are not frames; the reader is empty then.

        Raises:
            SessionMisuse: part of a next frame is already kept.
        """
        if self._partial:
            raise SessionMisuse("inside a frame: the bytes belong to it")
        rest = bytes(self._chunk[self._position :])
        self._drop_chunk()
        return rest

    def eof(self) -> None:
        """The stream ended. Returns when that happened at a frame border.

        Raises:
            TruncatedFrame: it ended inside a frame; the peer's fault.
            SessionMisuse: frames of the last chunk were not taken.
        """
        self._raise_if_broken()
        if self._position < len(self._chunk):
            raise SessionMisuse("take all frames before the end of stream")
        self._ended = True
        received = len(self._partial)
        if received >= HEADER_BYTES:
            raise TruncatedFrame(received, HEADER_BYTES + HEADER.unpack_from(self._partial)[2])
        if received:
            raise TruncatedFrame(received, HEADER_BYTES)

    # The chunk holds the start of a frame; nothing is kept from earlier chunks.
    def _next_in_chunk(self) -> Frame | None:
        available = len(self._chunk) - self._position
        if available >= HEADER_BYTES:
            first, flags, length = HEADER.unpack_from(self._chunk, self._position)
            self._check(length)
            if available >= HEADER_BYTES + length:
                begin = self._position + HEADER_BYTES
                self._position = begin + length
                return _frame(first, flags, bytes(self._chunk[begin : self._position]))
        self._keep(HEADER_BYTES + self._limit)
        return None

    # Move bytes from the chunk until `total` of the frame are kept or the chunk is used up.
    def _keep(self, total: int) -> None:
        end = min(len(self._chunk), self._position + total - len(self._partial))
        self._partial += self._chunk[self._position : end]
        self._position = end
        if end == len(self._chunk):
            self._drop_chunk()

    # Let go of the caller's buffer: a memoryview would keep it alive and a bytearray unresizable.
    def _drop_chunk(self) -> None:
        self._chunk = memoryview(b"")
        self._position = 0

    def _check(self, length: int) -> None:
        if length > self._limit:
            self._declared = length
            self._partial = bytearray()
            self._drop_chunk()
            self._raise_if_broken()

    def _raise_if_broken(self) -> None:
        if self._declared >= 0:
            raise FrameTooLarge(self._declared, self._limit)


def _frame(first: int, flags: int, payload: bytes) -> Frame:
    return Frame(first & MAX_TYPE, payload, flags, first >> 13, first >> 11 & 0b11)
