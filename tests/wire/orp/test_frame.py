from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.orp.strategies import borders, cut, wild_bytes
from wire.errors import PeerError
from wire.orp.errors import EncodeError, FrameTooLarge, SessionMisuse, TruncatedFrame
from wire.orp.frame import (
    HEADER_BYTES,
    MAX_TYPE,
    Frame,
    FrameReader,
    FrameType,
    encode_frame,
    type_name,
)
from wire.orp.limits import MAX_CTRL_PAYLOAD_BYTES, MAX_FRAME_PAYLOAD_BYTES

# Every type of sheet 2.2.
SHEET_TYPES = {
    0x001: "HELLO",
    0x002: "HELLO_ACK",
    0x003: "REGISTER",
    0x004: "REGISTER_ACK",
    0x005: "RESOLVE",
    0x006: "RESOLVE_RESP",
    0x010: "OPEN_STREAM",
    0x011: "INCOMING_STREAM",
    0x012: "STREAM_ACCEPT",
    0x013: "STREAM_REJECT",
    0x020: "PING",
    0x021: "PONG",
    0x030: "POLICY_UPDATE",
    0x040: "METRIC_REPORT",
    0x0FF: "GOAWAY",
    0x100: "STREAM_INIT",
    0x101: "STREAM_DATA",
    0x102: "STREAM_FIN",
    0x103: "STREAM_RESET",
    0x110: "STREAM_CHECKPOINT",
    0x111: "STREAM_RESUME",
    0x120: "OBSERVED_ADDR_QUERY",
    0x121: "OBSERVED_ADDR_RESP",
    0x122: "CANDIDATE_OFFER",
    0x123: "CANDIDATE_ANSWER",
    0x124: "MIGRATE_TO_P2P",
    0x125: "MIGRATE_TO_RELAY",
    0x140: "FORWARD_STREAM",
    0x151: "ALLOC_GRANTED",
    0x152: "STREAM_READY",
}

frames = st.builds(
    Frame,
    st.integers(0, MAX_TYPE),
    st.binary(max_size=100),
    st.integers(0, 0xFFFF),
    st.integers(0, 7),
    st.integers(0, 3),
)


def read_all(data: bytes, limit: int = MAX_CTRL_PAYLOAD_BYTES) -> list[Frame]:
    reader = FrameReader(limit)
    reader.feed(data)
    result = list(reader)
    reader.eof()
    return result


# Format.


def test_the_types_are_those_of_the_sheet() -> None:
    assert {member.value: member.name for member in FrameType} == SHEET_TYPES


def test_a_type_is_named_for_people() -> None:
    assert type_name(0x111) == "STREAM_RESUME"
    assert type_name(0x7FF) == "type 0x7ff"


def test_upstreams_layout_vector() -> None:
    data = encode_frame(FrameType.HELLO, b"\x01\x02", flags=0xABCD)
    assert data[:HEADER_BYTES] == bytes.fromhex("2001ABCD00000002")
    assert read_all(data) == [Frame(1, b"\x01\x02", flags=0xABCD)]


def test_version_and_reserved_bits_are_accepted_kept_and_told() -> None:
    (frame,) = read_all(bytes.fromhex("f820000000000000"))
    assert frame == Frame(FrameType.PING, b"", version=7, reserved=3)
    assert frame.irregular


@pytest.mark.parametrize(
    "frame",
    [Frame(1, b"", flags=1), Frame(1, b"", version=0), Frame(1, b"", reserved=1)],
)
def test_any_unexpected_header_bit_makes_a_frame_irregular(frame: Frame) -> None:
    assert frame.irregular
    assert not Frame(1, b"payload").irregular


@given(frames)
def test_a_received_frame_encodes_to_the_bytes_received(frame: Frame) -> None:
    assert read_all(frame.encode()) == [frame]


@pytest.mark.parametrize("frame_type", [-1, MAX_TYPE + 1])
def test_a_type_that_does_not_fit_is_refused(frame_type: int) -> None:
    with pytest.raises(EncodeError, match="frame type"):
        encode_frame(frame_type)


@pytest.mark.parametrize("flags", [-1, 0x10000])
def test_flags_that_do_not_fit_are_refused(flags: int) -> None:
    with pytest.raises(EncodeError, match="flags"):
        encode_frame(1, flags=flags)


def test_the_largest_payload_of_the_format_is_inclusive() -> None:
    largest = bytes(MAX_FRAME_PAYLOAD_BYTES)
    assert len(encode_frame(1, largest)) == HEADER_BYTES + MAX_FRAME_PAYLOAD_BYTES
    with pytest.raises(EncodeError, match="16777217"):
        encode_frame(1, largest + b"x")


# Reading.


@given(st.lists(frames, max_size=5), borders)
def test_chunk_borders_do_not_matter(sent: list[Frame], where: list[int]) -> None:
    data = b"".join(frame.encode() for frame in sent)
    assert read_all(data) == sent
    single_bytes = [data[i : i + 1] for i in range(len(data))]
    for chunks in (single_bytes, cut(data, where)):
        reader = FrameReader()
        received: list[Frame] = []
        for chunk in chunks:
            reader.feed(memoryview(bytearray(chunk)))
            received.extend(reader)
        reader.eof()
        assert received == sent


@given(wild_bytes, borders, st.sampled_from([0, 16, 4096, MAX_CTRL_PAYLOAD_BYTES]))
def test_arbitrary_bytes_give_frames_a_documented_error_or_wait(
    data: bytes, where: list[int], limit: int
) -> None:
    def outcome(chunks: list[bytes]) -> tuple[list[Frame], str]:
        reader = FrameReader(limit)
        received: list[Frame] = []
        try:
            for chunk in chunks:
                reader.feed(chunk)
                for frame in reader:
                    assert len(frame.payload) <= limit
                    received.append(frame)
                assert reader.pending <= HEADER_BYTES + limit
            reader.eof()
        except PeerError as error:
            return received, str(error)
        return received, "clean end"

    whole = outcome([data])
    assert outcome(cut(data, where)) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    data = encode_frame(1, bytes(16))
    assert len(read_all(data, limit=16)) == 1
    with pytest.raises(FrameTooLarge):
        read_all(encode_frame(1, bytes(17)), limit=16)


def test_an_oversized_frame_is_refused_from_its_header_alone() -> None:
    reader = FrameReader()
    reader.feed(bytes.fromhex("2001000000010001"))
    with pytest.raises(FrameTooLarge) as caught:
        reader.next_frame()
    assert (caught.value.declared, caught.value.limit) == (65537, 65536)
    assert reader.pending == 0


def test_an_oversized_frame_is_refused_at_the_eighth_byte() -> None:
    reader = FrameReader()
    for byte in bytes.fromhex("20010000ffffff"):
        reader.feed(bytes([byte]))
        assert reader.next_frame() is None
    reader.feed(b"\xff" + bytes(1000))
    with pytest.raises(FrameTooLarge, match="4294967295"):
        reader.next_frame()
    assert reader.pending == 0


def test_frames_before_an_oversized_one_are_delivered() -> None:
    reader = FrameReader(limit=4)
    reader.feed(encode_frame(1, b"good") + encode_frame(2, b"large"))
    assert reader.next_frame() == Frame(1, b"good")
    with pytest.raises(FrameTooLarge):
        reader.next_frame()


def test_after_an_error_every_call_raises_it_again() -> None:
    reader = FrameReader(limit=0)
    reader.feed(encode_frame(1, b"x"))
    for call in (reader.next_frame, lambda: reader.feed(b"more"), reader.eof):
        with pytest.raises(FrameTooLarge):
            call()


def test_nothing_is_allocated_from_a_declared_length() -> None:
    reader = FrameReader(limit=MAX_FRAME_PAYLOAD_BYTES)
    tracemalloc.start()
    try:
        reader.feed(bytes.fromhex("2001000001000000") + bytes(1000))
        assert reader.next_frame() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.pending == HEADER_BYTES + 1000
    assert peak < 64 * 1024


def test_a_large_chunk_of_small_frames_is_not_copied_into_the_reader() -> None:
    chunk = encode_frame(FrameType.PING) * 50_000
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(chunk)
        count = sum(1 for _ in reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 64 * 1024


def test_the_chunk_is_let_go_when_no_frame_is_left() -> None:
    chunk = bytearray(encode_frame(1, b"abc") + b"\x20")
    reader = FrameReader()
    reader.feed(chunk)
    assert list(reader) == [Frame(1, b"abc")]
    chunk.clear()  # BufferError while a view is held
    assert reader.pending == 1


@pytest.mark.parametrize("limit", [-1, MAX_FRAME_PAYLOAD_BYTES + 1])
def test_a_limit_outside_the_format_is_refused(limit: int) -> None:
    with pytest.raises(SessionMisuse, match="limit"):
        FrameReader(limit)


def test_feeding_before_the_frames_are_taken_is_refused() -> None:
    reader = FrameReader()
    reader.feed(encode_frame(1) + encode_frame(2))
    assert reader.next_frame() == Frame(1, b"")
    with pytest.raises(SessionMisuse, match="take all frames"):
        reader.feed(b"more")
    with pytest.raises(SessionMisuse, match="take all frames"):
        reader.eof()


# End of stream.


@pytest.mark.parametrize("begin", [b"", encode_frame(1, b"whole")])
def test_the_end_at_a_frame_border_is_clean(begin: bytes) -> None:
    reader = FrameReader()
    reader.feed(begin)
    list(reader)
    reader.eof()
    with pytest.raises(SessionMisuse, match="after end"):
        reader.feed(b"x")


@pytest.mark.parametrize("size", range(1, 13))
def test_the_end_inside_a_frame_is_not(size: int) -> None:
    reader = FrameReader()
    reader.feed(encode_frame(1, b"hello")[:size])
    assert reader.next_frame() is None
    with pytest.raises(TruncatedFrame) as caught:
        reader.eof()
    assert caught.value.received == size
    assert caught.value.needed == (8 if size < 8 else 13)


# One frame, then application bytes.


@given(st.binary(max_size=50), st.binary(max_size=50), borders)
def test_exactly_one_frame_is_taken_and_the_rest_handed_back(
    payload: bytes, application: bytes, where: list[int]
) -> None:
    chunks = cut(encode_frame(FrameType.OPEN_STREAM, payload) + application, where)
    reader = FrameReader()
    frame = None
    while frame is None:
        reader.feed(chunks.pop(0))
        frame = reader.next_frame()
    assert frame == Frame(FrameType.OPEN_STREAM, payload)
    assert reader.take_rest() + b"".join(chunks) == application
    assert reader.take_rest() == b""


def test_bytes_of_an_unfinished_frame_are_not_handed_back() -> None:
    reader = FrameReader()
    reader.feed(encode_frame(1, b"payload")[:9])
    assert reader.next_frame() is None
    with pytest.raises(SessionMisuse, match="inside a frame"):
        reader.take_rest()
