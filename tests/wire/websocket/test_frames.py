from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.websocket.frames import Broken, Closed, Event, FrameReader, Ping
from wire.websocket.handshake import Answered, Handshake, Opened

MASK = b"\x37\xfa\x21\x3d"


def frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_messages_come_back_however_they_are_cut(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(0x82, one) for one in sent)
    reader, got, at = FrameReader(8820), list[Event](), 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        got += reader.receive(stream[at : at + size])
        at += size
    assert got == sent


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_events_and_nothing_follows_the_end(pieces: list[bytes]) -> None:
    reader, over = FrameReader(8820), False
    for piece in pieces:
        for event in reader.receive(piece):
            assert not over
            over = isinstance(event, Broken | Closed)


@pytest.mark.parametrize("size", [8820, 8821, 70_000])
def test_a_message_has_its_bound(size: int) -> None:
    events = FrameReader(8820).receive(frame(0x82, bytes(size)))
    assert events == [bytes(size)] if size <= 8820 else events == [Broken(1009, "message too big")]


def test_control_frames_between_messages() -> None:
    stream = frame(0x82, b"a") + frame(0x89, b"p") + frame(0x8A, b"") + frame(0x88, b"\x03\xe8bye")
    assert FrameReader(10).receive(stream + frame(0x82, b"late")) == [
        b"a",
        Ping(b"p"),
        Closed(b"\x03\xe8bye"),
    ]


@given(st.binary(max_size=400), st.booleans())
def test_any_request_is_answered_or_incomplete(data: bytes, ended: bool) -> None:
    outcome = Handshake("/relay").receive(data + b"\r\n\r\n" if ended else data)
    assert outcome is not None or not ended
    assert outcome is None or outcome.answer.startswith(b"HTTP/1.1 ")


def test_a_request_without_an_end_has_a_bound() -> None:
    outcome = Handshake("/relay").receive(b"GET /relay HTTP/1.1\r\n" + bytes(9000))
    assert isinstance(outcome, Answered)
    assert outcome.status == 431


def test_what_follows_the_request_is_not_lost() -> None:
    request = (
        b"GET /relay HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    handshake, outcome = Handshake("/relay"), None
    for at in range(len(request)):
        assert outcome is None
        outcome = handshake.receive(
            request[at : at + 1] + (b"rest" if at == len(request) - 1 else b"")
        )
    assert isinstance(outcome, Opened)
    assert outcome.rest == b"rest"
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in outcome.answer
