"""What the two ctrl-stream sessions report to their owners.

Where a received message says everything, the message itself is the event; the classes here are
the rest. `SessionFailed` and `ControlClosed` are final: the session is closed and stays silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.errors import PeerError
from wire.orp.frame import Frame
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
    StreamCheckpoint,
    StreamReady,
)


@dataclass(slots=True)
class SessionFailed:
    """The peer broke the protocol or a deadline: close the connection with `error.code` and
    `error.reason`, count `error.label`."""

    error: PeerError


@dataclass(slots=True)
class ControlClosed:
    """The peer ended its ctrl stream at a frame border; the connection has no use without it."""


@dataclass(slots=True)
class PeerFrame:
    """Relay side: a frame for the other agent of `message.stream_id`; copy `frame` verbatim.

    MIGRATE_TO_P2P is for the other agent's relay, when that is another one.
    """

    message: StreamCheckpoint | CandidateOffer | CandidateAnswer | MigrateToP2P
    frame: Frame


@dataclass(slots=True)
class ServiceRegistered:
    """Agent side: the relay answered this REGISTER."""

    register: Register
    service_id: str


@dataclass(slots=True)
class SessionReady:
    """Agent side: HELLO and every service of the initial list are answered; sent once."""


@dataclass(slots=True)
class ObservedAddrTimedOut:
    """Agent side: no answer to this query in time; the session goes on without it."""

    request_id: int


RelayEvent: TypeAlias = (
    Hello
    | Register
    | Ping
    | ObservedAddrQuery
    | MigrateToP2P
    | PeerFrame
    | ControlClosed
    | SessionFailed
)

AgentEvent: TypeAlias = (
    HelloAck
    | ServiceRegistered
    | SessionReady
    | ObservedAddrResp
    | ObservedAddrTimedOut
    | StreamReady
    | AllocGranted
    | StreamCheckpoint
    | CandidateOffer
    | CandidateAnswer
    | Pong
    | Goaway
    | ControlClosed
    | SessionFailed
)
