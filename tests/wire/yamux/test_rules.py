"""Pings, GO_AWAY, broken rules and bounds of a yamux session (sheet 2.2, 2.4, 2.5, 2.9)."""

from __future__ import annotations

import pytest

from tests.wire.yamux.peer import ACK, DATA, FIN, GO_AWAY, INITIAL, PING, RST, SYN, WINDOW, Frame
from tests.wire.yamux.rig import Ours
from tests.wire.yamux.test_session import labels
from wire.yamux.events import PeerGoingAway, SessionDead, StreamOpened
from wire.yamux.limits import Limits

OPEN = Frame(WINDOW, SYN, 1)

BROKEN: dict[str, tuple[str, list[Frame]]] = {
    "version": ("bad_version", [Frame(DATA, version=1)]),
    "type": ("bad_type", [Frame(4)]),
    "SYN twice": ("bad_syn", [OPEN, OPEN]),
    "SYN on the session": ("bad_syn", [Frame(WINDOW, SYN, 0)]),
    "FIN twice": ("second_fin", [OPEN, Frame(WINDOW, FIN, 1), Frame(WINDOW, FIN, 1)]),
    "credit": ("credit_overflow", [OPEN, Frame(WINDOW, 0, 1, 0xFFFF_FFFF - INITIAL + 1)]),
    "window": ("window_exceeded", [OPEN, Frame(DATA, 0, 1, 0xFFFF_FFFF)]),
    "pings": ("too_many_pings", [Frame(PING, SYN, 0, n) for n in range(100_001)]),
    "unknown": ("unknown_streams", [Frame(WINDOW, 0, 9)] * 10_001),
    "credit of nothing": ("idle_frames", [OPEN, *[Frame(WINDOW, 0, 1)] * 20_001]),
    "data of nothing": ("idle_frames", [OPEN, *[Frame(DATA, 0xFF00, 1)] * 20_001]),
    "answers again": ("idle_frames", [OPEN, *[Frame(WINDOW, ACK, 1)] * 20_001]),
    "opens": ("too_many_streams", [Frame(WINDOW, SYN, 1 + 2 * n) for n in range(256 + 1025)]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_ends_the_session_and_says_so(rule: str) -> None:
    label, frames = BROKEN[rule]
    ours = Ours(client=False, eager=False)
    ours.feed(b"".join(frame.encode() for frame in frames))
    assert labels(ours) == [label]
    assert ours.session.dead
    assert ours.frames() == [Frame(GO_AWAY, 0, 0, 1)]
    assert ours.feed(OPEN) == []
    assert ours.session.open() is None
    assert ours.session.next_timer() is None
    assert ours.frames() == []


def test_the_largest_credit_is_no_overflow() -> None:
    ours = Ours(client=False)
    ours.feed(OPEN, Frame(WINDOW, 0, 1, 0xFFFF_FFFF - INITIAL))
    assert not ours.session.dead


def test_unknown_flags_are_ignored() -> None:
    ours = Ours(client=False)
    ours.feed(Frame(WINDOW, 0xFF00 | SYN, 1))
    assert ours.events == [StreamOpened(1)]


def test_late_frames_of_unknown_streams_are_drained() -> None:
    ours = Ours(client=False)
    ours.feed(
        Frame(DATA, 0, 7, payload=b"late"),
        Frame(WINDOW, FIN, 7),
        Frame(WINDOW, 0, 8, 5),
        Frame(WINDOW, RST, 7),
        OPEN,
    )
    assert ours.events == [StreamOpened(1)]
    assert ours.session.unknown_frames == 4


def test_an_id_that_is_dead_may_be_used_again() -> None:
    ours = Ours(client=False)
    ours.feed(OPEN, Frame(WINDOW, RST, 1), OPEN)
    first, again = (event.stream_id for event in ours.events if isinstance(event, StreamOpened))
    # Numbers of ours are never used twice: nobody takes one for the other.
    assert first == again & 0xFFFF_FFFF == 1
    assert first != again


@pytest.mark.parametrize("stream_id", [0, 7])
def test_pings_are_answered_with_their_number_on_the_session(stream_id: int) -> None:
    ours = Ours(client=False)
    ours.feed(Frame(PING, SYN, stream_id, 0xCAFE))
    assert ours.frames() == [Frame(PING, ACK, 0, 0xCAFE)]
    ours.feed(Frame(PING, ACK, 0, 77))  # nobody asked
    assert ours.frames() == []


def test_pongs_go_before_payload_and_are_bounded() -> None:
    ours = Ours(client=False)
    ours.feed(OPEN)
    ours.session.write(1, bytes(100_000))
    ours.feed(*(Frame(PING, SYN, 0, n) for n in range(500)))
    frames = ours.frames()
    assert [frame.kind for frame in frames[:64]] == [PING] * 64
    assert [frame.kind for frame in frames[64:]].count(PING) == 0


def test_a_silent_peer_is_dead_after_a_ping() -> None:
    ours = Ours(client=False, limits=Limits(keepalive=10, ping_timeout=5))
    assert ours.session.next_timer() == 110
    ours.now = 110
    ours.take(ours.session.handle_timer(ours.now))
    assert [frame.kind for frame in ours.frames()] == [PING]
    assert ours.session.next_timer() == 115
    ours.now = 115
    ours.take(ours.session.handle_timer(ours.now))
    assert labels(ours) == ["silent"]


def test_any_byte_is_a_sign_of_life() -> None:
    """A congested session is not dead because its pong is late (2.6)."""
    ours = Ours(client=False, limits=Limits(keepalive=10, ping_timeout=5))
    ours.feed(OPEN)
    ours.now = 110
    ours.take(ours.session.handle_timer(ours.now))
    ping = next(frame for frame in ours.frames() if frame.kind == PING)
    for _ in range(10):
        ours.now += 4
        ours.feed(Frame(DATA, 0, 1, payload=b"busy"))
        ours.take(ours.session.handle_timer(ours.now))
    assert not ours.session.dead
    ours.feed(Frame(PING, ACK, 0, ping.length))
    assert ours.session.round_trip == 40
    assert ours.session.next_timer() == ours.now + 10


def test_no_keepalive() -> None:
    ours = Ours(client=True, limits=Limits(keepalive=0))
    assert ours.session.next_timer() is None


def test_a_peer_that_goes_away_keeps_its_streams() -> None:
    ours = Ours(client=False)
    ours.feed(OPEN, Frame(GO_AWAY, 0, 0, 0))
    assert PeerGoingAway() in ours.events
    assert ours.session.open() is None
    ours.feed(Frame(WINDOW, SYN, 3), Frame(DATA, 0, 1, payload=b"goes on"))
    assert bytes(ours.received[1]) == b"goes on"
    assert StreamOpened(3) in ours.events
    assert not ours.session.dead


@pytest.mark.parametrize("code", [1, 2, 99, 4101])
def test_any_other_code_is_the_end(code: int) -> None:
    ours = Ours(client=False)
    ours.feed(OPEN, Frame(GO_AWAY, 0, 0, code), Frame(WINDOW, SYN, 3))
    assert ours.events[-1] == SessionDead(None, code)
    assert ours.session.dead
    assert ours.frames() == []


def test_after_our_go_away_new_streams_are_reset() -> None:
    ours = Ours(client=False)
    ours.feed(OPEN)
    ours.frames()
    ours.session.go_away()
    assert ours.frames() == [Frame(GO_AWAY, 0, 0, 0)]
    ours.feed(Frame(WINDOW, SYN, 3), Frame(DATA, 0, 1, payload=b"goes on"))
    assert ours.frames() == [Frame(WINDOW, RST, 3)]
    assert bytes(ours.received[1]) == b"goes on"


def test_close_says_why_and_nothing_else() -> None:
    ours = Ours(client=True)
    stream_id = ours.session.open()
    assert stream_id is not None
    ours.session.write(stream_id, b"never sent")
    ours.session.close(0x4F52_000A)
    assert ours.frames() == [Frame(GO_AWAY, 0, 0, 0x4F52_000A)]
    assert ours.session.handle_timer(1e9) == []
