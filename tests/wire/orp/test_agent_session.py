from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.orp.strategies import borders, cut, wild_bytes
from tests.wire.orp.vectors import AGENT, SRFLX, STREAM_ID
from wire.errors import PeerError
from wire.orp import limits
from wire.orp.agent_session import AgentSession, AgentState
from wire.orp.close_codes import CloseCode
from wire.orp.control_session import ControlSession
from wire.orp.errors import (
    AnswerTimeout,
    EncodeError,
    FrameTimeout,
    FrameTooLarge,
    HelloTimeout,
    IllegalFrame,
    MalformedMessage,
    SessionMisuse,
    TruncatedFrame,
)
from wire.orp.events import (
    AgentEvent,
    ControlClosed,
    ObservedAddrTimedOut,
    RelayEvent,
    ServiceRegistered,
    SessionFailed,
    SessionReady,
)
from wire.orp.frame import FrameReader, FrameType, encode_frame
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
    Ping,
    Pong,
    Register,
    RegisterAck,
    StreamCheckpoint,
    StreamReady,
    UnknownFrame,
    decode,
)

HELLO_ACK = HelloAck().encode()
WEB = Register("web", "127.0.0.1:80")
SSH = Register("ssh", "127.0.0.1:22")


def ready() -> AgentSession:
    """A session that offers nothing, behind HELLO_ACK."""
    session = AgentSession(AGENT, [], now=0.0)
    assert session.data_to_send() == Hello(AGENT).encode()
    assert session.receive(HELLO_ACK, now=0.0) == [HelloAck(), SessionReady()]
    return session


def sent(session: AgentSession) -> list[Message | UnknownFrame]:
    """What the relay would read now."""
    reader = FrameReader()
    reader.feed(session.data_to_send())
    messages = [decode(frame) for frame in reader]
    reader.eof()
    return messages


def failure(events: Iterable[AgentEvent]) -> PeerError:
    """The error of a list that consists of one SessionFailed."""
    (event,) = events
    assert isinstance(event, SessionFailed)
    return event.error


# HELLO and REGISTER.


def test_hello_is_the_only_thing_sent_before_its_answer() -> None:
    session = AgentSession(AGENT, [WEB, SSH], now=0.0, capabilities=("reject-on-ctrl",))
    assert sent(session) == [Hello(AGENT, capabilities=("reject-on-ctrl",))]
    assert sent(session) == []


def test_services_are_registered_in_order() -> None:
    session = AgentSession(AGENT, [WEB, SSH], now=0.0)
    session.data_to_send()
    assert session.receive(HELLO_ACK, now=1.0) == [HelloAck()]
    assert sent(session) == [WEB, SSH]
    assert session.receive(RegisterAck("acme/web").encode(), now=1.0) == [
        ServiceRegistered(WEB, "acme/web")
    ]
    assert session.receive(RegisterAck("acme/ssh").encode(), now=1.0) == [
        ServiceRegistered(SSH, "acme/ssh"),
        SessionReady(),
    ]
    assert session.state is AgentState.READY


def test_an_agent_without_services_is_ready_at_hello_ack() -> None:
    assert ready().state is AgentState.READY


def test_a_filled_hello_ack_is_taken() -> None:
    session = AgentSession(AGENT, [], now=0.0)
    ack = HelloAck("session", 1, ("feature",))
    assert session.receive(ack.encode(), now=0.0) == [ack, SessionReady()]


def test_registers_in_flight_are_bounded() -> None:
    services = [Register(f"service-{index}") for index in range(100)]
    session = AgentSession(AGENT, services, now=0.0)
    session.data_to_send()
    session.receive(HELLO_ACK, now=0.0)
    assert sent(session) == services[: limits.MAX_UNANSWERED_REGISTERS]
    session.receive(RegisterAck("acme/service-0").encode() * 2, now=0.0)
    begin = limits.MAX_UNANSWERED_REGISTERS
    assert sent(session) == services[begin : begin + 2]
    events = session.receive(RegisterAck("any").encode() * 98, now=0.0)
    assert sent(session) == services[begin + 2 :]
    assert events[-1] == SessionReady()
    assert [event.register for event in events if isinstance(event, ServiceRegistered)] == (
        services[2:]
    )


def test_a_service_can_be_added_later() -> None:
    session = ready()
    assert session.register(SSH, now=5.0)
    assert sent(session) == [SSH]
    assert session.receive(RegisterAck("acme/ssh").encode(), now=5.0) == [
        ServiceRegistered(SSH, "acme/ssh")
    ]


def test_a_service_added_before_hello_ack_follows_the_initial_list() -> None:
    session = AgentSession(AGENT, [WEB], now=0.0)
    session.data_to_send()
    assert session.register(SSH, now=0.0)
    assert sent(session) == []
    session.receive(HELLO_ACK, now=0.0)
    assert sent(session) == [WEB, SSH]
    assert session.receive(RegisterAck("w").encode() + RegisterAck("s").encode(), now=0.0) == [
        ServiceRegistered(WEB, "w"),
        SessionReady(),
        ServiceRegistered(SSH, "s"),
    ]


def test_a_service_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(EncodeError, match="service_name"):
        AgentSession(AGENT, [Register("x" * 256)], now=0.0)
    with pytest.raises(EncodeError, match="service_name"):
        ready().register(Register(""), now=0.0)


def test_the_service_list_is_bounded() -> None:
    services = [WEB] * limits.MAX_QUEUED_REGISTERS
    session = AgentSession(AGENT, services, now=0.0)
    with pytest.raises(SessionMisuse, match="REGISTERs queued"):
        session.register(SSH, now=0.0)


@pytest.mark.parametrize(
    "frame", [RegisterAck("x").encode(), Pong().encode(), encode_frame(0x7FF), Goaway().encode()]
)
def test_anything_but_hello_ack_fails_the_endpoint(frame: bytes) -> None:
    session = AgentSession(AGENT, [WEB], now=0.0)
    error = failure(session.receive(frame, now=0.0))
    assert isinstance(error, IllegalFrame)
    assert error.code == CloseCode.ILLEGAL_FRAME
    assert session.state is AgentState.CLOSED


def test_a_second_hello_ack_is_illegal() -> None:
    assert isinstance(failure(ready().receive(HELLO_ACK, now=0.0)), IllegalFrame)


def test_a_register_ack_nobody_waits_for_is_illegal() -> None:
    error = failure(ready().receive(RegisterAck("acme/web").encode(), now=0.0))
    assert isinstance(error, IllegalFrame)
    assert "REGISTER_ACK" in str(error)


# Signals from the relay.

SIGNALS: list[Message] = [
    StreamReady(STREAM_ID),
    AllocGranted(STREAM_ID, 1, 2, "198.51.100.7:9443"),
    StreamCheckpoint(STREAM_ID, 4096, 1024),
    CandidateOffer(STREAM_ID, (SRFLX,)),
    CandidateAnswer(STREAM_ID),
    Pong(),
    Goaway(),
]


@pytest.mark.parametrize("message", SIGNALS, ids=lambda message: message.TYPE.name)
def test_signals_are_reported_at_any_time_after_hello_ack(message: Message) -> None:
    session = AgentSession(AGENT, [WEB], now=0.0)
    session.receive(HELLO_ACK, now=0.0)
    assert session.receive(message.encode(), now=0.0) == [message]
    session.receive(RegisterAck("acme/web").encode(), now=0.0)
    assert session.receive(message.encode(), now=0.0) == [message]
    assert session.state is AgentState.READY


def test_a_signal_between_two_register_acks_is_not_lost() -> None:
    session = AgentSession(AGENT, [WEB, SSH], now=0.0)
    data = [HelloAck(), RegisterAck("w"), StreamReady(7), RegisterAck("s")]
    assert session.receive(b"".join(message.encode() for message in data), now=0.0) == [
        HelloAck(),
        ServiceRegistered(WEB, "w"),
        StreamReady(7),
        ServiceRegistered(SSH, "s"),
        SessionReady(),
    ]


@pytest.mark.parametrize(
    "frame",
    [encode_frame(0x7FF), encode_frame(FrameType.POLICY_UPDATE), Hello(AGENT).encode()],
)
def test_other_frames_are_skipped_and_counted(frame: bytes) -> None:
    session = ready()
    assert session.receive(frame + Pong().encode(), now=0.0) == [Pong()]
    assert session.statistics().frames_skipped == 1


@pytest.mark.parametrize(
    "frame_type",
    [
        FrameType.REGISTER_ACK,
        FrameType.OBSERVED_ADDR_RESP,
        FrameType.STREAM_READY,
        FrameType.ALLOC_GRANTED,
        FrameType.STREAM_CHECKPOINT,
        FrameType.CANDIDATE_OFFER,
        FrameType.CANDIDATE_ANSWER,
    ],
)
def test_a_malformed_frame_fails_the_session(frame_type: FrameType) -> None:
    error = failure(ready().receive(encode_frame(frame_type, b"\xff"), now=0.0))
    assert isinstance(error, MalformedMessage)


def test_an_oversized_frame_fails_the_session() -> None:
    error = failure(ready().receive(bytes.fromhex("2152000000010001"), now=0.0))
    assert isinstance(error, FrameTooLarge)


# Requests of ours.


@pytest.mark.parametrize(
    "message",
    [
        Ping(),
        StreamCheckpoint(STREAM_ID, 1, 2),
        CandidateOffer(STREAM_ID, (SRFLX,)),
        CandidateAnswer(STREAM_ID),
        MigrateToP2P(STREAM_ID, selected=SRFLX),
    ],
    ids=lambda message: message.TYPE.name,
)
def test_frames_of_ours_are_sent(
    message: Ping | StreamCheckpoint | CandidateOffer | CandidateAnswer | MigrateToP2P,
) -> None:
    session = ready()
    assert session.send(message)
    assert sent(session) == [message]


def test_an_address_query_is_matched_by_its_id() -> None:
    session = ready()
    first, second = (session.query_observed_address(now=1.0) for _ in range(2))
    assert first != second
    assert sent(session) == [ObservedAddrQuery(first), ObservedAddrQuery(second)]
    answer = ObservedAddrResp(second, "203.0.113.5", 30002)
    assert session.receive(answer.encode(), now=1.0) == [answer]
    assert session.receive(answer.encode(), now=1.0) == []
    assert session.statistics().frames_skipped == 1


def test_an_unanswered_address_query_is_given_up_and_nothing_else_lost() -> None:
    session = ready()
    request_id = session.query_observed_address(now=1.0)
    deadline = 1.0 + limits.OBSERVED_ADDR_TIMEOUT_SECONDS
    assert session.next_timer() == deadline
    assert session.handle_timer(deadline - 0.1) == []
    assert session.handle_timer(deadline) == [ObservedAddrTimedOut(request_id)]
    assert session.next_timer() is None
    late = ObservedAddrResp(request_id, "192.0.2.1", 1).encode()
    assert session.receive(late + StreamReady(7).encode(), now=deadline) == [StreamReady(7)]


def test_address_queries_are_bounded() -> None:
    session = ready()
    for _ in range(limits.MAX_UNANSWERED_QUERIES):
        session.query_observed_address(now=0.0)
    with pytest.raises(SessionMisuse, match="address queries"):
        session.query_observed_address(now=0.0)


def test_nothing_else_may_be_sent_before_hello_ack() -> None:
    session = AgentSession(AGENT, [], now=0.0)
    with pytest.raises(SessionMisuse, match="before HELLO_ACK"):
        session.send(Ping())
    with pytest.raises(SessionMisuse, match="before HELLO_ACK"):
        session.query_observed_address(now=0.0)


# Ends.


def test_the_end_at_a_frame_border() -> None:
    session = ready()
    assert session.receive_eof() == [ControlClosed()]
    assert session.receive_eof() == []


def test_the_end_inside_a_frame() -> None:
    session = ready()
    session.receive(Pong().encode()[:3], now=0.0)
    assert isinstance(failure(session.receive_eof()), TruncatedFrame)


def test_a_closed_session_stays_silent() -> None:
    session = ready()
    session.receive(HELLO_ACK, now=0.0)
    assert session.state is AgentState.CLOSED
    assert session.receive(StreamReady(1).encode(), now=0.0) == []
    assert session.next_timer() is None
    assert session.handle_timer(1e9) == []
    assert not session.send(Ping())
    assert not session.register(WEB, now=0.0)
    assert session.query_observed_address(now=0.0) == 0
    assert session.data_to_send() == b""


# Time.


def test_a_missing_hello_ack_fails_the_endpoint() -> None:
    session = AgentSession(AGENT, [WEB], now=100.0)
    assert session.next_timer() == 100.0 + limits.HELLO_ACK_TIMEOUT_SECONDS
    assert session.handle_timer(109.9) == []
    error = failure(session.handle_timer(110.0))
    assert isinstance(error, HelloTimeout)
    assert error.code == CloseCode.HELLO_TIMEOUT


def test_a_missing_register_ack_fails_the_session() -> None:
    session = AgentSession(AGENT, [WEB, SSH], now=0.0)
    session.receive(HELLO_ACK, now=5.0)
    assert session.next_timer() == 5.0 + limits.REGISTER_ACK_TIMEOUT_SECONDS
    session.receive(RegisterAck("acme/web").encode(), now=15.0)
    deadline = 15.0 + limits.REGISTER_ACK_TIMEOUT_SECONDS
    assert session.next_timer() == deadline
    error = failure(session.handle_timer(deadline))
    assert isinstance(error, AnswerTimeout)
    assert "'ssh'" in str(error)


def test_the_earliest_deadline_counts() -> None:
    session = AgentSession(AGENT, [WEB], now=0.0)
    session.receive(HELLO_ACK + Pong().encode()[:4], now=0.0)
    request_id = session.query_observed_address(now=0.0)
    assert session.next_timer() == limits.OBSERVED_ADDR_TIMEOUT_SECONDS
    events = session.handle_timer(limits.FRAME_TIMEOUT_SECONDS)
    assert events[0] == ObservedAddrTimedOut(request_id)
    assert isinstance(failure(events[1:]), AnswerTimeout)


def test_a_dribbled_frame_fails_the_session() -> None:
    session = ready()
    session.receive(StreamReady(7).encode()[:-1], now=50.0)
    assert session.next_timer() == 50.0 + limits.FRAME_TIMEOUT_SECONDS
    assert session.handle_timer(60.0) == []
    assert isinstance(failure(session.handle_timer(80.0)), FrameTimeout)


# Hostile input and the other side.


def outcome(chunks: Iterable[bytes]) -> tuple[list[str], bytes, AgentState]:
    session = AgentSession(AGENT, [WEB, SSH], now=0.0)
    events: list[AgentEvent] = []
    for chunk in chunks:
        events += session.receive(chunk, now=1.0)
    events += session.receive_eof()
    assert isinstance(events[-1], ControlClosed | SessionFailed)
    assert not any(isinstance(event, ControlClosed | SessionFailed) for event in events[:-1])
    texts = [
        str(event.error) if isinstance(event, SessionFailed) else repr(event) for event in events
    ]
    return texts, session.data_to_send(), session.state


@given(st.booleans(), wild_bytes, borders)
def test_arbitrary_bytes_give_the_same_events_however_cut(
    greeted: bool, data: bytes, where: list[int]
) -> None:
    data = (HELLO_ACK if greeted else b"") + data
    whole = outcome([data])
    assert outcome(cut(data, where)) == whole
    assert outcome(data[i : i + 1] for i in range(len(data))) == whole


@given(borders, st.integers(0, 100))
def test_both_sides_understand_each_other_however_the_bytes_are_cut(
    where: list[int], services: int
) -> None:
    registers = [Register(f"service-{index}") for index in range(services)]
    agent = AgentSession(AGENT, registers, now=0.0)
    relay = ControlSession(AGENT, now=0.0)
    at_relay: list[RelayEvent] = []
    at_agent: list[AgentEvent] = []
    queried = False
    while up := agent.data_to_send():
        for chunk in cut(up, where):
            for event in relay.receive(chunk, now=0.0):
                at_relay.append(event)
                if isinstance(event, Register):
                    relay.send(RegisterAck(f"acme/{event.service_name}"))
                elif isinstance(event, ObservedAddrQuery):
                    relay.send(ObservedAddrResp(event.request_id, "203.0.113.5", 1))
        for chunk in cut(relay.data_to_send(), where):
            at_agent += agent.receive(chunk, now=0.0)
        if agent.state is AgentState.READY and not queried:
            queried = True
            agent.query_observed_address(now=0.0)
    assert at_relay == [Hello(AGENT), *registers, ObservedAddrQuery(1)]
    assert at_agent == [
        HelloAck(),
        *[ServiceRegistered(each, f"acme/{each.service_name}") for each in registers],
        SessionReady(),
        ObservedAddrResp(1, "203.0.113.5", 1),
    ]
    assert agent.next_timer() is None
    assert relay.next_timer() is None
