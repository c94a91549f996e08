"""Which datagrams may leave in one system call. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from actors.transport.quic.engine import Address


def runs(
    datagrams: list[tuple[bytes, Address]],
) -> Iterator[tuple[list[bytes], int, Address]]:
    """Split into runs for one destination, in order.

    Yields:
        Datagrams of one size, the last one possibly shorter; that size; the destination.
    """
    start, count = 0, len(datagrams)
    while start < count:
        first, address = datagrams[start]
        size = length = len(first)
        end = start + 1
        # A run ends behind its first shorter datagram.
        while end < count and length == size:
            data, to = datagrams[end]
            if len(data) > size or to != address:
                break
            length = len(data)
            end += 1
        yield [data for data, _ in datagrams[start:end]], size, address
        start = end
