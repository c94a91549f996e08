"""Finding the core's PATH_CHALLENGE, and when it is sent again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.transport.quic.engine import Address
from actors.transport.quic.native_engine.challenge import (
    PACKET_BYTES,
    PAUSE,
    Challenge,
    challenge_in,
)
from tests.transport.engines.attacker import frame

THERE: Address = ("198.51.100.7", 5555)
ELSEWHERE: Address = ("203.0.113.1", 1)
WANTED = frame(0x1A, b"12345678")
OTHERS = (
    frame(0x00),
    frame(0x01),
    frame(0x02, 10**6, 5, 1, 3, 2, 2),
    frame(0x03, 10**6, 5, 0, 3, 1, 2, 3),
    frame(0x04, 4, 7, 10),
    frame(0x05, 4, 7),
    frame(0x0A, 4, 3, b"abc"),
    frame(0x0F, 4, 10**6, 3, b"abc"),
    frame(0x10, 10**9),
    frame(0x11, 4, 10**9),
    frame(0x12, 100),
    frame(0x18, 3, 1, b"\x08" + b"c" * 8, b"t" * 16),
    frame(0x19, 1),
    frame(0x1B, b"87654321"),
    frame(0x1E),
)


@given(st.lists(st.sampled_from(OTHERS), max_size=6), st.lists(st.sampled_from(OTHERS), max_size=3))
def test_it_is_found_among_others(before: list[bytes], after: list[bytes]) -> None:
    assert challenge_in(b"".join([*before, WANTED, *after])) == WANTED
    assert challenge_in(b"".join([*before, *after])) == b""


@given(st.binary(max_size=60))
def test_of_anything_it_takes_a_whole_frame_or_none(payload: bytes) -> None:
    assert len(challenge_in(payload)) in (0, len(WANTED))


def test_it_is_sent_again_to_who_sends_from_there_and_not_too_often() -> None:
    challenge = Challenge(THERE)

    def due_after(address: Address, count: int, now: float) -> bool:
        challenge.heard(address, count, now)
        return challenge.due

    assert not due_after(THERE, 1200, 1.0)  # the core has sent none
    challenge.frame = WANTED
    challenge.sent(1.0, 0.2)
    assert not due_after(THERE, 1200, 1.39)
    assert not due_after(ELSEWHERE, 1200, 1.4)
    assert not due_after(THERE, PACKET_BYTES // 3 - 1, 1.4)
    assert due_after(THERE, 40, 1.4)
    challenge.sent(1.4, 0.0)
    assert not due_after(THERE, 40, 1.4 + PAUSE / 2)
