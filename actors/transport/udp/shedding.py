"""Dropping a share of some datagrams before they take room in a socket's queue.

A flood that is read only to be dropped fills the queue, and what is wanted is lost with the rest. A
classic BPF filter on the socket drops by the first byte and by chance, in the kernel, before the
queue; it needs no privilege. Linux only; elsewhere nothing is shed.

Source: Linux Documentation/networking/filter.rst; for UDP sockets offset 0 is the UDP header.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27

_UDP_HEADER: Final = 8
_LOAD_BYTE, _LOAD_WORD, _AND, _JUMP_EQUAL, _JUMP_GREATER, _RETURN = (
    0x30,
    0x20,
    0x54,
    0x15,
    0x25,
    0x06,
)
#: The ancillary load of a random 32-bit number.
_RANDOM: Final = 0xFFFF_F000 + 56
_ALL: Final = 0xFFFF_FFFF
_INSTRUCTION: Final = struct.Struct("=HBBI")


def shed(sock: socket.socket, mask: int, value: int, share: float) -> bool:
    """Let only `share` of the datagrams pass whose first byte is `value` under `mask`.

    Replaces the filter that is there. A share of 1 or more takes it away.

    Returns:
        False where the system cannot do that.
    """
    if sys.platform != "linux":
        return False
    try:
        if share >= 1:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            return True
        program = _program(mask, value, share)
        code = ctypes.create_string_buffer(program)
        count = len(program) // _INSTRUCTION.size
        option = struct.pack("HL", count, ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
    except OSError:
        return False
    return True


def _program(mask: int, value: int, share: float) -> bytes:
    passing = max(0, min(_ALL, int(share * _ALL)))
    return b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD_BYTE, 0, 0, _UDP_HEADER),  # an empty datagram ends here and is dropped
            (_AND, 0, 0, mask),
            (_JUMP_EQUAL, 0, 2, value),
            (_LOAD_WORD, 0, 0, _RANDOM),
            (_JUMP_GREATER, 1, 0, passing),
            (_RETURN, 0, 0, _ALL),
            (_RETURN, 0, 0, 0),
        )
    )
