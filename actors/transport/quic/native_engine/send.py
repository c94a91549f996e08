"""What is written and not sent yet: the send side of the native engine.

The packet core would take everything at once. But it reserves frames of up to sixteen streams for a
packet that holds one of them; while the congestion window is full it keeps the others reserved,
sends no acknowledgements meanwhile, and breaks when a stream with a reservation ends. So bytes wait
here, and the core gets as much as one packet, or one stream, can carry now.

Streams take turns, as many packets at a time as one system call sends; small pieces of several
streams share a packet.
`max_backlog` of the writers bounds what waits (see `Stream.write`).

A FIN without bytes waits until what was sent before it is acknowledged: the core forgets such a FIN
when it is lost while earlier bytes of the stream are in flight. `_all_acknowledged` tells by packet
numbers.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.transport.quic.datagram_size import LADDER

#: Bytes in datagrams of one stream before the next has its turn: what one system call sends.
QUANTUM = 65_507
#: The core may have found out that datagrams of this size fit.
LARGEST = max(LADDER)
#: Header, tag and frame overhead of a packet, and of one more frame in it.
_PACKET_OVERHEAD = 64
_FRAME_OVERHEAD = 24
#: How often losses on the connection may prolong the wait of a bare FIN.
_MAX_MARKS = 6


class _Outgoing:
    __slots__ = ("chunks", "ended", "fed", "in_core", "limit", "losses", "mark", "marks", "waiting")

    def __init__(self, limit: int) -> None:
        self.chunks: deque[bytes | memoryview] = deque()
        self.waiting = 0
        #: Bytes given to the core, and those of them that it has not sent yet.
        self.fed = 0
        self.in_core = 0
        self.limit = limit
        self.ended = False
        #: For a bare FIN: the largest packet number, and the losses, when the wait began.
        self.mark = self.losses = -1
        self.marks = 0

    @property
    def sendable(self) -> bool:
        return bool(self.chunks) or self.ended


class SendQueue:
    """Bytes of one connection's streams, and the limits its peer gave."""

    def __init__(self, client: bool, datagram: int) -> None:
        self._client = client
        self.datagram = datagram
        self._streams: dict[int, _Outgoing] = {}
        #: Streams with something to feed, in turn.
        self._turns: dict[int, None] = {}
        #: Streams whose bare FIN waits for acknowledgements.
        self._fins: dict[int, None] = {}
        self._limit = 0
        self._fed = 0
        self._initial_ours = self._initial_theirs = 0

    def peer_limits(self, connection: int, ours: int, theirs: int, datagram: int | None) -> None:
        """From transport parameters: credit of the connection, of streams we or they open."""
        self._limit = connection
        self._initial_ours, self._initial_theirs = ours, theirs
        if datagram is not None:
            self.datagram = min(self.datagram, datagram)

    def connection_credit(self, limit: int) -> None:
        """MAX_DATA."""
        self._limit = max(self._limit, limit)

    def stream_credit(self, stream_id: int, limit: int) -> None:
        """MAX_STREAM_DATA."""
        stream = self._stream(stream_id)
        stream.limit = max(stream.limit, limit)
        if stream.sendable:
            self._turns[stream_id] = None

    def _stream(self, stream_id: int) -> _Outgoing:
        stream = self._streams.get(stream_id)
        if stream is None:
            ours = (stream_id & 1 == 0) == self._client
            limit = self._initial_ours if ours else self._initial_theirs
            stream = self._streams[stream_id] = _Outgoing(limit)
        return stream

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Queue bytes, and the end."""
        stream = self._stream(stream_id)
        if data:
            stream.chunks.append(bytes(data))
            stream.waiting += len(data)
        stream.ended |= end
        if stream.sendable:
            self._turns[stream_id] = None

    def backlog(self, stream_id: int) -> int:
        """Bytes not sent for the first time yet."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.waiting + stream.in_core

    def in_core(self, stream_id: int) -> int:
        """Bytes given to the core that it has not sent yet."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.in_core

    def drop(self, stream_id: int) -> None:
        """The sending half was reset, or is over."""
        stream = self._streams.pop(stream_id, None)
        self._turns.pop(stream_id, None)
        self._fins.pop(stream_id, None)
        if stream is not None:
            self._fed -= stream.in_core  # never sent: costs the peer no credit

    def acknowledged(self, core: Any) -> None:
        """Something may have been acknowledged: FINs that waited for it get their turn."""
        for stream_id in list(self._fins):
            if _all_acknowledged(core, self._streams[stream_id]):
                del self._fins[stream_id]
                self._turns[stream_id] = None

    @property
    def idle(self) -> bool:
        """True when nothing waits for its turn."""
        return not self._turns

    def feed(self, core: Any, *, trust_limits: bool) -> list[int]:
        """Give the core one round: a run of one stream, or small pieces that share a packet.

        `trust_limits` is False while news of limits may be held back: the core knows better then.
        Returns the streams that got something; empty when nothing may be sent now.
        """
        room = core.congestion_window - core.bytes_in_flight
        # What the core is given leaves at once, headers, a probe and all: what stays behind keeps
        # its frames reserved (decision 40), and a stream that ends meanwhile ends the connection.
        if room < 2 * LARGEST and core.bytes_in_flight:
            return []
        room -= room // 16
        fed: list[int] = []
        packet = self.datagram - _PACKET_OVERHEAD
        # Whole packets, and no more of them than one system call sends.
        quantum = QUANTUM // self.datagram * packet
        while self._turns:
            stream_id = next(iter(self._turns))
            stream = self._streams[stream_id]
            count = stream.waiting
            if trust_limits:
                count = min(count, stream.limit - stream.fed, self._limit - self._fed)
            count = max(0, min(count, quantum, room))
            if not count and stream.waiting:
                # No credit: the stream's own comes with a turn, the connection's for all.
                if stream.limit > stream.fed:
                    return fed
                del self._turns[stream_id]
                continue
            if not count and stream.fed and not _all_acknowledged(core, stream):
                del self._turns[stream_id]
                self._fins[stream_id] = None
                continue
            if fed and count + _FRAME_OVERHEAD > packet:
                return fed
            del self._turns[stream_id]
            self._give(core, stream_id, stream, count)
            fed.append(stream_id)
            if stream.sendable:
                self._turns[stream_id] = None  # behind the others
            packet -= count + _FRAME_OVERHEAD
            if packet <= 0:
                return fed
        return fed

    def _give(self, core: Any, stream_id: int, stream: _Outgoing, count: int) -> None:
        """Move `count` bytes, and the end when they are the last."""
        left = count
        while stream.chunks:
            chunk = stream.chunks.popleft()
            if len(chunk) > left:
                view = memoryview(chunk)  # no copy of the rest per round
                stream.chunks.appendleft(view[left:])
                chunk = view[:left]
            left -= len(chunk)
            end = stream.ended and not stream.chunks
            if chunk:
                core.send_stream(stream_id, chunk, end)
            if not left:
                break
        else:
            core.send_stream(stream_id, b"", True)
        if stream.ended and not stream.chunks:
            stream.ended = False
        stream.waiting -= count
        stream.fed += count
        stream.in_core += count
        self._fed += count

    def sent(self, core: Any, stream_id: int, *, empty: bool) -> int:
        """Bytes that the core sent since the last look; `empty`: it has none of any stream."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.in_core:
            return 0
        left: int = 0 if empty else core.get_send_buffer_size(stream_id)
        count = stream.in_core - left
        stream.in_core = left
        return count


def _all_acknowledged(core: Any, stream: _Outgoing) -> bool:
    """True when no packet with bytes of the stream can be in flight, or the wait was long enough.

    That is when every packet up to the mark is acknowledged; a loss means that something is sent
    again in a later packet, so the mark moves.
    """
    if not core.bytes_in_flight or stream.marks > _MAX_MARKS:
        return True
    numbers = [packet[0] for packet in core.outstanding_application_packets]
    if not numbers:
        return True
    if stream.mark < 0 or stream.losses != core.loss_total:
        stream.mark, stream.losses = max(numbers), core.loss_total
        stream.marks += 1
        return False
    return bool(min(numbers) > stream.mark)
