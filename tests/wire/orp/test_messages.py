from __future__ import annotations

import dataclasses
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.orp.strategies import messages
from tests.wire.orp.vectors import GOLDEN, SRFLX
from wire.orp import limits, orp_pb2
from wire.orp.errors import EncodeError, MalformedMessage
from wire.orp.frame import Frame, FrameReader, FrameType, encode_frame
from wire.orp.message_codec import Fields
from wire.orp.messages import (
    AllocGranted,
    Candidate,
    CandidateOffer,
    Goaway,
    Hello,
    HelloAck,
    Message,
    MigrateToP2P,
    ObservedAddrResp,
    OpenStream,
    Ping,
    Pong,
    Register,
    RegisterAck,
    StreamAccept,
    StreamReject,
    UnknownFrame,
    decode,
)


def frame_of(data: bytes) -> Frame:
    reader = FrameReader()
    reader.feed(data)
    (frame,) = reader
    reader.eof()
    return frame


# Golden vectors.


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vector_is_what_we_send(name: str) -> None:
    message, golden = GOLDEN[name]
    assert message.encode().hex() == golden


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vector_is_understood(name: str) -> None:
    message, golden = GOLDEN[name]
    frame = frame_of(bytes.fromhex(golden))
    assert FrameType(frame.type).name == name
    assert not frame.irregular
    assert decode(frame) == message


@pytest.mark.parametrize(
    "message", [HelloAck(), StreamAccept(), Ping(), Pong(), Goaway()], ids=lambda m: m.TYPE.name
)
def test_frames_without_contents_are_eight_bytes(message: Message) -> None:
    assert len(message.encode()) == 8


# Round trip and hostile payloads.


@given(messages)
def test_what_we_send_we_understand(message: Message) -> None:
    assert decode(frame_of(message.encode())) == message


@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_an_arbitrary_payload_gives_a_message_or_a_malformed_message(
    frame_type: FrameType, payload: bytes
) -> None:
    frame = Frame(frame_type, payload)
    try:
        message = decode(frame)
    except MalformedMessage:
        return
    if isinstance(message, UnknownFrame):
        assert message.frame is frame
    else:
        assert message.TYPE is frame_type


@given(messages, st.data())
def test_a_damaged_message_gives_a_message_or_a_malformed_message(
    message: Message, data: st.DataObject
) -> None:
    payload = bytearray(message.encode()[8:])
    if payload:
        position = data.draw(st.integers(0, len(payload) - 1))
        payload[position] ^= data.draw(st.integers(1, 255))
    try:
        decode(Frame(message.TYPE, bytes(payload)))
    except MalformedMessage:
        pass


@pytest.mark.parametrize(
    "frame_type",
    [
        FrameType.RESOLVE,
        FrameType.RESOLVE_RESP,
        FrameType.POLICY_UPDATE,
        FrameType.METRIC_REPORT,
        FrameType.STREAM_INIT,
        FrameType.STREAM_DATA,
        FrameType.STREAM_FIN,
        FrameType.STREAM_RESET,
        0x7FF,
    ],
)
def test_a_type_without_message_is_a_value_not_an_error(frame_type: int) -> None:
    frame = Frame(frame_type, b"anything")
    assert decode(frame) == UnknownFrame(frame)


@pytest.mark.parametrize("frame_type", [FrameType.PING, FrameType.PONG, FrameType.GOAWAY])
def test_the_payload_of_a_signal_is_ignored(frame_type: FrameType) -> None:
    assert decode(Frame(frame_type, b"\xff\xff")) in (Ping(), Pong(), Goaway())


def test_fields_of_a_later_version_are_ignored() -> None:
    extended = orp_pb2.RegisterAck(service_id="acme/web").SerializeToString()
    extended += orp_pb2.IncomingStream(stream_id=7, source_agent_uri="x").SerializeToString()
    assert decode(Frame(FrameType.REGISTER_ACK, extended)) == RegisterAck("acme/web")
    assert decode(Frame(FrameType.STREAM_ACCEPT, extended)) == StreamAccept()


def test_a_filled_hello_ack_is_understood() -> None:
    filled = HelloAck("session-1", 1_700_000_000_000, ("resume",))
    assert decode(frame_of(filled.encode())) == filled


def test_an_absent_candidate_is_not_an_empty_one() -> None:
    assert decode(frame_of(MigrateToP2P(7).encode())) == MigrateToP2P(7, selected=None)
    empty = Candidate("", "", 0, 0)
    assert decode(frame_of(MigrateToP2P(7, selected=empty).encode())) == MigrateToP2P(
        7, selected=empty
    )


def test_a_missing_required_field_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="REGISTER: service_name is missing"):
        decode(Frame(FrameType.REGISTER, b""))
    with pytest.raises(EncodeError, match="service_name is missing"):
        Register("").encode()
    with pytest.raises(MalformedMessage, match="peer_allocation is missing"):
        decode(frame_of(encode_frame(FrameType.ALLOC_GRANTED, b"\x10\x01")))


# Limits: (message at the limit, the same beyond it, words of the error).
AT_LIMITS: list[tuple[Message, Message, str]] = [
    (Hello("u" * 1024), Hello("u" * 1025), "agent_uri has 1025 bytes, limit 1024"),
    (Hello("é" * 512), Hello("é" * 513), "agent_uri has 1026 bytes, limit 1024"),
    (Hello("u", "v" * 128), Hello("u", "v" * 129), "protocol_version has 129 bytes"),
    (
        Hello("u", capabilities=("c" * 128,) * 64),
        Hello("u", capabilities=("c",) * 65),
        "capabilities has 65 items, limit 64",
    ),
    (Hello("u"), Hello("u", capabilities=("", "c" * 129)), "capabilities has 129 bytes"),
    (Register("s" * 255), Register("s" * 256), "service_name has 256 bytes, limit 255"),
    (Register("s", "a" * 261), Register("s", "a" * 262), "local_addr has 262 bytes"),
    (OpenStream("s" * 255), OpenStream("s" * 256), "target_service has 256 bytes"),
    (OpenStream("s", "m" * 1024), OpenStream("s", "m" * 1025), "method has 1025 bytes"),
    (RegisterAck("i" * 1024), RegisterAck("i" * 1025), "service_id has 1025 bytes"),
    (StreamReject(502, "r" * 1024), StreamReject(502, "r" * 1025), "reason has 1025 bytes"),
    (
        ObservedAddrResp(1, "9" * 64, 65535),
        ObservedAddrResp(1, "9" * 64, 65536),
        "port is 65536, limit 65535",
    ),
    (ObservedAddrResp(1, "9" * 64, 1), ObservedAddrResp(1, "9" * 65, 1), "ip has 65 bytes"),
    (
        CandidateOffer(1, (SRFLX,) * 64),
        CandidateOffer(1, (SRFLX,) * 65),
        "candidates has 65 items, limit 64",
    ),
    (
        CandidateOffer(1, (SRFLX, Candidate("host", "::1", 65535, 1))),
        CandidateOffer(1, (SRFLX, Candidate("host", "::1", 65536, 1))),
        "port is 65536",
    ),
    (
        MigrateToP2P(1, selected=Candidate("k" * 128, "::1", 1, 1)),
        MigrateToP2P(1, selected=Candidate("k" * 129, "::1", 1, 1)),
        "kind has 129 bytes",
    ),
    (
        AllocGranted(1, 1, 2, "e" * 261),
        AllocGranted(1, 1, 2, "e" * 262),
        "forward_endpoint has 262 bytes",
    ),
]


@pytest.mark.parametrize("good, bad, words", AT_LIMITS)
def test_limits_hold_in_both_directions(good: Message, bad: Message, words: str) -> None:
    assert decode(frame_of(good.encode())) == good
    with pytest.raises(EncodeError, match=words):
        bad.encode()
    assert isinstance(bad, Fields)
    payload = bad.to_proto().SerializeToString()
    with pytest.raises(MalformedMessage, match=words) as caught:
        decode(Frame(bad.TYPE, payload))
    assert caught.value.reason == "malformed message"


@pytest.mark.parametrize(
    "message",
    [
        OpenStream("svc", stream_id=2**64),
        OpenStream("svc", stream_id=-1),
        StreamReject(2**32),
        HelloAck(server_time_unix_ms=2**63),
        Register("\ud800"),
        CandidateOffer(1, (Candidate("host", "::1", -1, 0),)),
    ],
)
def test_values_the_format_cannot_hold_are_our_error(message: Message) -> None:
    with pytest.raises(EncodeError, match=message.TYPE.name):
        message.encode()


def test_a_value_of_the_wrong_type_is_our_error() -> None:
    wrong = Register(service_name=7)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(EncodeError, match="REGISTER"):
        wrong.encode()


def test_a_long_list_is_refused_before_its_items_become_objects() -> None:
    frame = Frame(FrameType.CANDIDATE_OFFER, b"\x12\x00" * 32_000)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage, match="32000 items, limit 64"):
            decode(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024


def test_text_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="HELLO"):
        decode(Frame(FrameType.HELLO, b"\x12\x02\xff\xfe"))


def test_no_error_text_repeats_the_payload() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(Frame(FrameType.REGISTER, Register("s").encode()[8:] + b"\x0asecret-ish"))
    assert "secret" not in str(caught.value)


# Structure.


def test_every_message_mirrors_its_protobuf_fields() -> None:
    for message, _ in GOLDEN.values():
        if isinstance(message, Fields):
            ours = [field.name for field in dataclasses.fields(message)]
            assert sorted(ours) == sorted(type(message).PROTO.DESCRIPTOR.fields_by_name)


def test_the_largest_ctrl_message_fits_the_ctrl_limit() -> None:
    fullest = CandidateOffer(
        2**64 - 1,
        (Candidate("k" * limits.MAX_TOKEN_BYTES, "i" * limits.MAX_IP_BYTES, 65535, 2**32 - 1),)
        * limits.MAX_CANDIDATES,
    )
    assert len(fullest.encode()) <= limits.MAX_CTRL_PAYLOAD_BYTES


def test_every_first_frame_we_send_fits_the_first_frame_limit() -> None:
    service, method = "s" * limits.MAX_SERVICE_NAME_BYTES, "m" * limits.MAX_METHOD_BYTES
    first_frames = [
        OpenStream(service, method, 2**64 - 1),
        StreamReject(2**32 - 1, "r" * limits.MAX_REASON_BYTES),
    ]
    for message in first_frames:
        assert len(message.encode()) <= limits.MAX_FIRST_FRAME_PAYLOAD_BYTES
