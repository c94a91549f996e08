"""Which connection a datagram belongs to."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from actors.transport.quic.admission import CID_LENGTH, long_header_cid

if TYPE_CHECKING:
    from actors.transport.quic.quic_connection import QuicConnectionHandle


class Routes:
    """Connections by their connection ids (RFC 9000 section 5.2).

    A connection has as many ids as its peer may hold (`active_connection_id_limit`, 8 at most).
    """

    __slots__ = ("_by_cid",)

    def __init__(self) -> None:
        self._by_cid: dict[bytes, QuicConnectionHandle] = {}

    def __len__(self) -> int:
        return len(self._by_cid)

    @property
    def cids(self) -> list[bytes]:
        """Every id in use."""
        return list(self._by_cid)

    def add(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route this id to the connection."""
        self._by_cid[cid] = connection
        connection.cids.add(cid)

    def remove(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route it no more."""
        if self._by_cid.get(cid) is connection:
            del self._by_cid[cid]
        connection.cids.discard(cid)

    def clear(self) -> None:
        """Forget everything."""
        self._by_cid.clear()

    def find(self, datagram: bytes | memoryview) -> QuicConnectionHandle | None:
        """The connection of a datagram, by its destination connection id; None: nobody's."""
        if not datagram:
            return None
        if datagram[0] & 0x80:
            cid = long_header_cid(datagram)
            return None if cid is None else self._by_cid.get(cid)
        return self._by_cid.get(bytes(datagram[1 : 1 + CID_LENGTH]))

    def one_target(self, data: bytes, size: int) -> bool:
        """True when a run of datagrams is all short headers with one id, as in any bulk transfer.

        Args:
            data: the datagrams behind each other, `size` bytes each but the last.
            size: see above.
        """
        if size <= CID_LENGTH:
            return False
        count = len(data) // size
        headers = _headers(size, count).unpack_from(data)
        cids, last = headers[1::2], data[count * size :]
        return (
            max(headers[::2]) < 0x80
            and cids.count(cids[0]) == count
            and (not last or (last[0] < 0x80 and last[1 : 1 + CID_LENGTH] == cids[0]))
        )


@lru_cache(maxsize=1024)
def _headers(size: int, count: int) -> Struct:
    """First byte and id of each of `count` datagrams."""
    return Struct(f"B{CID_LENGTH}s{size - 1 - CID_LENGTH}x" * count)
