"""ORP messages as typed values, and `decode` from a received frame (sheet 2.3, 2.4).

`message.encode()` gives the whole frame; `decode(frame)` the typed value. Field names and defaults
are those of orp.proto; proto3 omits defaults, so HELLO_ACK and STREAM_ACCEPT have empty payloads.
Positions count application bytes of one direction since the stream's start.

Decoding checks protobuf syntax, UTF-8, the limits of limits.py, ports (0..65535) and that required
fields are set. It does not judge contents: addresses stay text, services and streams may not exist.
Fields added by later versions are ignored. PING, PONG and GOAWAY have no message: their payload
is sent empty and ignored when received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from wire.orp import orp_pb2
from wire.orp.frame import Frame, FrameReader, FrameType
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.message_codec import Fields, FrameMessage, FrameSignal

PROTOCOL_VERSION: Final = "orp/1"
#: What TLS agrees on.
ALPN: Final = (PROTOCOL_VERSION,)

# ------------------------------------------------------------------------------- ctrl stream


@dataclass(frozen=True, slots=True)
class Hello(FrameMessage):
    """First frame on ctrl, agent to relay."""

    TYPE = FrameType.HELLO
    PROTO = orp_pb2.Hello
    agent_uri: str
    protocol_version: str = PROTOCOL_VERSION
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HelloAck(FrameMessage):
    """Answer to HELLO. Today's agents expect it empty or ignore what it holds."""

    TYPE = FrameType.HELLO_ACK
    PROTO = orp_pb2.HelloAck
    session_id: str = ""
    server_time_unix_ms: int = 0
    accepted_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Register(FrameMessage):
    """Agent offers a service; `local_addr` is informational and empty on a re-register."""

    TYPE = FrameType.REGISTER
    PROTO = orp_pb2.Register
    REQUIRED = ("service_name",)
    service_name: str
    local_addr: str = ""


@dataclass(frozen=True, slots=True)
class RegisterAck(FrameMessage):
    """Answer to REGISTER: `service_id` is ``<tenant>/<service_name>``."""

    TYPE = FrameType.REGISTER_ACK
    PROTO = orp_pb2.RegisterAck
    service_id: str


@dataclass(frozen=True, slots=True)
class Ping(FrameSignal):
    """Liveness question, agent to relay."""

    TYPE = FrameType.PING


@dataclass(frozen=True, slots=True)
class Pong(FrameSignal):
    """Answer to PING."""

    TYPE = FrameType.PONG


@dataclass(frozen=True, slots=True)
class Goaway(FrameSignal):
    """The relay is about to leave; finish or move elsewhere."""

    TYPE = FrameType.GOAWAY


@dataclass(frozen=True, slots=True)
class StreamCheckpoint(FrameMessage):
    """Positions of a live stream, copied by the relay to the other agent's ctrl.

    `ended` is an extension: the other agent's FIN arrived, too. Positions count bytes only, and a
    relay that dies may take a FIN with it behind bytes that arrived.
    """

    TYPE = FrameType.STREAM_CHECKPOINT
    PROTO = orp_pb2.StreamCheckpoint
    stream_id: int
    my_position: int = 0
    peer_ack_position: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ObservedAddrQuery(FrameMessage):
    """Agent asks for the address the relay sees it at."""

    TYPE = FrameType.OBSERVED_ADDR_QUERY
    PROTO = orp_pb2.ObservedAddrQuery
    request_id: int


@dataclass(frozen=True, slots=True)
class ObservedAddrResp(FrameMessage):
    """Answer to OBSERVED_ADDR_QUERY; IPv4 in dotted form, never mapped into IPv6."""

    TYPE = FrameType.OBSERVED_ADDR_RESP
    PROTO = orp_pb2.ObservedAddrResp
    request_id: int
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Candidate(Fields):
    """One address an agent may be reached at; not a frame of its own.

    `kind` is ``host`` or ``srflx``; candidates of higher `priority` are tried first.
    """

    PROTO = orp_pb2.Candidate
    kind: str
    ip: str
    port: int
    priority: int


@dataclass(frozen=True, slots=True)
class CandidateOffer(FrameMessage):
    """The initiator's addresses for one stream."""

    TYPE = FrameType.CANDIDATE_OFFER
    PROTO = orp_pb2.CandidateOffer
    NESTED: ClassVar[dict[str, type[Fields]]] = {"candidates": Candidate}
    stream_id: int
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateAnswer(FrameMessage):
    """The responder's addresses for one stream, possibly none."""

    TYPE = FrameType.CANDIDATE_ANSWER
    PROTO = orp_pb2.CandidateAnswer
    NESTED: ClassVar[dict[str, type[Fields]]] = {"candidates": Candidate}
    stream_id: int
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class MigrateToP2P(FrameMessage):
    """The initiator moved a stream to a direct path; agents set `stream_id` and `selected`."""

    TYPE = FrameType.MIGRATE_TO_P2P
    PROTO = orp_pb2.MigrateToP2P
    NESTED: ClassVar[dict[str, type[Fields]]] = {"selected": Candidate}
    stream_id: int
    my_position: int = 0
    peer_ack_position: int = 0
    selected: Candidate | None = None


@dataclass(frozen=True, slots=True)
class AllocGranted(FrameMessage):
    """Forward mode: both allocation ids (never 0) and the ``ip:port`` of the forward socket.

    `peer_agent_uri` as in `StreamReady`.
    """

    TYPE = FrameType.ALLOC_GRANTED
    PROTO = orp_pb2.AllocGranted
    REQUIRED = ("my_allocation", "peer_allocation", "forward_endpoint")
    stream_id: int
    my_allocation: int
    peer_allocation: int
    forward_endpoint: str
    peer_agent_uri: str = ""


@dataclass(frozen=True, slots=True)
class StreamReady(FrameMessage):
    """Splice mode: the provider accepted, application bytes flow.

    `peer_agent_uri` is an extension: the agent across, who alone may prove to be the other end of
    a direct path. A reference relay leaves it empty.
    """

    TYPE = FrameType.STREAM_READY
    PROTO = orp_pb2.StreamReady
    stream_id: int
    peer_agent_uri: str = ""


# ------------------------------------------------------- first or second frame of a data stream


@dataclass(frozen=True, slots=True)
class StreamTerms(Fields):
    """What a stream was opened for, and by whom; not a frame of its own, and an extension."""

    PROTO = orp_pb2.StreamTerms
    consumer: str
    provider: str
    target_service: str
    method: str = ""


@dataclass(frozen=True, slots=True)
class OpenStream(FrameMessage):
    """Consumer opens a stream to a service; `stream_id` 0 means it takes part in nothing else."""

    TYPE = FrameType.OPEN_STREAM
    PROTO = orp_pb2.OpenStream
    target_service: str
    method: str = ""
    stream_id: int = 0


@dataclass(frozen=True, slots=True)
class IncomingStream(FrameMessage):
    """Relay offers a stream to the provider."""

    TYPE = FrameType.INCOMING_STREAM
    PROTO = orp_pb2.IncomingStream
    target_service: str
    method: str = ""
    source_agent_uri: str = ""
    stream_id: int = 0


@dataclass(frozen=True, slots=True)
class ForwardStream(FrameMessage):
    """Relay hands a stream to the provider's relay; the reference leaves `stream_id` 0.

    The last two are an extension, for a stream that came back: what it was opened for, as far as
    the sending relay knows, or else what the source agent provides there.
    """

    TYPE = FrameType.FORWARD_STREAM
    PROTO = orp_pb2.ForwardStream
    NESTED: ClassVar[dict[str, type[Fields]]] = {"terms": StreamTerms}
    target_service: str
    method: str = ""
    source_agent_uri: str = ""
    stream_id: int = 0
    terms: StreamTerms | None = None
    provides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamAccept(FrameMessage):
    """Provider takes the stream; application bytes follow. Never sent to the consumer."""

    TYPE = FrameType.STREAM_ACCEPT
    PROTO = orp_pb2.StreamAccept


@dataclass(frozen=True, slots=True)
class StreamReject(FrameMessage):
    """The stream is refused; codes and reasons are spelled in reject.py only."""

    TYPE = FrameType.STREAM_REJECT
    PROTO = orp_pb2.StreamReject
    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StreamResume(FrameMessage):
    """Agent continues a stream on a new path; the relay's echo holds the other side's positions.

    `terms` is an extension: what the stream was opened for and who is across, so that a relay that
    never heard of it joins no stranger with the agent. Its own URI, which it proved, is left empty.
    """

    TYPE = FrameType.STREAM_RESUME
    PROTO = orp_pb2.StreamResume
    NESTED: ClassVar[dict[str, type[Fields]]] = {"terms": StreamTerms}
    stream_id: int
    my_position: int = 0
    peer_ack_position: int = 0
    terms: StreamTerms | None = None


@dataclass(frozen=True, slots=True)
class MigrateToRelay(FrameMessage):
    """Agent brings a direct stream back; `reason` is rtt_timeout, loss_threshold or peer_close."""

    TYPE = FrameType.MIGRATE_TO_RELAY
    PROTO = orp_pb2.MigrateToRelay
    stream_id: int
    my_position: int = 0
    peer_ack_position: int = 0
    reason: str = ""


# ------------------------------------------------------------------------------------ decoding


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame of a type without message: a later version's, or one the sheet lists as unused."""

    frame: Frame


Message: TypeAlias = (
    Hello
    | HelloAck
    | Register
    | RegisterAck
    | Ping
    | Pong
    | Goaway
    | StreamCheckpoint
    | ObservedAddrQuery
    | ObservedAddrResp
    | CandidateOffer
    | CandidateAnswer
    | MigrateToP2P
    | AllocGranted
    | StreamReady
    | OpenStream
    | IncomingStream
    | ForwardStream
    | StreamAccept
    | StreamReject
    | StreamResume
    | MigrateToRelay
)

_CLASSES: Final[dict[int, type[Message]]] = {
    message_class.TYPE: message_class
    for message_class in (
        Hello,
        HelloAck,
        Register,
        RegisterAck,
        Ping,
        Pong,
        Goaway,
        StreamCheckpoint,
        ObservedAddrQuery,
        ObservedAddrResp,
        CandidateOffer,
        CandidateAnswer,
        MigrateToP2P,
        AllocGranted,
        StreamReady,
        OpenStream,
        IncomingStream,
        ForwardStream,
        StreamAccept,
        StreamReject,
        StreamResume,
        MigrateToRelay,
    )
}


def decode(frame: Frame) -> Message | UnknownFrame:
    """The message in a received frame; `UnknownFrame` for a type without message.

    Raises:
        MalformedMessage: the payload is not the type's message or fails a check; peer's fault.
    """
    message_class = _CLASSES.get(frame.type)
    if message_class is None:
        return UnknownFrame(frame)
    return message_class.decode_payload(frame.payload)


#: What may come first on a stream; `UnknownFrame` when it is nothing we know.
FirstWord: TypeAlias = Message | UnknownFrame


class FirstMessageReader(FrameReader):
    """A `FrameReader` for the first message of a data stream, whose frames are small.

    Feed chunks until `next_message` gives one; what came behind it is `take_rest`'s.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_FIRST_FRAME_PAYLOAD_BYTES)

    def next_message(self) -> FirstWord | None:
        """The message, or None when more bytes are needed.

        Raises:
            FrameTooLarge: see `FrameReader.next_frame`.
            MalformedMessage: see `messages.decode`.
        """
        frame = self.next_frame()
        return None if frame is None else decode(frame)
