from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peer.vectors import cases, payload_of
from wire.peer.cluster_frame import (
    Frame,
    FrameParser,
    FrameType,
    decode_binding,
    decode_forward,
    decode_peer,
    encode,
    encode_binding,
    encode_forward,
    encode_peer,
)
from wire.peer.cluster_hello import check_hello, encode_hello
from wire.peer.errors import BadFrame, NotEncodable
from wire.peer.messages import encode_transport, peer_id


def made(case: dict[str, Any]) -> bytes:
    given_, name = case["inputs"], case["name"]
    if name.startswith("HELLO"):
        address = given_.get("address", "h" * given_.get("address_len", 0))
        hello = encode_hello(address, given_.get("secret", ""), given_.get("unix", 0))
        return encode(FrameType.HELLO, hello)
    if name.startswith("WHO_HAS"):
        return encode_peer(FrameType.WHO_HAS, peer_id(given_["peer"]))
    if name.startswith("I_HAVE"):
        return encode_binding(FrameType.I_HAVE, peer_id(given_["peer"]), given_["seqno"])
    if name.startswith("FWD"):
        message = encode_transport(peer_id(given_["source"]), payload_of(given_))
        return encode_forward(peer_id(given_["destination"]), message)
    if name.startswith("frame"):
        return encode(0x30, bytes(given_["len"]))
    if name.startswith("P"):
        return encode(FrameType[name[:4]])
    return bytes.fromhex(case["hex"])  # the types nobody sends


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in cases("cluster_frames")])
def test_frames_are_those_of_the_original(case: dict[str, Any]) -> None:
    if case.get("encoder_refuses"):
        with pytest.raises(NotEncodable):
            made(case)
        return
    frame = made(case)
    recorded = bytes.fromhex(case["hex"])
    assert frame[: len(recorded)] == recorded
    assert FrameParser().receive(frame) == [Frame(frame[0], frame[3:])]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["name"]) for c in cases("cluster_hello_accept")]
)
def test_hello_is_judged_as_by_the_original(case: dict[str, Any]) -> None:
    given_, payload = case["inputs"], bytes.fromhex(case["hex"])
    if case["accepted"]:
        hello = check_hello(payload, given_["acceptor_secret"], given_["now"])
        assert hello.address == payload[2 : 2 + payload[1]]
    else:
        with pytest.raises(BadFrame):
            check_hello(payload, given_["acceptor_secret"], given_["now"])


def test_only_transport_messages_are_forwarded() -> None:
    bob, message = peer_id("bob"), encode_transport(peer_id("alice"), b"hello")
    assert decode_forward(encode_forward(bob, message)[3:]) == (bob, message)
    for inside in (b"", b"\x01\x04", b"\x01\x07x", b"\x02" + message[1:], message[:37],
                   b"\x01\x07" + bytes(60), message + bytes(8820)):  # fmt: skip
        with pytest.raises(BadFrame):
            decode_forward(bob + inside)


@pytest.mark.parametrize("size", [0, 1, 60_000, 65_534])
def test_frames_in_pieces(size: int) -> None:
    parser, frame = FrameParser(), encode(0x30, bytes(size))
    got: list[Frame] = []
    for at in range(0, len(frame), 1000):
        got += parser.receive(frame[at : at + 1000])
    assert got == [Frame(0x30, bytes(size))]
    assert not parser.inside
    parser.receive(frame[:2])
    assert parser.inside


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50))), st.data())
def test_frames_come_back_however_they_are_cut(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(kind, payload) for kind, payload in frames)
    parser, got, at = FrameParser(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        got += parser.receive(stream[at : at + size])
        at += size
    assert got == [Frame(kind, payload) for kind, payload in frames]


@given(st.binary(max_size=200))
def test_no_frame_does_more_than_be_refused(payload: bytes) -> None:
    for decode in (decode_peer, decode_binding, decode_forward):
        try:
            decode(payload)
        except BadFrame:
            pass
    for secret in ("", "s"):
        try:
            check_hello(b"\x02" + payload, secret, 0)
        except BadFrame:
            pass
