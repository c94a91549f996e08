"""The first message of a data stream, whatever the borders of its chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.orp.errors import FrameTooLarge
from wire.orp.frame import FrameType, encode_frame
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import FirstMessageReader, OpenStream

MESSAGE = OpenStream("echo", "", 7)


@given(rest=st.binary(max_size=64), border=st.integers(0, len(MESSAGE.encode()) + 64))
def test_what_follows_the_message_is_left(rest: bytes, border: int) -> None:
    data = MESSAGE.encode() + rest
    reader = FirstMessageReader()
    message, used = None, 0
    for chunk in (data[:border], data[border:]):
        if message is None:
            reader.feed(chunk)
            used += len(chunk)
            message = reader.next_message()
    assert message == MESSAGE
    assert reader.take_rest() + data[used:] == rest


def test_a_frame_that_is_too_long_for_a_first_one_is_refused_by_its_header() -> None:
    frame = encode_frame(FrameType.OPEN_STREAM, bytes(MAX_FIRST_FRAME_PAYLOAD_BYTES + 1))
    reader = FirstMessageReader()
    reader.feed(frame[:8])
    with pytest.raises(FrameTooLarge):
        reader.next_message()
