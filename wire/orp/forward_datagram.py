"""Datagrams of the forward plane, agent to relay (sheet 3.5).

============ ====== ==== ============================= ========================================
kind         offset size field                         relay's action
============ ====== ==== ============================= ========================================
registration 0      4    0                             bind `my_alloc` to the source address
..           4      4    my_alloc                      (bytes behind it are ignored)
data         0      4    peer_alloc, not 0             send the payload to that id's address
..           4      n    payload
short        0      n    < 4 bytes, or < 8 with id 0   drop
============ ====== ==== ============================= ========================================

Big-endian. Relay to agent is the bare payload. This module knows no addresses and no table.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from wire.orp.errors import EncodeError

PREFIX: Final = Struct("!I")
REGISTRATION: Final = Struct("!II")
MAX_ALLOCATION: Final = 0xFFFF_FFFF


def encode_registration(my_allocation: int) -> bytes:
    """The 8-byte registration of an allocation.

    Raises:
        EncodeError: the id is outside 1 .. 2**32 - 1.
    """
    return REGISTRATION.pack(0, _checked(my_allocation))


def encode_data(peer_allocation: int, payload: bytes) -> bytes:
    """`payload` addressed to the peer's allocation; copies the payload once.

    Raises:
        EncodeError: the id is outside 1 .. 2**32 - 1.
    """
    return PREFIX.pack(_checked(peer_allocation)) + payload


def parse(datagram: memoryview) -> tuple[int, memoryview | None] | None:
    """Take a datagram apart: hot path, one tuple, no copy.

    Returns:
        ``(peer_alloc, payload)`` for data, the payload a view valid as long as `datagram` is;
        ``(my_alloc, None)`` for a registration, whose id may be 0 and is then to be dropped;
        None for a short datagram.
    """
    size = len(datagram)
    if size < PREFIX.size:
        return None
    (allocation,) = PREFIX.unpack_from(datagram)
    if allocation:
        return allocation, datagram[PREFIX.size :]
    if size < REGISTRATION.size:
        return None
    return PREFIX.unpack_from(datagram, PREFIX.size)[0], None


def one_prefix(run: memoryview, segment_size: int) -> bool:
    """True if every datagram of a run begins with the same four bytes.

    Args:
        run: datagrams of `segment_size` bytes one behind the other, the last possibly shorter.

    Cost: the prefixes, or where they are not aligned their columns, are compared as wholes; no view
    per datagram.
    """
    count = -(-len(run) // segment_size)
    if segment_size % PREFIX.size == 0:
        usable = len(run) // PREFIX.size * PREFIX.size
        prefixes = run[:usable].cast("I")[:: segment_size // PREFIX.size].tolist()
        return len(prefixes) == count and prefixes.count(prefixes[0]) == count
    for column in range(PREFIX.size - 1, -1, -1):
        octets = run[column::segment_size].tobytes()
        if len(octets) != count or octets.count(octets[0]) != count:
            return False
    return True


def _checked(allocation: int) -> int:
    if not 1 <= allocation <= MAX_ALLOCATION:
        raise EncodeError(f"allocation id {allocation} is outside 1..{MAX_ALLOCATION}")
    return allocation
