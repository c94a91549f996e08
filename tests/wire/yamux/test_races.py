"""What peers do in good faith, or not, and no session may die of; and what it may cost."""

from __future__ import annotations

import pytest

from tests.wire.yamux.peer import ACK, DATA, FIN, INITIAL, PING, RST, SYN, WINDOW, Frame
from tests.wire.yamux.rig import Ours
from tests.wire.yamux.test_session import SMALL, labels
from wire.yamux.events import (
    DataReceived,
    FinReceived,
    Openable,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.limits import Limits

OPEN = Frame(WINDOW, SYN, 1)


def opened(ours: Ours) -> int:
    stream_id = ours.session.open()
    assert stream_id is not None
    return stream_id


def between(left: Ours, right: Ours) -> None:
    """Until both are silent; no time passes."""
    while (data := left.output()) or right.session.wants_to_send:
        right.feed(data)
        left.feed(right.output())


# Write and Close of a Go peer race (2.4 row 28, 2.9 test 29).


def test_data_behind_a_fin_is_dropped_and_the_session_goes_on() -> None:
    ours = Ours(client=False, limits=SMALL)
    ours.feed(OPEN, Frame(DATA, FIN, 1, payload=b"all"))
    for late in (b"late", b""):
        ours.feed(Frame(DATA, 0, 1, payload=late))
    assert not ours.session.dead
    assert bytes(ours.received[1]) == b"all"
    assert ours.session.late_bytes == 4
    ours.session.write(1, b"answer")
    assert Frame(DATA, 0, 1, 6, b"answer") in ours.frames()
    # It was no gift: what it may send is what it could send before.
    ours.feed(Frame(DATA, 0, 1, payload=bytes(INITIAL - 7)))
    assert not ours.session.dead
    ours.feed(Frame(DATA, 0, 1, payload=b"x"))
    assert labels(ours) == ["window_exceeded"]


def test_data_behind_both_fins_is_dropped() -> None:
    ours = Ours(client=False, limits=SMALL, eager=False)
    ours.feed(OPEN, Frame(WINDOW, FIN, 1))
    ours.session.finish(1)
    ours.frames()
    ours.feed(*[Frame(DATA, 0, 1, payload=b"x")] * 20_000)
    assert not ours.session.dead
    assert ours.session.unconsumed == 0


# A stream that is reset while it carries small frames (2.5, 2.9 test 30).


@pytest.mark.parametrize("who", ["we", "peer", "refused"])
def test_what_is_late_for_a_stream_that_was_is_free_up_to_its_credit(who: str) -> None:
    limits = Limits(window=INITIAL, max_unaccepted=0 if who == "refused" else 1)
    ours = Ours(client=False, limits=limits, eager=False)
    ours.feed(OPEN)
    if who == "we":
        ours.session.reset(1)
    elif who == "peer":
        ours.feed(Frame(WINDOW, RST, 1))
    ours.frames()
    ours.feed(Frame(DATA, 0, 1, payload=b"x").encode() * INITIAL)
    assert not ours.session.dead
    ours.feed(Frame(DATA, 0, 1, payload=b"x").encode() * 10_000)
    assert not ours.session.dead
    ours.feed(Frame(DATA, 0, 1, payload=b"x"))
    assert labels(ours) == ["unknown_streams"]


def test_streams_that_never_were_are_no_late_ones() -> None:
    ours = Ours(client=False)
    ours.feed(Frame(WINDOW, SYN, 5), Frame(WINDOW, 0, 7).encode() * 10_001)
    assert labels(ours) == ["unknown_streams"]


# One PING per stream that ends (2.5, 2.9 test 32).


def test_thousands_of_short_streams_a_second_between_two_of_ours() -> None:
    client, server = Ours(client=True), Ours(client=False)
    pings = finished = 0
    for _ in range(5000):
        stream_id = opened(client)
        client.session.write(stream_id, b"question")
        client.session.finish(stream_id)
        for _ in range(3):
            for left, right in ((client, server), (server, client)):
                frames = left.frames()
                pings += sum((frame.kind, frame.flags) == (PING, SYN) for frame in frames)
                right.feed(b"".join(frame.encode() for frame in frames))
            if FinReceived(stream_id) in server.events:
                server.session.finish(stream_id)
        for side in (client, server):
            finished += sum(isinstance(event, StreamFinished) for event in side.events)
            side.events.clear()
            side.now += 0.0002
            side.take(side.session.handle_timer(side.now))
    assert not client.session.dead
    assert not server.session.dead
    assert pings <= 2 * 200 + 2
    for side in (client, server):
        side.now += 0.01
        side.take(side.session.handle_timer(side.now))
    between(client, server)
    for side in (client, server):
        finished += sum(isinstance(event, StreamFinished) for event in side.events)
    assert finished == 2 * 5000


def test_a_ping_per_round_trip_of_a_loopback_is_no_abuse() -> None:
    ours = Ours(client=False)
    for number in range(20_000):
        ours.feed(Frame(PING, SYN, 0, number))
        assert ours.frames() == [Frame(PING, ACK, 0, number)]
    assert not ours.session.dead


def test_a_peer_that_never_confirms_an_end_opens_no_more_and_nor_do_we() -> None:
    ours = Ours(client=False, limits=Limits(max_unconfirmed=10))
    ids = [2 * n + 1 for n in range(11)]
    for stream_id in ids:
        ours.feed(Frame(WINDOW, SYN | FIN, stream_id))
        ours.session.finish(stream_id)
        ours.output()
    assert StreamOpened(ids[9]) in ours.events
    assert StreamOpened(ids[10]) not in ours.events
    assert ours.session.open() is None
    ours.feed(Frame(PING, ACK, 0, 0))
    assert ours.events.count(Openable()) == 1
    ours.now += 1
    ours.take(ours.session.handle_timer(ours.now))
    ours.output()
    ours.feed(Frame(PING, ACK, 0, 1))
    assert sum(isinstance(event, StreamFinished) for event in ours.events) == 10
    assert ours.session.open() is not None


# Requests that are complete at once (2.4 row 29, 2.9 test 31).


def test_a_fin_waits_for_the_answer_so_that_there_is_one() -> None:
    ours = Ours(client=True)
    ids = []
    while (stream_id := ours.session.open()) is not None:
        ours.session.write(stream_id, b"GET /")
        ours.session.finish(stream_id)
        ids.append(stream_id)
    assert len(ids) == 256
    assert not any(frame.flags & FIN for frame in ours.frames())
    ours.feed(*(Frame(WINDOW, ACK, stream_id) for stream_id in ids))
    assert sum(frame.flags & FIN == FIN for frame in ours.frames()) == 256
    assert Openable() in ours.events
    assert ours.session.open() is not None


def test_a_fin_without_an_answer_goes_after_a_second_and_its_place_is_free_in_the_end() -> None:
    ours = Ours(client=True, limits=Limits(keepalive=0, max_unacknowledged=2))
    for _ in range(2):
        stream_id = opened(ours)
        ours.session.write(stream_id, b"GET /")
        ours.session.finish(stream_id)
    assert ours.session.open() is None
    ours.frames()
    assert ours.session.next_timer() == ours.now + 1.0
    ours.now += 1.0
    ours.take(ours.session.handle_timer(ours.now))
    assert ours.frames() == [Frame(WINDOW, FIN, 1), Frame(WINDOW, FIN, 3)]
    assert Openable() not in ours.events
    assert ours.session.next_timer() == ours.now + 10.0
    ours.now += 10.0
    ours.take(ours.session.handle_timer(ours.now))
    assert Openable() in ours.events
    assert ours.session.open() == 5
    # The answer is heard all the same.
    ours.feed(Frame(DATA, FIN, 1, payload=b"late answer"))
    assert bytes(ours.received[1]) == b"late answer"


# One segment, and an application that says hello first (2.8, 2.9 test 33).


def greeted(*frames: Frame) -> tuple[Ours, list[Frame]]:
    """What becomes of an application that greets every stream, ends it and consumes what comes."""
    ours = Ours(client=False, eager=False)
    for event in ours.feed(b"".join(frame.encode() for frame in frames)):
        if isinstance(event, StreamOpened):
            ours.session.accept(event.stream_id)
            ours.session.write(event.stream_id, b"hello")
            ours.session.write(event.stream_id, b"")
        elif isinstance(event, DataReceived):
            ours.session.consume(event.stream_id, len(event.data))
            ours.session.discard(event.stream_id, ours.now)
        elif isinstance(event, StreamReset):
            ours.session.write(event.stream_id, b"too late")
            ours.session.finish(event.stream_id)
            ours.session.consume(event.stream_id, 1)
            ours.session.reset(event.stream_id)
    return ours, ours.frames()


def test_a_stream_that_is_reset_in_its_first_segment() -> None:
    ours, said = greeted(Frame(WINDOW, SYN | RST, 1))
    assert ours.events == [StreamOpened(1), StreamReset(1, 0)]
    assert said == []
    ours, said = greeted(Frame(WINDOW, SYN | FIN | RST, 1))
    assert ours.events == [StreamOpened(1), StreamReset(1, 0)]


def test_a_session_that_dies_in_the_first_segment_of_a_stream() -> None:
    ours, said = greeted(Frame(WINDOW, SYN, 1, 0xFFFF_FFFF))
    assert labels(ours) == ["credit_overflow"]
    assert said == [Frame(3, 0, 0, 1)]
    ours, said = greeted(OPEN, Frame(DATA, 0, 1, payload=b"x"), Frame(4))
    assert labels(ours) == ["bad_type"]


def test_an_id_that_comes_back_in_one_segment_is_another_stream() -> None:
    ours, said = greeted(OPEN, Frame(DATA, 0, 1, payload=b"old"), Frame(WINDOW, RST, 1), OPEN)
    assert [frame.payload for frame in said if frame.kind == DATA] == [b"hello"]
    assert [frame.flags for frame in said] == [ACK, 0]
    assert ours.session.unconsumed == 0


def test_an_id_that_comes_back_before_our_reset_went_out_shares_its_fate() -> None:
    """The peer could not tell which of the two the reset is for."""
    ours = Ours(client=False, eager=False)
    ours.feed(OPEN)
    ours.session.reset(1, 7)
    ours.feed(OPEN)
    assert ours.session.streams == 0
    assert ours.frames() == [Frame(WINDOW, RST, 1, 7)]
    ours.feed(OPEN)
    assert ours.session.streams == 1


def test_our_own_resets_are_no_excess_of_the_peer() -> None:
    ours = Ours(client=False)
    for n in range(2000):
        ours.feed(Frame(WINDOW, SYN, 2 * n + 1))
    ours.frames()
    for n in range(2000):
        ours.session.reset(2 * n + 1)
    ours.session.go_away()
    ours.feed(Frame(WINDOW, SYN, 9001))
    assert not ours.session.dead
    assert sum(frame.flags & RST == RST for frame in ours.frames()) == 2001


def test_a_peer_that_opens_and_does_not_read_what_became_of_it() -> None:
    ours = Ours(client=False)
    for n in range(1024 + 4096 + 1):
        for event in ours.feed(Frame(WINDOW, SYN, 2 * n + 1)):
            if isinstance(event, StreamOpened):
                ours.session.reset(event.stream_id)
    assert labels(ours) == ["too_many_streams"]


# Writes.


def test_a_frame_is_not_cut_short_by_the_room_of_a_write() -> None:
    ours = Ours(client=True)
    ours.session.write(opened(ours), bytes(100_000))
    buffers, _ = ours.session.data_to_send(0, ours.now)
    assert b"".join(buffers) == Frame(WINDOW, SYN, 1, (1 << 20) - INITIAL).encode()
    for most in (1, 2):
        buffers, _ = ours.session.data_to_send(most, ours.now)
        assert sum(map(len, buffers)) == 12 + 32 * 1024


# Peers that have gone, or say no more (2.4 rows 12, 25).


def test_a_peer_that_ended_and_takes_nothing_for_minutes_is_gone() -> None:
    ours = Ours(client=False, limits=Limits(keepalive=0, stall=60))
    ours.feed(OPEN, Frame(WINDOW, FIN, 1))
    ours.session.write(1, bytes(INITIAL + 2))
    ours.frames()
    assert ours.session.next_timer() == ours.now + 60
    ours.now += 59
    ours.feed(Frame(WINDOW, 0, 1, 1))  # it lives
    ours.frames()
    assert ours.session.next_timer() == ours.now + 60
    ours.now += 60
    ours.take(ours.session.handle_timer(ours.now))
    assert ours.events[-1] == StreamReset(1, 0)
    assert ours.frames() == [Frame(WINDOW, RST, 1)]
    # One that has not ended may take its time.
    ours.feed(Frame(WINDOW, SYN, 3))
    ours.session.write(3, bytes(INITIAL + 2))
    ours.frames()
    assert ours.session.next_timer() is None
