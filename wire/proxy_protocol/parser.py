"""Reads one header from the front of a connection, whatever pieces it comes in.

Source: the PROXY protocol, sections 2 (both versions at one port) to 2.2.
"""

from __future__ import annotations

from typing import Final

from wire.proxy_protocol.header import (
    MAX_BODY,
    MAX_TEXT,
    SIGNATURE,
    VERSION_1,
    Header,
    HeaderError,
    binary_header,
    text_header,
)

#: Bytes of version 2 in front of its addresses.
_HEAD: Final = len(SIGNATURE) + 4


def may_begin(data: bytes) -> bool | None:
    """True when a header begins these bytes, False when none does, None: more is needed to say."""
    for begin in (VERSION_1, SIGNATURE):
        if data.startswith(begin):
            return True
        if begin.startswith(data):
            return None
    return False


class Parser:
    """Reads one header from the front of a connection, whatever pieces it comes in.

    Attributes:
        rest: what came behind the header.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def rest(self) -> bytes:
        return bytes(self._held)

    def receive(self, data: bytes) -> Header | None:
        """Bytes of the proxy; the header once it is complete, and nothing after.

        Raises:
            HeaderError: none begins here, or it is broken.
        """
        self._held += data
        held = bytes(self._held)
        begins = may_begin(held)
        if begins is None:
            return None
        if not begins:
            raise HeaderError("no_header")
        return self._text(held) if held.startswith(VERSION_1) else self._binary(held)

    def _text(self, held: bytes) -> Header | None:
        end = held.find(b"\r\n", 0, MAX_TEXT)
        if end < 0:
            if len(held) >= MAX_TEXT:
                raise HeaderError("too_long")
            return None
        header = text_header(held[:end])
        del self._held[: end + 2]
        return header

    def _binary(self, held: bytes) -> Header | None:
        if len(held) < _HEAD:
            return None
        command, family = held[len(SIGNATURE)], held[len(SIGNATURE) + 1]
        length = int.from_bytes(held[_HEAD - 2 : _HEAD], "big")
        if length > MAX_BODY:
            raise HeaderError("too_long")
        if len(held) < _HEAD + length:
            return None
        header = binary_header(command, family, held[_HEAD : _HEAD + length])
        del self._held[: _HEAD + length]
        return header
