"""The relay's side of one ctrl stream (sheet 1.4, 3.1, 3.2, 3.6, 3.9).

Rules:

1. HELLO comes first; its agent_uri equals the certificate's URI byte for byte and its
   protocol_version is "orp/1". HELLO_ACK is the first byte sent.
2. `TRANSITIONS` holds every legal (state, frame type). A second HELLO is illegal. Every other type
   is skipped and counted once the session is READY, so that later versions may add frames.
3. HELLO_ACK and PONG are answered here; everything else is the owner's to answer with `send`.
4. No unsolicited frame overtakes the answer to a REGISTER: it is held back until all are answered.
5. Failure is final: one `SessionFailed` ends the events, and further bytes are ignored.
6. Nothing here waits. The owner calls `handle_timer` at `next_timer()` and passes `now` in seconds
   of one monotonic clock; it writes `data_to_send()` after every call.

Version bits, reserved bits and flags of the header are not checked, as the sheet says, but counted.
The session does not know what a service is, who the other agent of a stream is, or how the
connection is closed.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from wire.errors import PeerError
from wire.orp import limits
from wire.orp.errors import (
    HelloMalformed,
    HelloNotFirst,
    IdentityMismatch,
    MalformedMessage,
    SessionMisuse,
    TooManyRequests,
    UnsupportedVersion,
)
from wire.orp.events import PeerFrame, RelayEvent
from wire.orp.frame import Frame, FrameType, type_name
from wire.orp.messages import (
    PROTOCOL_VERSION,
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


class RelayState(Enum):
    """Where the session is; CLOSED is final."""

    AWAIT_HELLO = "await_hello"
    READY = "ready"
    CLOSED = "closed"


#: Every legal frame and the state it leads to. Failure and end of stream lead to CLOSED.
TRANSITIONS: Final[dict[RelayState, dict[int, RelayState]]] = {
    RelayState.AWAIT_HELLO: {FrameType.HELLO: RelayState.READY},
    RelayState.READY: {
        FrameType.REGISTER: RelayState.READY,
        FrameType.PING: RelayState.READY,
        FrameType.OBSERVED_ADDR_QUERY: RelayState.READY,
        FrameType.STREAM_CHECKPOINT: RelayState.READY,
        FrameType.CANDIDATE_OFFER: RelayState.READY,
        FrameType.CANDIDATE_ANSWER: RelayState.READY,
        FrameType.MIGRATE_TO_P2P: RelayState.READY,
    },
    RelayState.CLOSED: {},
}


class ControlSession(SessionCore[RelayState, RelayEvent]):
    """One agent's ctrl stream, from the connection's start to its end.

    Args:
        certificate_uri: the exact first URI SAN of the agent's leaf certificate.
        now: when the connection was established; the HELLO deadline counts from here.
        hello_timeout: seconds until HELLO must be complete.
    """

    TRANSITIONS = TRANSITIONS
    FIRST = RelayState.AWAIT_HELLO
    CLOSED = RelayState.CLOSED
    GREETING = FrameType.HELLO

    __slots__ = (
        "_certificate_uri",
        "_held",
        "_unanswered",
    )

    def __init__(
        self,
        certificate_uri: str,
        now: float,
        hello_timeout: float = limits.HELLO_TIMEOUT_SECONDS,
    ) -> None:
        super().__init__(now, hello_timeout)
        self._certificate_uri = certificate_uri
        self._unanswered = 0  # REGISTERs; bound MAX_UNANSWERED_REGISTERS, above: TooManyRequests
        self._held = bytearray()  # bound MAX_HELD_BYTES, above: the new frame is dropped

    @property
    def unanswered_registers(self) -> int:
        """REGISTERs reported and not answered yet."""
        return self._unanswered

    def send(
        self,
        message: RegisterAck
        | ObservedAddrResp
        | StreamReady
        | AllocGranted
        | Goaway
        | StreamCheckpoint
        | CandidateOffer
        | CandidateAnswer,
    ) -> bool:
        """Queue an answer or an unsolicited frame for the agent.

        Returns:
            False when nothing will be sent: the session is closed, or too much is held back.

        Raises:
            SessionMisuse: before HELLO, a REGISTER_ACK nobody asked for, or bytes not taken.
            EncodeError: the message does not fit the wire format.
        """
        if isinstance(message, RegisterAck):
            return self._send_register_ack(message)
        if isinstance(message, ObservedAddrResp):
            if not self._writable():
                return False
            self._put(message.encode())
            return True
        return self._send_unsolicited(message.encode())

    def forward(self, peer_frame: PeerFrame) -> bool:
        """Copy a frame of another agent's session to this agent, byte for byte.

        Returns and raises as `send`.
        """
        return self._send_unsolicited(peer_frame.frame.encode())

    # Receiving.

    def _illegal(self, frame: Frame) -> PeerError:
        if self._state is RelayState.AWAIT_HELLO:
            return HelloNotFirst(f"first frame is {type_name(frame.type)}")
        return super()._illegal(frame)

    def _on_hello(self, frame: Frame, now: float) -> Hello:
        try:
            hello = Hello.decode_payload(frame.payload)
        except MalformedMessage as error:
            raise HelloMalformed(str(error)) from error
        if hello.agent_uri != self._certificate_uri:
            raise IdentityMismatch(
                f"HELLO names {hello.agent_uri!a}, the certificate {self._certificate_uri!a}"
            )
        if hello.protocol_version != PROTOCOL_VERSION:
            raise UnsupportedVersion(f"HELLO has protocol version {hello.protocol_version!a}")
        self._put_answer(HelloAck().encode())
        return hello

    def _on_register(self, frame: Frame, now: float) -> Register:
        register = Register.decode_payload(frame.payload)
        if self._unanswered == limits.MAX_UNANSWERED_REGISTERS:
            raise TooManyRequests(f"more than {self._unanswered} REGISTERs unanswered")
        self._unanswered += 1
        return register

    def _on_ping(self, frame: Frame, now: float) -> Ping:
        self._put_answer(Pong().encode())
        return Ping.decode_payload(frame.payload)

    def _on_observed_addr_query(self, frame: Frame, now: float) -> ObservedAddrQuery:
        return ObservedAddrQuery.decode_payload(frame.payload)

    def _on_migrate_to_p2p(self, frame: Frame, now: float) -> MigrateToP2P:
        return MigrateToP2P.decode_payload(frame.payload)

    def _on_checkpoint(self, frame: Frame, now: float) -> PeerFrame:
        return PeerFrame(StreamCheckpoint.decode_payload(frame.payload), frame)

    def _on_offer(self, frame: Frame, now: float) -> PeerFrame:
        return PeerFrame(CandidateOffer.decode_payload(frame.payload), frame)

    def _on_answer(self, frame: Frame, now: float) -> PeerFrame:
        return PeerFrame(CandidateAnswer.decode_payload(frame.payload), frame)

    # Sending.

    def _send_register_ack(self, ack: RegisterAck) -> bool:
        if not self._writable():
            return False
        if self._unanswered == 0:
            raise SessionMisuse("REGISTER_ACK without a REGISTER")
        self._put(ack.encode())
        self._unanswered -= 1
        if self._unanswered == 0:
            self._put(bytes(self._held))
            self._held.clear()
        return True

    def _send_unsolicited(self, data: bytes) -> bool:
        if not self._writable():
            return False
        if self._unanswered == 0:
            self._put(data)
            return True
        if len(self._held) + len(data) > limits.MAX_HELD_BYTES:
            self._frames_dropped += 1
            return False
        self._held += data
        return True


ControlSession.ACTIONS = {
    FrameType.HELLO: ControlSession._on_hello,
    FrameType.REGISTER: ControlSession._on_register,
    FrameType.PING: ControlSession._on_ping,
    FrameType.OBSERVED_ADDR_QUERY: ControlSession._on_observed_addr_query,
    FrameType.MIGRATE_TO_P2P: ControlSession._on_migrate_to_p2p,
    FrameType.STREAM_CHECKPOINT: ControlSession._on_checkpoint,
    FrameType.CANDIDATE_OFFER: ControlSession._on_offer,
    FrameType.CANDIDATE_ANSWER: ControlSession._on_answer,
}
