"""Application error codes that ORP connections and streams end with.

The reference closes every connection with code 0 and an empty reason and defines no codes (sheet
1.5). Agents treat all application closes alike, so codes of our own stay compatible; they tell an
operator at the far end what went wrong. Where the sheet fixes the answer as a silent close (1.4:
no or unparsable identity, first frame not HELLO, malformed HELLO, HELLO for another URI) the code
is `SILENT` and the reason empty; the relay still counts the cause by the error's label.

Codes from 0x100 keep clear of small numbers other implementations use (0x00, 0x0A).
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Code of a CONNECTION_CLOSE sent by the application; the reason says the same in words."""

    SILENT = 0x000  #: orderly end, or an answer the sheet fixes as code 0 with empty reason
    FRAME_TOO_LARGE = 0x101  #: a declared payload length above the limit of the stream
    TRUNCATED_FRAME = 0x102  #: the ctrl stream ended inside a frame
    MALFORMED_MESSAGE = 0x103  #: not the protobuf message of its type, or a field out of range
    ILLEGAL_FRAME = 0x104  #: a frame type that is not legal in the session's state
    UNSUPPORTED_VERSION = 0x105  #: HELLO.protocol_version is not "orp/1"
    HELLO_TIMEOUT = 0x106  #: no complete HELLO (agent: no HELLO_ACK) before the deadline
    FRAME_TIMEOUT = 0x107  #: a frame was begun and not finished before the deadline
    ANSWER_TIMEOUT = 0x108  #: a request on ctrl was not answered before the deadline
    TOO_MANY_REQUESTS = 0x109  #: more unanswered requests on ctrl than the limit
    CTRL_CLOSED = 0x10A  #: the ctrl stream ended although the connection lives
    SUPERSEDED = 0x10B  #: the same identity connected again; the newer connection won
    REGISTER_FAILED = 0x10C  #: the registry refused or did not answer a REGISTER
    OVERLOADED = 0x10D  #: the relay is at a connection or memory limit
    GOING_AWAY = 0x10E  #: the relay stops or drains; reconnect elsewhere
    INTERNAL_ERROR = 0x10F  #: the owner of the connection crashed


class ResetCode(IntEnum):
    """Code of RESET_STREAM and STOP_SENDING on a data stream."""

    NONE = 0x00  #: this path is left for another one; says nothing about the stream (sheet 3.8)
    SOURCE_FAILED = 0x0A  #: the stream's other side failed; its bytes are incomplete (sheet 3.4)
    REJECTED = 0x110  #: answer to bytes behind a stream that was refused with STREAM_REJECT
    RELAY_FAULT = 0x111  #: the relay lost the stream pair; the stream can be resumed
    DEADLINE = 0x112  #: a wait for the other side ran out
    MALFORMED = 0x113  #: the first frame of the stream was not what its place demands
    GOING_AWAY = 0x114  #: the relay or agent is shutting down
    UNWANTED = 0x115  #: nobody reads this direction any more, on whatever path
