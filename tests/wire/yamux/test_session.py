"""Streams, credit and ends of a yamux session, against a peer written from the sheet (2.9)."""

from __future__ import annotations

import pytest

from tests.wire.yamux.peer import ACK, DATA, FIN, INITIAL, RST, SYN, WINDOW, Frame, Peer
from tests.wire.yamux.rig import Ours, exchange
from wire.yamux.errors import SessionMisuse
from wire.yamux.events import (
    DataReceived,
    FinReceived,
    Openable,
    SessionDead,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from wire.yamux.limits import Limits

SMALL = Limits(window=INITIAL)


def bytes_of(size: int, seed: int = 1) -> bytes:
    """Bytes in which a shift or a swap shows."""
    return bytes((seed * 7 + i * i + (i >> 8)) & 0xFF for i in range(min(size, 65_536))) * (
        -(-size // 65_536) or 1
    )


def labels(ours: Ours) -> list[str]:
    """Why the session died, by our judgement."""
    return [e.error.label for e in ours.events if isinstance(e, SessionDead) and e.error]


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("cut", [0, 1, 12, 13, 1000])
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_stream_of_ours_is_echoed(client: bool, cut: int, size: int) -> None:
    ours, peer = Ours(client=client), Peer(client=not client)
    data = bytes_of(size)[:size]
    stream_id = ours.session.open()
    assert stream_id == (1 if client else 2)
    ours.session.write(stream_id, data)
    ours.session.finish(stream_id)
    exchange(ours, peer, cut=cut)
    theirs = peer.streams[stream_id]
    assert bytes(theirs.read) == data
    assert theirs.fin_received
    peer.write(stream_id, bytes(theirs.read))
    peer.finish(stream_id)
    exchange(ours, peer, cut=cut)
    assert bytes(ours.received.get(stream_id, b"")) == data
    assert ours.ended() == {stream_id}
    assert StreamFinished(stream_id) in ours.events
    assert ours.session.streams == 0


@pytest.mark.parametrize("window", [INITIAL, 1 << 20, 6 << 20])
def test_64_mebibytes_of_a_peer_with_any_window(window: int) -> None:
    ours, peer = Ours(client=False), Peer(client=True, window=window)
    data = bytes_of(65_536) * (8 << 4)  # 8 MiB
    stream_id = peer.open(data, fin=True)
    exchange(ours, peer)
    assert bytes(ours.received[stream_id]) == data
    ours.session.write(stream_id, data)
    ours.session.finish(stream_id)
    exchange(ours, peer, most=100_000)
    assert bytes(peer.streams[stream_id].read) == data
    assert ours.session.streams == 0


def test_syn_and_fin_on_data_frames() -> None:
    ours = Ours(client=False)
    ours.feed(Frame(DATA, SYN | FIN, 1, payload=b"all of it"))
    assert ours.events == [StreamOpened(1), DataReceived(1, b"all of it"), FinReceived(1)]
    answer = ours.frames()[0]
    assert (answer.kind, answer.flags & ACK, answer.stream_id) == (WINDOW, ACK, 1)


def test_a_larger_window_is_announced_with_syn_and_ack() -> None:
    ours = Ours(client=True, limits=Limits(window=1 << 20))
    ours.session.open()
    ours.feed(Frame(WINDOW, SYN, 2))
    assert ours.frames() == [
        Frame(WINDOW, SYN, 1, (1 << 20) - INITIAL),
        Frame(WINDOW, ACK, 2, (1 << 20) - INITIAL),
    ]
    small = Ours(client=True, limits=SMALL)
    small.session.open()
    assert small.frames() == [Frame(WINDOW, SYN, 1, 0)]
    with pytest.raises(SessionMisuse):
        Ours(client=True, limits=Limits(window=INITIAL - 1))


def test_credit_follows_what_the_application_consumed() -> None:
    ours = Ours(client=False, limits=SMALL, eager=False)
    ours.feed(Frame(WINDOW, SYN, 1), Frame(DATA, 0, 1, payload=bytes(INITIAL)))
    ours.session.accept(1)
    assert ours.frames() == [Frame(WINDOW, ACK, 1, 0)]
    ours.session.consume(1, INITIAL // 2 - 1)
    assert ours.frames() == []
    ours.session.consume(1, 1)
    assert ours.frames() == [Frame(WINDOW, 0, 1, INITIAL // 2)]
    # The peer may send that much again, and not one byte more.
    ours.feed(Frame(DATA, 0, 1, payload=bytes(INITIAL // 2)))
    assert not ours.session.dead
    ours.feed(Frame(DATA, 0, 1, payload=b"x"))
    assert labels(ours) == ["window_exceeded"]
    assert ours.frames() == [Frame(3, 0, 0, 1)]


@pytest.mark.parametrize("size, dies", [(INITIAL, False), (INITIAL + 1, True)])
def test_a_frame_as_large_as_the_window(size: int, dies: bool) -> None:
    ours = Ours(client=False, limits=SMALL, eager=False)
    ours.feed(Frame(WINDOW, SYN, 1), Frame(DATA, 0, 1, payload=bytes(size)))
    assert ours.session.dead == dies
    large = Ours(client=False, eager=False)
    large.feed(Frame(WINDOW, SYN, 1))
    large.session.accept(1)
    large.frames()
    large.feed(Frame(DATA, 0, 1, payload=bytes(1 << 20)))
    assert not large.session.dead


def test_payload_is_not_waited_for() -> None:
    ours = Ours(client=False)
    whole = Frame(DATA, SYN | FIN, 1, payload=b"abcdef").encode()
    ours.feed(whole[:14])
    assert ours.events == [StreamOpened(1), DataReceived(1, b"ab")]
    ours.feed(whole[14:17])
    assert ours.events[-1] == DataReceived(1, b"cde")
    ours.feed(whole[17:])
    assert ours.events[-2:] == [DataReceived(1, b"f"), FinReceived(1)]


def test_our_frames_respect_the_credit_and_take_turns() -> None:
    ours = Ours(client=True, limits=Limits(max_frame=1000))
    ids = [ours.session.open() for _ in range(3)]
    for stream_id in ids:
        assert stream_id is not None
        ours.session.write(stream_id, bytes(INITIAL + 500))
    frames = [frame for frame in ours.frames() if frame.kind == DATA]
    assert [frame.stream_id for frame in frames[:6]] == [1, 3, 5, 1, 3, 5]
    assert max(frame.length for frame in frames) == 1000
    for stream_id in ids:
        sent = sum(frame.length for frame in frames if frame.stream_id == stream_id)
        assert sent == INITIAL
    ours.feed(Frame(WINDOW, 0, 3, 200))
    assert [(frame.stream_id, frame.length) for frame in ours.frames()] == [(3, 200)]
    assert ours.session.backlog(3) == 300


def test_an_empty_write_and_a_fin_need_no_credit() -> None:
    ours = Ours(client=True)
    stream_id = ours.session.open()
    assert stream_id is not None
    ours.session.write(stream_id, bytes(INITIAL))
    ours.frames()
    ours.feed(Frame(WINDOW, ACK, stream_id))
    ours.session.write(stream_id, b"")
    ours.session.finish(stream_id)
    assert ours.frames() == [Frame(WINDOW, FIN, stream_id, 0)]
    with pytest.raises(SessionMisuse):
        ours.session.write(stream_id, b"more")


@pytest.mark.parametrize("first", ["peer", "we", "both"])
def test_either_side_ends_first(first: str) -> None:
    ours, peer = Ours(client=False), Peer(client=True)
    stream_id = peer.open(b"question")
    exchange(ours, peer)
    if first != "we":
        peer.finish(stream_id)
    if first == "peer":
        exchange(ours, peer)
    ours.session.write(stream_id, b"answer")
    ours.session.finish(stream_id)
    exchange(ours, peer)
    if first == "we":
        assert not ours.ended()
        peer.write(stream_id, b" and more")
        peer.finish(stream_id)
        exchange(ours, peer)
    assert bytes(peer.streams[stream_id].read) == b"answer"
    assert bytes(ours.received[stream_id]).startswith(b"question")
    assert ours.ended() == {stream_id}
    assert StreamFinished(stream_id) in ours.events


def test_finished_means_that_the_peer_has_read_everything() -> None:
    ours = Ours(client=False)
    ours.feed(Frame(WINDOW, SYN | FIN, 1))
    ours.session.write(1, b"answer")
    ours.session.finish(1)
    ping = ours.frames()[-1]
    assert (ping.kind, ping.flags) == (2, SYN)
    assert StreamFinished(1) not in ours.events
    ours.feed(Frame(2, ACK, 0, ping.length + 1))  # somebody else's pong
    assert StreamFinished(1) not in ours.events
    ours.feed(Frame(2, ACK, 0, ping.length))
    assert StreamFinished(1) in ours.events


@pytest.mark.parametrize("when", ["before the answer", "after it", "with data on the way"])
def test_a_peer_resets(when: str) -> None:
    ours = Ours(client=True)
    stream_id = ours.session.open()
    assert stream_id is not None
    if when != "with data on the way":
        ours.frames()
    ours.session.write(stream_id, b"lost")
    if when != "before the answer":
        ours.feed(Frame(WINDOW, ACK, stream_id))
    ours.feed(Frame(WINDOW, RST, stream_id))
    assert ours.events[-1] == StreamReset(stream_id, 0)
    assert ours.session.streams == 0
    assert all(frame.kind != DATA for frame in ours.frames())
    # What was on the way when it reset is drained, and costs nothing.
    ours.feed(Frame(DATA, 0, stream_id, payload=bytes(INITIAL)), Frame(WINDOW, FIN, stream_id))
    assert not ours.session.dead
    assert ours.session.unknown_frames == 2


def test_a_reset_of_ours_carries_a_code_where_nobody_looks() -> None:
    ours, other = Ours(client=True), Ours(client=False)
    stream_id = ours.session.open()
    assert stream_id is not None
    other.feed(ours.output())
    ours.session.reset(stream_id, 11)
    assert ours.session.streams == 0
    frames = ours.frames()
    assert frames == [Frame(WINDOW, RST, stream_id, 11)]
    other.feed(frames[0])
    assert other.events[-1] == StreamReset(stream_id, 11)


def test_a_stream_reset_before_its_syn_was_sent_never_existed() -> None:
    ours = Ours(client=True)
    stream_id = ours.session.open()
    assert stream_id is not None
    ours.session.reset(stream_id)
    assert ours.frames() == []


def test_a_fin_before_the_accept_answers_without_ack() -> None:
    """Such peers never send ACK (2.4 row 8); any frame of the stream is one."""
    ours, peer = Ours(client=True), Peer(client=False)
    peer.accepting = False
    ids = [ours.session.open() for _ in range(256)]
    assert None not in ids
    assert ours.session.open() is None
    first = ids[0]
    assert first is not None
    ours.session.finish(first)
    exchange(ours, peer)
    peer.accept()
    peer.write(first, b"no ACK ever")
    exchange(ours, peer)
    assert Openable() in ours.events
    assert ours.session.open() is not None


def test_300_opens_without_answer() -> None:
    ours, peer = Ours(client=True), Peer(client=False)
    peer.accepting = False
    opened = [ours.session.open() for _ in range(300)]
    assert opened.count(None) == 44
    exchange(ours, peer)
    for _ in range(44):
        peer.accept()
    exchange(ours, peer)
    assert ours.events.count(Openable()) == 1
    assert None not in [ours.session.open() for _ in range(44)]
    assert ours.session.open() is None
    # A stream nobody waits for any more makes room, too.
    assert opened[299 - 44] is not None
    ours.session.reset(opened[255] or 0)
    ours.output()
    assert ours.events.count(Openable()) == 2


def test_the_257th_stream_nobody_accepts_is_reset() -> None:
    ours, peer = Ours(client=False, eager=False), Peer(client=True)
    for _ in range(257):
        peer.open()
    exchange(ours, peer)
    assert [i for i, stream in peer.streams.items() if stream.was_reset] == [513]
    assert not ours.session.dead


def test_the_window_of_a_peer_is_never_computed_by_us() -> None:
    """Old peers grant credit that ignores what they have not read (2.4 row 23)."""
    ours = Ours(client=True, limits=SMALL)
    stream_id = ours.session.open()
    assert stream_id is not None
    ours.session.write(stream_id, bytes(INITIAL + 3))
    ours.output()
    ours.feed(Frame(WINDOW, ACK, stream_id, 3))
    assert [(frame.kind, frame.length) for frame in ours.frames()] == [(DATA, 3)]


def test_a_peer_that_drops_what_comes_after_its_fin() -> None:
    ours = Ours(client=False)
    peer = Peer(client=True, ignores_after_fin=True)
    stream_id = peer.open(b"question", fin=True)
    exchange(ours, peer)
    ours.session.write(stream_id, b"never read")
    ours.session.finish(stream_id)
    exchange(ours, peer)
    assert bytes(peer.streams[stream_id].read) == b""
    assert ours.session.streams == 0


def test_what_nobody_wants_is_dropped_with_credit_and_then_reset() -> None:
    ours = Ours(client=False, limits=SMALL, eager=False)
    ours.feed(Frame(WINDOW, SYN, 1), Frame(DATA, 0, 1, payload=bytes(INITIAL)))
    ours.session.accept(1)
    ours.frames()
    ours.session.discard(1, ours.now)
    assert ours.frames() == [Frame(WINDOW, 0, 1, INITIAL)]
    ours.feed(Frame(DATA, 0, 1, payload=bytes(INITIAL)))
    assert not [e for e in ours.events[2:] if isinstance(e, DataReceived)]
    ours.session.write(1, b"last words")
    ours.session.finish(1)
    ours.frames()
    ours.now += 6
    ours.take(ours.session.handle_timer(ours.now))
    assert ours.frames() == [Frame(WINDOW, RST, 1, 0)]
    assert StreamFinished(1) in ours.events
    assert ours.session.streams == 0


def test_sixteen_streams_written_by_both_before_anybody_reads() -> None:
    ours = Ours(client=False, limits=SMALL, eager=False)
    peer = Peer(client=True, reading=False)
    data = bytes_of(65_536) * 32  # 2 MiB each
    ids = [peer.open(data, fin=True) for _ in range(16)]
    exchange(ours, peer)
    for stream_id in ids:
        ours.session.accept(stream_id)
        ours.session.write(stream_id, data)
        ours.session.finish(stream_id)
    exchange(ours, peer)
    held = {i: len(ours.received[i]) for i in ids}
    assert set(held.values()) == {INITIAL}  # bounded by the window
    for _ in range(40):
        peer.read_all()
        for stream_id in ids:
            fresh = len(ours.received[stream_id]) - held[stream_id] + INITIAL
            ours.session.consume(stream_id, min(fresh, INITIAL))
            held[stream_id] = len(ours.received[stream_id])
        exchange(ours, peer)
        if all(len(ours.received[i]) == len(data) for i in ids):
            break
    for _ in range(40):
        peer.read_all()
        exchange(ours, peer)
    for stream_id in ids:
        assert bytes(ours.received[stream_id]) == data
        assert bytes(peer.streams[stream_id].read) == data


def test_a_stalled_stream_among_a_hundred() -> None:
    ours, peer = Ours(client=False), Peer(client=True)
    ids = [peer.open() for _ in range(100)]
    exchange(ours, peer)
    peer.reading = False
    ours.session.write(ids[0], bytes(1 << 20))
    exchange(ours, peer)
    assert ours.session.backlog(ids[0]) == (1 << 20) - INITIAL
    peer.reading = True
    for stream_id in ids[1:]:
        ours.session.write(stream_id, bytes(300_000))
    exchange(ours, peer)
    assert {len(peer.streams[i].read) for i in ids[1:]} == {300_000}


def test_the_last_stream_id() -> None:
    ours = Ours(client=True, next_id=0xFFFF_FFFD)
    assert ours.session.open() == 0xFFFF_FFFD
    assert ours.session.open() is None
    assert ours.session.streams == 1


def test_a_client_at_both_ends() -> None:
    """As in networks whose forwarder is a client that only accepts (sheet 1.6)."""
    ours, peer = Ours(client=True), Peer(client=True)
    theirs = peer.open(b"from the peer")
    exchange(ours, peer)
    assert theirs == 1
    assert bytes(ours.received[1]) == b"from the peer"
    mine = ours.session.open()
    assert mine == 3  # 1 is taken
    ours.session.write(mine, b"from us")
    exchange(ours, peer)
    assert bytes(peer.streams[3].read) == b"from us"
    even = Ours(client=False)
    even.feed(Frame(WINDOW, SYN, 2), Frame(DATA, 0, 2, payload=b"even"))
    assert bytes(even.received[2]) == b"even"


def test_a_reset_long_after_our_end() -> None:
    """Peers give up a half-closed stream after five minutes (2.4 row 13)."""
    ours = Ours(client=False)
    ours.feed(Frame(WINDOW, SYN, 1))
    ours.session.finish(1)
    ours.frames()
    ours.now += 300
    ours.feed(Frame(WINDOW, RST, 1))
    assert ours.events[-1] == StreamReset(1, 0)
    assert ours.session.streams == 0


def test_a_stream_nobody_acknowledges_for_minutes_costs_no_session() -> None:
    """Their opener closes the session after 75 s, ours never does (2.4 rows 7 to 9)."""
    ours = Ours(client=True)
    stream_id = ours.session.open()
    assert stream_id is not None
    ours.frames()
    for _ in range(20):
        ours.now += 9
        ours.take(ours.session.handle_timer(ours.now))
        for frame in ours.frames():
            ours.feed(Frame(2, ACK, 0, frame.length))
    assert not ours.session.dead
    ours.feed(Frame(WINDOW, ACK, stream_id))
    assert ours.session.streams == 1
