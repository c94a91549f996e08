from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given

from tests.wire.orp.strategies import borders, cut, wild_bytes
from tests.wire.orp.vectors import AGENT, SRFLX, STREAM_ID
from wire.errors import PeerError
from wire.orp import limits
from wire.orp.close_codes import CloseCode
from wire.orp.control_session import ControlSession, RelayState
from wire.orp.errors import (
    FrameTimeout,
    FrameTooLarge,
    HelloMalformed,
    HelloNotFirst,
    HelloTimeout,
    IdentityMismatch,
    IllegalFrame,
    MalformedMessage,
    SessionMisuse,
    TooManyRequests,
    TruncatedFrame,
    UnsupportedVersion,
)
from wire.orp.events import ControlClosed, PeerFrame, RelayEvent, SessionFailed
from wire.orp.frame import Frame, FrameReader, FrameType, encode_frame
from wire.orp.messages import (
    AllocGranted,
    CandidateAnswer,
    CandidateOffer,
    Goaway,
    Hello,
    HelloAck,
    Message,
    MigrateToP2P,
    ObservedAddrQuery,
    ObservedAddrResp,
    OpenStream,
    Ping,
    Pong,
    Register,
    RegisterAck,
    StreamCheckpoint,
    StreamReady,
    UnknownFrame,
    decode,
)

HELLO = Hello(AGENT).encode()


def ready() -> ControlSession:
    """A session behind HELLO, its HELLO_ACK taken."""
    session = ControlSession(AGENT, now=0.0)
    assert session.receive(HELLO, now=0.0) == [Hello(AGENT)]
    assert session.data_to_send() == HelloAck().encode()
    return session


def sent(session: ControlSession) -> list[Message | UnknownFrame]:
    """What the agent would read now."""
    reader = FrameReader()
    reader.feed(session.data_to_send())
    messages = [decode(frame) for frame in reader]
    reader.eof()
    return messages


def failure(events: Iterable[RelayEvent]) -> PeerError:
    """The error of a list that consists of one SessionFailed."""
    (event,) = events
    assert isinstance(event, SessionFailed)
    return event.error


# HELLO.


def test_hello_is_acknowledged_with_an_empty_frame() -> None:
    session = ControlSession(AGENT, now=0.0)
    hello = Hello(AGENT, capabilities=("reject-on-ctrl",))
    assert session.receive(hello.encode(), now=0.0) == [hello]
    assert session.state is RelayState.READY
    assert session.data_to_send().hex() == "2002000000000000"
    assert session.data_to_send() == b""


@pytest.mark.parametrize(
    "uri", [AGENT + "?", AGENT.upper(), AGENT[:-1] + "3", "", AGENT.replace("-", "")]
)
def test_hello_for_another_uri_is_closed_silently(uri: str) -> None:
    session = ControlSession(AGENT, now=0.0)
    error = failure(session.receive(Hello(uri).encode(), now=0.0))
    assert isinstance(error, IdentityMismatch)
    assert (error.code, error.reason) == (0, "")
    assert session.data_to_send() == b""


@pytest.mark.parametrize("version", ["", "orp/2", "orp/1 "])
def test_hello_with_another_version_is_closed_with_a_code(version: str) -> None:
    session = ControlSession(AGENT, now=0.0)
    error = failure(session.receive(Hello(AGENT, version).encode(), now=0.0))
    assert isinstance(error, UnsupportedVersion)
    assert error.code == CloseCode.UNSUPPORTED_VERSION
    assert session.data_to_send() == b""


@pytest.mark.parametrize(
    "frame",
    [
        Ping().encode(),
        Register("svc").encode(),
        HelloAck().encode(),
        encode_frame(0x7FF),
        encode_frame(FrameType.RESOLVE),
    ],
)
def test_anything_before_hello_is_closed_silently(frame: bytes) -> None:
    session = ControlSession(AGENT, now=0.0)
    error = failure(session.receive(frame + HELLO, now=0.0))
    assert isinstance(error, HelloNotFirst)
    assert (error.code, error.reason) == (0, "")
    assert session.state is RelayState.CLOSED
    assert session.data_to_send() == b""


def test_a_malformed_hello_is_closed_silently() -> None:
    session = ControlSession(AGENT, now=0.0)
    error = failure(session.receive(encode_frame(FrameType.HELLO, b"\xff"), now=0.0))
    assert isinstance(error, HelloMalformed)
    assert (error.code, error.reason) == (0, "")


def test_an_oversized_hello_is_closed_with_a_code_before_it_is_kept() -> None:
    session = ControlSession(AGENT, now=0.0)
    error = failure(session.receive(bytes.fromhex("2001000000010001"), now=0.0))
    assert isinstance(error, FrameTooLarge)
    assert error.code == CloseCode.FRAME_TOO_LARGE
    assert session.statistics().bytes_pending == 0


def test_a_second_hello_is_illegal() -> None:
    session = ready()
    error = failure(session.receive(HELLO, now=1.0))
    assert isinstance(error, IllegalFrame)
    assert error.code == CloseCode.ILLEGAL_FRAME
    assert "HELLO is illegal in state ready" in str(error)


def test_other_header_versions_and_flags_are_accepted_and_counted() -> None:
    session = ControlSession(AGENT, now=0.0)
    payload = HELLO[8:]
    odd = Frame(FrameType.HELLO, payload, flags=0xABCD, version=2, reserved=1).encode()
    assert session.receive(odd, now=0.0) == [Hello(AGENT)]
    assert session.statistics().frames_irregular == 1


# Requests.


def test_register_is_reported_and_answered_by_the_owner() -> None:
    session = ready()
    register = Register("svc-echo", "127.0.0.1:8080")
    assert session.receive(register.encode(), now=1.0) == [register]
    assert session.unanswered_registers == 1
    assert session.data_to_send() == b""
    assert session.send(RegisterAck("acme/svc-echo"))
    assert sent(session) == [RegisterAck("acme/svc-echo")]
    assert session.unanswered_registers == 0


def test_ping_is_answered_at_once_and_reported() -> None:
    session = ready()
    assert session.receive(Ping().encode() * 2, now=1.0) == [Ping(), Ping()]
    assert sent(session) == [Pong(), Pong()]


def test_a_pipelined_ping_is_answered_after_hello_ack() -> None:
    session = ControlSession(AGENT, now=0.0)
    session.receive(HELLO + Ping().encode(), now=0.0)
    assert sent(session) == [HelloAck(), Pong()]


def test_an_address_query_is_answered_by_the_owner() -> None:
    session = ready()
    assert session.receive(ObservedAddrQuery(42).encode(), now=1.0) == [ObservedAddrQuery(42)]
    assert session.send(ObservedAddrResp(42, "203.0.113.5", 30002))
    assert sent(session) == [ObservedAddrResp(42, "203.0.113.5", 30002)]


def test_migrate_to_p2p_is_reported() -> None:
    session = ready()
    message = MigrateToP2P(STREAM_ID, selected=SRFLX)
    assert session.receive(message.encode(), now=1.0) == [message]


@pytest.mark.parametrize(
    "message",
    [
        StreamCheckpoint(STREAM_ID, 4096, 1024),
        CandidateOffer(STREAM_ID, (SRFLX,)),
        CandidateAnswer(STREAM_ID),
    ],
    ids=lambda message: message.TYPE.name,
)
def test_frames_for_the_peer_agent_are_copied_verbatim(
    message: StreamCheckpoint | CandidateOffer | CandidateAnswer,
) -> None:
    later_field = b"\xf8\x07\x01"  # field 127, unknown to us
    data = Frame(message.TYPE, message.encode()[8:] + later_field, flags=7, reserved=2).encode()
    (event,) = ready().receive(data, now=1.0)
    assert isinstance(event, PeerFrame)
    assert event.message == message
    other = ready()
    assert other.forward(event)
    assert other.data_to_send() == data


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(0x7FF, b"later version"),
        encode_frame(FrameType.POLICY_UPDATE),
        OpenStream("svc").encode(),
        HelloAck().encode(),
        StreamReady(1).encode(),
        encode_frame(FrameType.REGISTER_ACK, b"\xff"),
    ],
)
def test_other_frames_are_skipped_and_counted(frame: bytes) -> None:
    session = ready()
    assert session.receive(frame + Ping().encode(), now=1.0) == [Ping()]
    statistics = session.statistics()
    assert statistics.frames_skipped == 1
    assert statistics.frames_received == 3


@pytest.mark.parametrize(
    "frame_type",
    [
        FrameType.REGISTER,
        FrameType.OBSERVED_ADDR_QUERY,
        FrameType.STREAM_CHECKPOINT,
        FrameType.CANDIDATE_OFFER,
        FrameType.CANDIDATE_ANSWER,
        FrameType.MIGRATE_TO_P2P,
    ],
)
def test_a_malformed_frame_closes_with_a_code(frame_type: FrameType) -> None:
    session = ready()
    error = failure(session.receive(encode_frame(frame_type, b"\xff"), now=1.0))
    assert isinstance(error, MalformedMessage)
    assert error.code == CloseCode.MALFORMED_MESSAGE
    assert error.reason == "malformed message"


def test_too_many_unanswered_registers_close_with_a_code() -> None:
    session = ready()
    flood = Register("svc").encode() * limits.MAX_UNANSWERED_REGISTERS
    assert len(session.receive(flood, now=1.0)) == limits.MAX_UNANSWERED_REGISTERS
    error = failure(session.receive(Register("one-more").encode(), now=1.0))
    assert isinstance(error, TooManyRequests)
    assert error.code == CloseCode.TOO_MANY_REQUESTS


# Unsolicited frames.


def test_unsolicited_frames_are_sent_at_once() -> None:
    session = ready()
    granted = AllocGranted(STREAM_ID, 1, 2, "198.51.100.7:9443")
    for message in (StreamReady(STREAM_ID), granted, Goaway(), CandidateAnswer(STREAM_ID)):
        assert session.send(message)
        assert sent(session) == [message]


def test_no_unsolicited_frame_overtakes_a_register_ack() -> None:
    session = ready()
    session.receive(Register("a").encode() + Register("b").encode(), now=1.0)
    (checkpoint,) = ready().receive(StreamCheckpoint(9, 1, 2).encode(), now=1.0)
    assert isinstance(checkpoint, PeerFrame)
    assert session.send(StreamReady(7))
    assert session.forward(checkpoint)
    assert sent(session) == []
    session.send(RegisterAck("acme/a"))
    session.send(ObservedAddrResp(1, "192.0.2.1", 1))
    assert sent(session) == [RegisterAck("acme/a"), ObservedAddrResp(1, "192.0.2.1", 1)]
    session.send(RegisterAck("acme/b"))
    assert sent(session) == [RegisterAck("acme/b"), StreamReady(7), StreamCheckpoint(9, 1, 2)]


def test_what_is_held_back_is_bounded_and_the_excess_counted() -> None:
    session = ready()
    session.receive(Register("slow").encode(), now=1.0)
    offer = CandidateOffer(STREAM_ID, (SRFLX,) * limits.MAX_CANDIDATES)
    held = 0
    while session.send(offer):
        held += 1
    assert held == limits.MAX_HELD_BYTES // len(offer.encode())
    assert session.statistics().frames_dropped == 1
    session.send(RegisterAck("acme/slow"))
    assert sent(session) == [RegisterAck("acme/slow"), *[offer] * held]


# Misuse by the owner.


def test_nothing_may_be_sent_before_hello() -> None:
    session = ControlSession(AGENT, now=0.0)
    for message in (StreamReady(1), RegisterAck("x"), ObservedAddrResp(1, "::1", 1)):
        with pytest.raises(SessionMisuse, match="before HELLO_ACK"):
            session.send(message)


def test_a_register_ack_needs_a_register() -> None:
    with pytest.raises(SessionMisuse, match="without a REGISTER"):
        ready().send(RegisterAck("acme/x"))


def test_bytes_nobody_takes_are_bounded() -> None:
    session = ready()
    offer = CandidateOffer(STREAM_ID, (SRFLX,) * limits.MAX_CANDIDATES)
    for _ in range(limits.MAX_UNTAKEN_BYTES // len(offer.encode())):
        assert session.send(offer)
    with pytest.raises(SessionMisuse, match="data_to_send"):
        session.send(offer)


# Ends.


def test_the_end_at_a_frame_border() -> None:
    session = ready()
    assert session.receive_eof() == [ControlClosed()]
    assert session.state is RelayState.CLOSED
    assert session.receive_eof() == []


def test_the_end_inside_a_frame() -> None:
    session = ready()
    session.receive(HELLO[:10], now=1.0)
    error = failure(session.receive_eof())
    assert isinstance(error, TruncatedFrame)
    assert error.code == CloseCode.TRUNCATED_FRAME


def test_a_closed_session_stays_silent() -> None:
    session = ready()
    session.receive(Register("svc").encode() + HELLO, now=1.0)
    assert session.state is RelayState.CLOSED
    before = session.statistics().bytes_received
    assert session.receive(Ping().encode(), now=2.0) == []
    assert session.statistics().bytes_received == before + 8
    assert session.next_timer() is None
    assert session.handle_timer(1e9) == []
    for message in (RegisterAck("acme/svc"), StreamReady(1), ObservedAddrResp(1, "::1", 1)):
        assert not session.send(message)
    assert session.data_to_send() == b""


def test_events_before_a_failure_are_delivered() -> None:
    session = ready()
    events = session.receive(Ping().encode() + HELLO + Ping().encode(), now=1.0)
    assert events[0] == Ping()
    assert isinstance(failure(events[1:]), IllegalFrame)
    assert sent(session) == [Pong()]


# Time.


def test_a_silent_connection_is_closed_at_the_hello_deadline() -> None:
    session = ControlSession(AGENT, now=100.0)
    assert session.next_timer() == 100.0 + limits.HELLO_TIMEOUT_SECONDS
    session.receive(HELLO[:-1], now=105.0)
    assert session.next_timer() == 100.0 + limits.HELLO_TIMEOUT_SECONDS
    assert session.handle_timer(109.9) == []
    error = failure(session.handle_timer(110.0))
    assert isinstance(error, HelloTimeout)
    assert error.code == CloseCode.HELLO_TIMEOUT


def test_the_hello_deadline_can_be_chosen() -> None:
    session = ControlSession(AGENT, now=0.0, hello_timeout=2.5)
    assert session.next_timer() == 2.5
    assert "2.5 s" in str(failure(session.handle_timer(2.5)))


def test_an_idle_session_has_no_deadline() -> None:
    session = ready()
    assert session.next_timer() is None
    assert session.handle_timer(1e9) == []


def test_a_dribbled_frame_is_closed_at_its_deadline() -> None:
    session = ready()
    frame = Register("svc").encode()
    for index, byte in enumerate(frame[:-1]):
        assert session.receive(bytes([byte]), now=50.0 + index) == []
        assert session.next_timer() == 50.0 + limits.FRAME_TIMEOUT_SECONDS
    assert session.handle_timer(79.9) == []
    error = failure(session.handle_timer(80.0))
    assert isinstance(error, FrameTimeout)
    assert error.code == CloseCode.FRAME_TIMEOUT


def test_each_frame_has_its_own_deadline() -> None:
    session = ready()
    ping = Ping().encode()
    session.receive(ping[:3], now=50.0)
    session.receive(ping[3:] + ping[:3], now=60.0)
    assert session.next_timer() == 60.0 + limits.FRAME_TIMEOUT_SECONDS
    session.receive(ping[3:], now=70.0)
    assert session.next_timer() is None


# Hostile input.


def outcome(chunks: Iterable[bytes]) -> tuple[list[str], bytes, RelayState]:
    session = ControlSession(AGENT, now=0.0)
    events: list[RelayEvent] = []
    for chunk in chunks:
        events += session.receive(chunk, now=1.0)
        assert session.statistics().bytes_pending <= 8 + limits.MAX_CTRL_PAYLOAD_BYTES
    events += session.receive_eof()
    assert isinstance(events[-1], ControlClosed | SessionFailed)
    assert not any(isinstance(event, ControlClosed | SessionFailed) for event in events[:-1])
    texts = [
        str(event.error) if isinstance(event, SessionFailed) else repr(event) for event in events
    ]
    return texts, session.data_to_send(), session.state


@given(wild_bytes, borders)
def test_arbitrary_bytes_behind_hello_give_the_same_events_however_cut(
    data: bytes, where: list[int]
) -> None:
    data = HELLO + data
    whole = outcome([data])
    assert outcome(cut(data, where)) == whole
    assert outcome(data[i : i + 1] for i in range(len(data))) == whole


@given(wild_bytes)
def test_arbitrary_bytes_before_hello_end_the_session_or_wait(data: bytes) -> None:
    texts, answer, state = outcome([data])
    assert len(texts) == 1
    assert answer == b""
    assert state is RelayState.CLOSED


def test_statistics_count_bytes_both_ways() -> None:
    session = ready()
    session.receive(Ping().encode() + b"\x20", now=1.0)
    session.data_to_send()
    statistics = session.statistics()
    assert statistics.bytes_received == len(HELLO) + 9
    assert statistics.bytes_sent == 16
    assert statistics.bytes_pending == 1
    assert statistics.frames_received == 2
