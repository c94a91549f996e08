"""The other side of a yamux session, written from the sheet (2.1 to 2.4) and nothing else.

It behaves like hashicorp/yamux where that shows: window updates come after half a window was read,
bare flags travel on WINDOW_UPDATE, streams are acknowledged when they are accepted, a second FIN, a
SYN for a live id or a window overrun kills the session, RST throws away what was not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
INITIAL = 262_144


@dataclass(frozen=True)
class Frame:
    """As on the wire."""

    kind: int
    flags: int = 0
    stream_id: int = 0
    length: int = 0
    payload: bytes = b""
    version: int = 0

    def encode(self) -> bytes:
        """Header and payload."""
        length = len(self.payload) if self.kind == DATA and not self.length else self.length
        header = struct.pack("!BBHII", self.version, self.kind, self.flags, self.stream_id, length)
        return header + self.payload


def frames_of(data: bytes) -> tuple[list[Frame], bytes]:
    """Complete frames, and what is left."""
    frames = []
    while len(data) >= 12:
        version, kind, flags, stream_id, length = struct.unpack("!BBHII", data[:12])
        size = length if kind == DATA else 0
        if len(data) < 12 + size:
            break
        frames.append(Frame(kind, flags, stream_id, length, data[12 : 12 + size], version))
        data = data[12 + size :]
    return frames, data


class SessionKilled(Exception):
    """What hashicorp/yamux does instead of forgiving."""


@dataclass
class PeerStream:
    """One stream as the peer sees it."""

    may_send: int = INITIAL
    may_receive: int = INITIAL
    unread: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    to_send: bytes = b""
    acknowledged: bool = False
    fin_received: bool = False
    fin_wanted: bool = False
    fin_sent: bool = False
    was_reset: bool = False
    granted: int = 0


class Peer:
    """The other side of a yamux session, written from the sheet (2.1 to 2.4) and nothing else.

    Args:
        client: opens odd ids.
        window: its receive window, announced with SYN and ACK.
        reading: it reads what comes at once.
        ignores_after_fin: the peer of 2016: after its own FIN it drops what comes.
    """

    def __init__(
        self,
        *,
        client: bool,
        window: int = INITIAL,
        reading: bool = True,
        ignores_after_fin: bool = False,
    ) -> None:
        self.window = window
        self.reading = reading
        self.ignores_after_fin = ignores_after_fin
        self.streams: dict[int, PeerStream] = {}
        self.log: list[Frame] = []
        self.accepting = True
        self.waiting: list[int] = []
        self._next = 1 if client else 2
        self._out = bytearray()
        self._rest = b""

    def open(self, data: bytes = b"", *, fin: bool = False) -> int:
        """SYN at once, data behind it."""
        stream_id = self._next
        self._next += 2
        self.streams[stream_id] = PeerStream(may_receive=self.window)
        self._send(Frame(WINDOW, SYN, stream_id, self.window - INITIAL))
        self.write(stream_id, data)
        if fin:
            self.finish(stream_id)
        return stream_id

    def write(self, stream_id: int, data: bytes) -> None:
        """As much as there is credit for goes out now."""
        stream = self.streams[stream_id]
        stream.to_send += data
        self._push(stream_id)

    def _push(self, stream_id: int) -> None:
        stream = self.streams[stream_id]
        size = min(stream.may_send, len(stream.to_send))
        if size:
            chunk, stream.to_send = stream.to_send[:size], stream.to_send[size:]
            stream.may_send -= size
            self._send(Frame(DATA, 0, stream_id, payload=chunk))
        if stream.fin_wanted:
            self.finish(stream_id)

    def finish(self, stream_id: int) -> None:
        """FIN, behind what waits."""
        stream = self.streams[stream_id]
        stream.fin_wanted = True
        if not stream.fin_sent and not stream.to_send:
            stream.fin_sent = True
            self._send(Frame(WINDOW, FIN, stream_id))

    def reset(self, stream_id: int) -> None:
        """RST."""
        self.streams[stream_id].was_reset = True
        self._send(Frame(WINDOW, RST, stream_id))

    def accept(self) -> int:
        """The oldest stream nobody took yet."""
        stream_id = self.waiting.pop(0)
        self._acknowledge(stream_id)
        return stream_id

    def _acknowledge(self, stream_id: int) -> None:
        stream = self.streams[stream_id]
        if not stream.acknowledged and not stream.fin_received:
            stream.acknowledged = True
            stream.may_receive += self.window - INITIAL
            self._send(Frame(WINDOW, ACK, stream_id, self.window - INITIAL))

    def read_all(self) -> None:
        """Read every stream empty."""
        for stream_id in self.streams:
            self._read(stream_id)

    def _read(self, stream_id: int) -> None:
        stream = self.streams[stream_id]
        stream.read += stream.unread
        stream.unread.clear()
        delta = self.window - stream.may_receive
        if delta >= self.window // 2 and not stream.fin_received:
            stream.may_receive += delta
            stream.granted += delta
            self._send(Frame(WINDOW, 0, stream_id, delta))

    def _send(self, frame: Frame) -> None:
        self._out += frame.encode()

    def output(self) -> bytes:
        """What goes to the other side now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Bytes of the other side.

        Raises:
            SessionKilled: it broke a rule the sheet knows to be deadly.
        """
        frames, self._rest = frames_of(self._rest + data)
        for frame in frames:
            self.log.append(frame)
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        if frame.kind == PING:
            if frame.flags & SYN:
                self._send(Frame(PING, ACK, 0, frame.length))
            return
        if frame.kind == GO_AWAY:
            if frame.length:
                raise SessionKilled(f"go away {frame.length}")
            return
        if frame.flags & SYN:
            if frame.stream_id in self.streams and not self._over(frame.stream_id):
                raise SessionKilled("duplicate SYN")
            self.streams[frame.stream_id] = PeerStream()
            self.waiting.append(frame.stream_id)
        stream = self.streams.get(frame.stream_id)
        if stream is None or stream.was_reset:
            return
        if frame.kind == WINDOW and not frame.flags & RST:
            stream.may_send += frame.length
            self._push(frame.stream_id)
        if frame.flags & FIN:
            if stream.fin_received:
                raise SessionKilled("second FIN")
            stream.fin_received = True
        if frame.flags & RST:
            stream.was_reset = True
            stream.unread.clear()
        if frame.kind == DATA:
            if len(frame.payload) > stream.may_receive:
                raise SessionKilled("window exceeded")
            stream.may_receive -= len(frame.payload)
            if not (self.ignores_after_fin and stream.fin_sent):
                stream.unread += frame.payload
            if self.reading:
                self._read(frame.stream_id)
        if self.accepting and frame.stream_id in self.waiting:
            self.waiting.remove(frame.stream_id)
            self._acknowledge(frame.stream_id)

    def _over(self, stream_id: int) -> bool:
        stream = self.streams[stream_id]
        return stream.was_reset or (stream.fin_received and stream.fin_sent)
