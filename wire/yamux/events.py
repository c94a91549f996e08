"""What a yamux session reports. `SessionDead` is final."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.yamux.errors import YamuxError


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream; `Session.accept` or `Session.reset` answers."""

    stream_id: int


@dataclass(slots=True)
class DataReceived:
    """In-order bytes of a stream; `Session.consume` gives the credit back."""

    stream_id: int
    data: bytes


@dataclass(slots=True)
class FinReceived:
    """The peer sends no more on this stream."""

    stream_id: int


@dataclass(slots=True)
class StreamReset:
    """The peer dropped the stream, and what it had not read.

    Attributes:
        code: what an extended peer said; 0 from all others.
    """

    stream_id: int
    code: int


@dataclass(slots=True)
class DataSent:
    """So many bytes of a stream were handed to the transport."""

    stream_id: int
    count: int


@dataclass(slots=True)
class StreamFinished:
    """Both directions ended, and the peer's session has read everything we sent."""

    stream_id: int


@dataclass(slots=True)
class Openable:
    """`Session.open` works again, after it returned None."""


@dataclass(slots=True)
class PeerGoingAway:
    """The peer accepts no new streams; those that live go on."""


@dataclass(slots=True)
class SessionDead:
    """Nothing more will happen.

    Attributes:
        error: our reason; None when the peer ended the session.
        code: of the peer's GO_AWAY, when `error` is None.
    """

    error: YamuxError | None
    code: int = 0


Event: TypeAlias = (
    StreamOpened
    | DataReceived
    | FinReceived
    | StreamReset
    | DataSent
    | StreamFinished
    | Openable
    | PeerGoingAway
    | SessionDead
)
