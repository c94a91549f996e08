"""The CONNECTION_CLOSE frame, for packets of our own.

The packet core sends its CONNECTION_CLOSE under the newest keys it has, and nothing else any more.
A server that has not seen the client's Finished cannot read those, and would wait for its
handshake deadline: until the handshake is confirmed the close has to go out under the Handshake
keys, too. The core makes one of the two packets, `packets` the other.

Source: RFC 9000 sections 10.2.3 and 19.19.
"""

from __future__ import annotations

from aioquic.buffer import Buffer

_TRANSPORT, _APPLICATION = 0x1C, 0x1D
#: Stands for the code of the application where only the transport may speak.
APPLICATION_ERROR = 0x0C
#: Type, code, frame type and length are of at most 8 bytes each.
_HEAD_BYTES = 32


def connection_close(code: int, frame_type: int | None, reason: bytes) -> bytes:
    """The frame; `frame_type` None is the application's."""
    buffer = Buffer(capacity=_HEAD_BYTES + len(reason))
    buffer.push_uint_var(_APPLICATION if frame_type is None else _TRANSPORT)
    buffer.push_uint_var(code)
    if frame_type is not None:
        buffer.push_uint_var(frame_type)
    buffer.push_uint_var(len(reason))
    buffer.push_bytes(reason)
    return buffer.data
