"""The agent's side of one ctrl stream (sheet 3.1, 3.2, 3.6, 3.9).

Rules:

1. HELLO is queued at construction; the first frame received must be HELLO_ACK.
2. REGISTERs are sent in the order given, at most MAX_UNANSWERED_REGISTERS ahead of their answers,
   which come in the same order. `SessionReady` follows the last answer of the initial list.
3. Frames are read from the first byte on, whatever is being waited for (sheet A9): a STREAM_READY
   between two REGISTER_ACKs is reported at once.
4. `TRANSITIONS` holds every legal (state, frame type). A second HELLO_ACK and a REGISTER_ACK that
   nobody waits for are illegal; every other type is skipped and counted after HELLO_ACK.
5. Failure is final: one `SessionFailed` ends the events, and further bytes are ignored. An address
   query without answer is no failure.
6. Nothing here waits. The owner calls `handle_timer` at `next_timer()` and passes `now` in seconds
   of one monotonic clock; it writes `data_to_send()` after every call.

The session does not know streams, relays to choose from, or how the connection is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final

from wire.orp import limits
from wire.orp.errors import AnswerTimeout, IllegalFrame, SessionMisuse
from wire.orp.events import (
    AgentEvent,
    ObservedAddrTimedOut,
    ServiceRegistered,
    SessionReady,
)
from wire.orp.frame import Frame, FrameType, type_name
from wire.orp.messages import (
    AllocGranted,
    CandidateAnswer,
    CandidateOffer,
    Goaway,
    Hello,
    HelloAck,
    MigrateToP2P,
    ObservedAddrQuery,
    ObservedAddrResp,
    Ping,
    Pong,
    Register,
    RegisterAck,
    StreamCheckpoint,
    StreamReady,
)
from wire.orp.session_core import SessionCore


class AgentState(Enum):
    """Where the session is; CLOSED is final."""

    AWAIT_HELLO_ACK = "await_hello_ack"
    REGISTERING = "registering"
    READY = "ready"
    CLOSED = "closed"


_ANY_TIME: Final = (
    FrameType.REGISTER_ACK,
    FrameType.OBSERVED_ADDR_RESP,
    FrameType.STREAM_READY,
    FrameType.ALLOC_GRANTED,
    FrameType.STREAM_CHECKPOINT,
    FrameType.CANDIDATE_OFFER,
    FrameType.CANDIDATE_ANSWER,
    FrameType.PONG,
    FrameType.GOAWAY,
)

#: Every legal frame and the state it leads to. The answer to the last REGISTER of the initial list
#: leads from REGISTERING to READY, failure and end of stream lead to CLOSED.
TRANSITIONS: Final[dict[AgentState, dict[int, AgentState]]] = {
    AgentState.AWAIT_HELLO_ACK: {FrameType.HELLO_ACK: AgentState.REGISTERING},
    AgentState.REGISTERING: dict.fromkeys(_ANY_TIME, AgentState.REGISTERING),
    AgentState.READY: dict.fromkeys(_ANY_TIME, AgentState.READY),
    AgentState.CLOSED: {},
}


class AgentSession(SessionCore[AgentState, AgentEvent]):
    """One agent's ctrl stream to one relay, from its opening to its end.

    Args:
        agent_uri: the exact URI of the certificate in use.
        services: REGISTERs to send once HELLO is acknowledged, in this order.
        now: when the ctrl stream was opened; the HELLO_ACK deadline counts from here.
        capabilities: for relays that negotiate; today's ignore them.

    Raises:
        EncodeError: the URI, a service or a capability does not fit the wire format.
        SessionMisuse: more than MAX_QUEUED_REGISTERS services.
    """

    TRANSITIONS = TRANSITIONS
    FIRST = AgentState.AWAIT_HELLO_ACK
    CLOSED = AgentState.CLOSED
    GREETING = FrameType.HELLO_ACK

    __slots__ = (
        "_initial",
        "_queries",
        "_register_deadline",
        "_request_id",
        "_unanswered",
        "_waiting",
    )

    def __init__(
        self,
        agent_uri: str,
        services: Iterable[Register],
        now: float,
        capabilities: tuple[str, ...] = (),
    ) -> None:
        super().__init__(now, limits.HELLO_ACK_TIMEOUT_SECONDS)
        self._put(Hello(agent_uri, capabilities=capabilities).encode())
        # REGISTERs not sent yet, with their frames. Bound MAX_QUEUED_REGISTERS: SessionMisuse.
        self._waiting: deque[tuple[Register, bytes]] = deque()
        # Sent, oldest first. Bound MAX_UNANSWERED_REGISTERS: the next one stays in _waiting.
        self._unanswered: deque[Register] = deque()
        for register in services:
            self._queue(register)
        self._initial = len(self._waiting)  # of the initial list, not answered yet
        self._register_deadline = 0.0  # for the next REGISTER_ACK
        # Request id -> deadline, oldest first. Bound MAX_UNANSWERED_QUERIES: SessionMisuse.
        self._queries: dict[int, float] = {}
        self._request_id = 0

    def register(self, register: Register, now: float) -> bool:
        """Offer another service; answered by `ServiceRegistered`. Queued until HELLO_ACK.

        Returns:
            False when the session is closed and nothing will be sent.

        Raises:
            EncodeError: the service does not fit the wire format.
            SessionMisuse: MAX_QUEUED_REGISTERS are queued already.
        """
        if self._state is AgentState.CLOSED:
            return False
        self._queue(register)
        if self._state is not AgentState.AWAIT_HELLO_ACK:
            self._send_registers(now)
        return True

    def query_observed_address(self, now: float) -> int:
        """Ask for our address as the relay sees it.

        Returns:
            The request id that `ObservedAddrResp` or `ObservedAddrTimedOut` will carry; 0 when the
            session is closed and neither will come.

        Raises:
            SessionMisuse: before HELLO_ACK, or MAX_UNANSWERED_QUERIES are unanswered.
        """
        if not self._writable():
            return 0
        if len(self._queries) == limits.MAX_UNANSWERED_QUERIES:
            raise SessionMisuse(f"{len(self._queries)} address queries unanswered")
        self._request_id += 1
        self._put(ObservedAddrQuery(self._request_id).encode())
        self._queries[self._request_id] = now + limits.OBSERVED_ADDR_TIMEOUT_SECONDS
        return self._request_id

    def send(
        self, message: Ping | StreamCheckpoint | CandidateOffer | CandidateAnswer | MigrateToP2P
    ) -> bool:
        """Queue a frame for the relay.

        Returns:
            False when the session is closed and nothing will be sent.

        Raises:
            SessionMisuse: before HELLO_ACK, or `data_to_send` was not called.
            EncodeError: the message does not fit the wire format.
        """
        if not self._writable():
            return False
        self._put(message.encode())
        return True

    # Receiving.

    def _after_frame(self, events: list[AgentEvent]) -> None:
        if self._state is AgentState.REGISTERING and self._initial == 0:
            self._state = AgentState.READY
            events.append(SessionReady())

    def _next_deadline(self) -> float | None:
        deadlines = list(self._queries.values())[:1]
        if self._unanswered:
            deadlines.append(self._register_deadline)
        if self._frame_deadline is not None:
            deadlines.append(self._frame_deadline)
        return min(deadlines, default=None)

    def _check_deadlines(self, now: float, events: list[AgentEvent]) -> None:
        for request_id in [key for key, due in self._queries.items() if now >= due]:
            del self._queries[request_id]
            events.append(ObservedAddrTimedOut(request_id))
        if self._unanswered and now >= self._register_deadline:
            raise AnswerTimeout(
                f"REGISTER {self._unanswered[0].service_name!a} not answered"
                f" within {limits.REGISTER_ACK_TIMEOUT_SECONDS:g} s"
            )
        super()._check_deadlines(now, events)

    def _on_hello_ack(self, frame: Frame, now: float) -> HelloAck:
        ack = HelloAck.decode_payload(frame.payload)
        self._send_registers(now)
        return ack

    def _on_register_ack(self, frame: Frame, now: float) -> ServiceRegistered:
        ack = RegisterAck.decode_payload(frame.payload)
        if not self._unanswered:
            raise IllegalFrame(type_name(frame.type), "no REGISTER unanswered")
        register = self._unanswered.popleft()
        self._register_deadline = now + limits.REGISTER_ACK_TIMEOUT_SECONDS
        self._initial = max(0, self._initial - 1)  # the initial list is answered first
        self._send_registers(now)
        return ServiceRegistered(register, ack.service_id)

    def _on_observed_addr_resp(self, frame: Frame, now: float) -> ObservedAddrResp | None:
        del now
        response = ObservedAddrResp.decode_payload(frame.payload)
        if self._queries.pop(response.request_id, None) is None:
            self._frames_skipped += 1  # given up, or never asked
            return None
        return response

    # Sending.

    def _queue(self, register: Register) -> None:
        if len(self._waiting) == limits.MAX_QUEUED_REGISTERS:
            raise SessionMisuse(f"{len(self._waiting)} REGISTERs queued")
        self._waiting.append((register, register.encode()))

    def _send_registers(self, now: float) -> None:
        while self._waiting and len(self._unanswered) < limits.MAX_UNANSWERED_REGISTERS:
            if not self._unanswered:
                self._register_deadline = now + limits.REGISTER_ACK_TIMEOUT_SECONDS
            register, data = self._waiting.popleft()
            self._put_answer(data)
            self._unanswered.append(register)


AgentSession.ACTIONS = {
    FrameType.HELLO_ACK: AgentSession._on_hello_ack,
    FrameType.REGISTER_ACK: AgentSession._on_register_ack,
    FrameType.OBSERVED_ADDR_RESP: AgentSession._on_observed_addr_resp,
    FrameType.STREAM_READY: lambda _, frame, _now: StreamReady.decode_payload(frame.payload),
    FrameType.ALLOC_GRANTED: lambda _, frame, _now: AllocGranted.decode_payload(frame.payload),
    FrameType.STREAM_CHECKPOINT: (
        lambda _, frame, _now: StreamCheckpoint.decode_payload(frame.payload)
    ),
    FrameType.CANDIDATE_OFFER: lambda _, frame, _now: CandidateOffer.decode_payload(frame.payload),
    FrameType.CANDIDATE_ANSWER: (
        lambda _, frame, _now: CandidateAnswer.decode_payload(frame.payload)
    ),
    FrameType.PONG: lambda _, frame, _now: Pong.decode_payload(frame.payload),
    FrameType.GOAWAY: lambda _, frame, _now: Goaway.decode_payload(frame.payload),
}
