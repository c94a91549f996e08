"""Frames of a client, and frames to it.

::

    FIN RSV opcode (1)   MASK length (1)   [length (2 or 8)]   [mask (4)]   payload

The payload of each message is unmasked by compiled code, and is not copied otherwise.

Source: RFC 6455 section 5; protocol sheet peer 1.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from websockets.speedups import apply_mask

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_MAX_CONTROL: Final = 125
_FIRST_BINARY: Final = 0x80 | _BINARY
_LONG: Final = struct.Struct(">BBH")
_LENGTH: Final = struct.Struct(">H")
_LONG_LENGTH: Final = struct.Struct(">Q")


class CloseCode(IntEnum):
    """Of those in RFC 6455 section 7.4, the ones we send."""

    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    TOO_BIG = 1009


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a pong of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The client closes; to be answered with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection cannot go on.

    Attributes:
        code: to close with; 0: without a frame.
        reason: of few texts.
    """

    code: int
    reason: str


#: Bytes are a message.
Event: TypeAlias = "bytes | Ping | Closed | Broken"


class FrameReader:
    """What a client sends, from any pieces its bytes come in. Nothing comes after `Closed` and
    `Broken`.

    Args:
        most: bytes of a message.
    """

    __slots__ = ("_held", "_most", "_over")

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = b""
        self._over = False

    def receive(self, data: bytes) -> list[Event]:
        """Bytes of the client."""
        if self._held:
            data = self._held + data
            self._held = b""
        events: list[Event] = []
        view = memoryview(data)
        at, end, most = 0, len(data), self._most
        while end - at >= 2 and not self._over:
            first, size = data[at], data[at + 1] ^ 0x80
            body = at + 6
            if first != _FIRST_BINARY or size > 127:
                broken = self._refusal(first, size)
                if broken is not None:
                    self._end(broken, events)
                    break
            if size >= 126:
                body = at + (8 if size == 126 else 14)
                if end < body:
                    break
                size = (
                    _LENGTH.unpack_from(data, at + 2)[0]
                    if size == 126
                    else _LONG_LENGTH.unpack_from(data, at + 2)[0]
                )
            if size > most:
                self._end(Broken(CloseCode.TOO_BIG, "message too big"), events)
                break
            after = body + size
            if end < after:
                break
            payload = apply_mask(view[body:after], data[body - 4 : body])
            if first == _FIRST_BINARY:
                events.append(payload)
            else:
                self._control(first & 0x0F, payload, events)
            at = after
        if at < end and not self._over:
            self._held = data[at:]
        return events

    def _end(self, event: Event, events: list[Event]) -> None:
        self._over = True
        self._held = b""
        events.append(event)

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == _PING:
            events.append(Ping(payload))
        elif opcode == _CLOSE:
            self._end(_closing(payload), events)

    def _refusal(self, first: int, size: int) -> Broken | None:
        """Why a frame that is no plain message cannot be taken; None: it is a control frame."""
        opcode, code = first & 0x0F, CloseCode.PROTOCOL_ERROR
        if first & 0x70:
            return Broken(code, "reserved bits are set")
        if opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            return Broken(code, "unknown opcode")
        if opcode >= _CLOSE and (size & 0x7F) > _MAX_CONTROL:
            return Broken(code, "control frame too long")
        if opcode >= _CLOSE and not first & 0x80:
            return Broken(code, "fragmented control frame")
        if size > 127:
            return Broken(0, "not masked")
        if opcode == _CONTINUATION:
            return Broken(code, "continuation without a start")
        if opcode == _TEXT:
            return Broken(0, "text message")
        if opcode == _BINARY:
            return Broken(0, "fragmented message")
        return None


def _closing(payload: bytes) -> Closed | Broken:
    if not payload:
        return Closed(payload)
    code = int.from_bytes(payload[:2], "big")
    valid = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) < 2 or not (valid or 3000 <= code <= 4999):
        return Broken(CloseCode.PROTOCOL_ERROR, "invalid close payload")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return Broken(CloseCode.PROTOCOL_ERROR, "invalid close payload")
    return Closed(payload)


def binary_header(size: int) -> bytes:
    """What stands before a message of up to 65535 bytes to a client."""
    if size < 126:
        return bytes((_FIRST_BINARY, size))
    return _LONG.pack(_FIRST_BINARY, 126, size)


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return bytes((0x80 | _PONG, len(payload))) + payload


def close(payload: bytes = b"") -> bytes:
    """A Close frame; the payload is a code and a reason."""
    return bytes((0x80 | _CLOSE, len(payload))) + payload


def close_because(code: int, reason: str) -> bytes:
    """A Close frame with a reason."""
    return close(_LENGTH.pack(code) + reason.encode())
