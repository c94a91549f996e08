"""Everything the ORP codec can raise or report.

::

    ProtocolError
    ├── LocalError
    │   ├── EncodeError             a value that does not fit the wire format or a limit
    │   └── SessionMisuse           a call that is illegal in the session's or reader's state
    └── PeerError
        ├── FrameTooLarge           declared payload length above the limit
        ├── TruncatedFrame          the stream ended inside a frame
        ├── MalformedMessage        payload is not the message of its type
        ├── IllegalFrame            frame type not legal in this state
        ├── HelloNotFirst           silent: the first ctrl frame is not HELLO
        ├── HelloMalformed          silent: HELLO payload is not a Hello message
        ├── IdentityMismatch        silent: HELLO.agent_uri is not the certificate's URI
        ├── UnsupportedVersion      HELLO.protocol_version is not ours
        ├── HelloTimeout            HELLO or HELLO_ACK missing at the deadline
        ├── FrameTimeout            a frame begun and not finished at the deadline
        ├── AnswerTimeout           a request unanswered at the deadline
        ├── TooManyRequests         more unanswered requests than the limit
        └── IdentityError           silent: not an identity URI (leaves in identity.py)

"silent" answers with code 0 and an empty reason, as the sheet fixes it in section 1.4; all others
carry a code of `close_codes.CloseCode` and a constant reason. `label` is what to count by.
"""

from __future__ import annotations

from typing import ClassVar

from wire.errors import LocalError, PeerError
from wire.orp.close_codes import CloseCode


class EncodeError(LocalError):
    """A value cannot be put on the wire: wrong type, out of range, longer than its limit."""


class SessionMisuse(LocalError):
    """The caller did something the state of the session or reader does not allow."""


class OrpError(PeerError):
    """What all ORP peer errors share: code, reason and label are constants of the class."""

    CODE: ClassVar[CloseCode] = CloseCode.SILENT
    REASON: ClassVar[str] = ""
    LABEL: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail, code=self.CODE, reason=self.REASON, label=self.LABEL)


class FrameTooLarge(OrpError):
    """A header declared `declared` payload bytes, `limit` are allowed; nothing was buffered."""

    CODE = CloseCode.FRAME_TOO_LARGE
    REASON = "frame too large"
    LABEL = "frame_too_large"

    def __init__(self, declared: int, limit: int) -> None:
        super().__init__(f"frame declares {declared} payload bytes, limit {limit}")
        self.declared = declared
        self.limit = limit


class TruncatedFrame(OrpError):
    """The stream ended after `received` bytes of a frame that needs at least `needed`."""

    CODE = CloseCode.TRUNCATED_FRAME
    REASON = "stream ended inside a frame"
    LABEL = "truncated_frame"

    def __init__(self, received: int, needed: int) -> None:
        super().__init__(f"stream ended after {received} of {needed} bytes of a frame")
        self.received = received
        self.needed = needed


class MalformedMessage(OrpError):
    """The payload of a frame named `frame` is not its message; `why` names field and limit."""

    CODE = CloseCode.MALFORMED_MESSAGE
    REASON = "malformed message"
    LABEL = "malformed_message"

    def __init__(self, frame: str, why: str) -> None:
        super().__init__(f"{frame}: {why}")
        self.frame = frame


class IllegalFrame(OrpError):
    """A frame of this type is not legal in this state."""

    CODE = CloseCode.ILLEGAL_FRAME
    REASON = "illegal frame"
    LABEL = "illegal_frame"

    def __init__(self, frame: str, state: str) -> None:
        super().__init__(f"{frame} is illegal in state {state}")
        self.frame = frame
        self.state = state


class HelloNotFirst(OrpError):
    """The first frame on the ctrl stream is not HELLO."""

    LABEL = "hello_not_first"


class HelloMalformed(OrpError):
    """The HELLO frame does not hold a valid Hello message."""

    LABEL = "hello_malformed"


class IdentityMismatch(OrpError):
    """HELLO.agent_uri differs from the certificate's first URI SAN (compared byte for byte)."""

    LABEL = "identity_mismatch"


class UnsupportedVersion(OrpError):
    """HELLO.protocol_version is not the version we speak."""

    CODE = CloseCode.UNSUPPORTED_VERSION
    REASON = "unsupported protocol version"
    LABEL = "unsupported_version"


class HelloTimeout(OrpError):
    """The opening exchange did not complete before its deadline."""

    CODE = CloseCode.HELLO_TIMEOUT
    REASON = "hello timeout"
    LABEL = "hello_timeout"


class FrameTimeout(OrpError):
    """A frame was begun and not completed before its deadline."""

    CODE = CloseCode.FRAME_TIMEOUT
    REASON = "frame timeout"
    LABEL = "frame_timeout"


class AnswerTimeout(OrpError):
    """The relay did not answer a request before its deadline."""

    CODE = CloseCode.ANSWER_TIMEOUT
    REASON = "answer timeout"
    LABEL = "answer_timeout"


class TooManyRequests(OrpError):
    """The peer has more unanswered requests than it may have."""

    CODE = CloseCode.TOO_MANY_REQUESTS
    REASON = "too many unanswered requests"
    LABEL = "too_many_requests"
