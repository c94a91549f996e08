"""UDP_SEGMENT on one socket: what it can do, found out at run time.

Generic segmentation offload sends one large buffer as many datagrams of equal size (the last may
be shorter). The kernel may refuse it altogether, for too many segments, for segments beyond the
path's MTU, or because the device cannot checksum; each refusal narrows what is tried next on this
socket. Knows no addresses and sends nothing.

Source: udp(7); Linux `udp_send_skb` (EINVAL for segments above the MTU, EIO without checksum
offload, EMSGSIZE above 64 KiB).
"""

from __future__ import annotations

import errno
import socket
import sys
from functools import lru_cache
from struct import Struct
from typing import Final

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

#: Most bytes in one call: the largest UDP payload over IPv4.
MAX_CALL_BYTES: Final = 65_507
#: Segments in one call: 128 since Linux 6.9, before that 64.
MAX_SEGMENTS: Final = 128
OLD_MAX_SEGMENTS: Final = 64
#: Every path carries segments of this size; a refusal of them is not about their size.
SAFE_SEGMENT_BYTES: Final = 1200

_SIZE: Final = Struct("=H")
#: The kernel or the device cannot do it at all.
_UNSUPPORTED: Final = frozenset({errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Segmentation:
    """The limits of segmentation offload on one socket.

    Attributes:
        enabled: False once the socket turned out not to do it.
        max_segments: per call.
        max_segment_bytes: larger segments are sent one by one.
    """

    __slots__ = ("enabled", "max_segment_bytes", "max_segments")

    def __init__(self, sock: socket.socket, *, allowed: bool = True) -> None:
        self.enabled = allowed and _supported(sock)
        self.max_segments = MAX_SEGMENTS
        self.max_segment_bytes = MAX_CALL_BYTES // 2

    def per_call(self, segment_size: int) -> int:
        """How many segments of this size may leave in one call; 1: send them one by one."""
        if not self.enabled or not 0 < segment_size <= self.max_segment_bytes:
            return 1
        return min(self.max_segments, MAX_CALL_BYTES // segment_size)

    def refused(self, error: OSError, segments: int, segment_size: int) -> bool:
        """Learn from a refused call. True: the refusal was about segmentation."""
        if error.errno in _UNSUPPORTED:
            self.enabled = False
        elif error.errno not in (errno.EINVAL, errno.EMSGSIZE):
            return False
        elif segments > OLD_MAX_SEGMENTS:
            self.max_segments = OLD_MAX_SEGMENTS
        elif segment_size > SAFE_SEGMENT_BYTES:
            self.max_segment_bytes = min(self.max_segment_bytes, segment_size - 1)
        else:
            self.enabled = False
        return True

    @staticmethod
    @lru_cache(maxsize=256)
    def ancillary(segment_size: int) -> list[tuple[int, int, bytes]]:
        """The control message that makes `sendmsg` cut the buffer; the same list every time."""
        return [(SOL_UDP, UDP_SEGMENT, _SIZE.pack(segment_size))]


def _supported(sock: socket.socket) -> bool:
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def enable_coalescing(sock: socket.socket) -> bool:
    """Turn UDP_GRO on: one receive may return many datagrams. False: not supported."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True
