"""Which datagrams may leave in one system call. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from actors.transport.quic.engine import Address


def runs(
    datagrams: list[tuple[bytes, Address]],
) -> Iterator[tuple[list[bytes], int, Address]]:
    """Split into runs for one destination, in order.

    Yields:
        Datagrams of one size, the last one possibly shorter; that size; the destination.
    """
    if not datagrams:
        return
    payloads = list(map(itemgetter(0), datagrams))
    addresses = list(map(itemgetter(1), datagrams))
    address, count = addresses[0], len(payloads)
    if addresses.count(address) == count:
        sizes = list(map(len, payloads))
        if sizes[-1] <= sizes[0] and sizes.count(sizes[0]) >= count - (sizes[-1] < sizes[0]):
            yield payloads, sizes[0], address  # as in any bulk transfer
            return
    for address, group in groupby(datagrams, key=itemgetter(1)):
        payloads = [data for data, _ in group]
        start = taken = 0
        first = -1
        for size, same in groupby(map(len, payloads)):
            count = len(list(same))
            # A run ends behind its first shorter datagram.
            if start < taken and size < first:
                yield payloads[start : taken + 1], first, address
                start, taken, count = taken + 1, taken + 1, count - 1
            elif start < taken:
                yield payloads[start:taken], first, address
                start = taken
            first = size
            taken += count
        if start < taken:
            yield payloads[start:taken], first, address
