"""Services as cheap as they can be, in a process of their own, for `trunkline bench rendezvous`.

Blocking sockets and a thread per connection: what is measured is the relay. Every service does what
the first byte of its user says. S: it sinks what follows, and answers when that is as much as a
flood. F: it floods. E: it echoes.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

SINK, FLOOD, ECHO = b"S", b"F", b"E"
#: Bytes of a flood.
FLOOD_BYTES: Final = 1 << 30
_BUFFER: Final = 1 << 20
_PIECE: Final = bytes(256 * 1024)
_HEADER: Final = struct.Struct("!BBHII")
_FRAME: Final = 32 * 1024
_WINDOW: Final = 256 * 1024
_DATA, _UPDATE, _PING = 0, 1, 2
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8


def run_service(protocol: str, port: int, told: Connection, flood: int) -> None:
    """Register, send the port (or, for `plain`, where we listen), and serve until killed."""
    if protocol == "plain":
        server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        told.send(server.getsockname()[1])
        while True:
            _thread(_serve, server.accept()[0], flood)
    sock = _connect(port)
    if protocol == "multiplex":
        sock.sendall(b"multiplex\n")
        told.send(int(_line(sock)))
        _Multiplexed(sock, flood).run()
    elif protocol == "event":
        sock.sendall(b"event\nnew\n")
        told.send(int(_line(sock)))
        while True:
            _thread(_answer, port, _line(sock), flood)
    else:
        sock.sendall(b"pool\nnew\n")
        users, known = int(_line(sock)), _line(sock)
        told.send(users)
        told.send(known)
        _thread(_member, port, known, flood)
        _thread(_member, port, known, flood)
        _serve(sock, flood)
        _member(port, known, flood)


def _thread(function: Callable[..., None], *args: object) -> None:
    threading.Thread(target=function, args=args, daemon=True).start()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _line(sock: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("the relay ended")
        line += byte
    return line[:-1].decode()


def _answer(port: int, known: str, flood: int) -> None:
    sock = _connect(port)
    sock.sendall(f"event\n{known}\n".encode())
    _serve(sock, flood)


def _member(port: int, known: str, flood: int) -> None:
    while True:
        sock = _connect(port)
        sock.sendall(f"pool\n{known}\n".encode())
        _serve(sock, flood)


def _serve(sock: socket.socket, flood: int) -> None:
    buffer = bytearray(_BUFFER)
    try:
        with sock:
            mode = sock.recv(1)
            if mode == FLOOD:
                for _ in range(flood // len(_PIECE)):
                    sock.sendall(_PIECE)
            left = flood
            while count := sock.recv_into(buffer):
                left -= count
                if mode == ECHO:
                    sock.sendall(memoryview(buffer)[:count])
                elif mode == SINK and not left:
                    sock.sendall(SINK)
    except OSError:
        pass  # the user left as it liked


class _Multiplexed:
    """A yamux peer that does what its users say."""

    def __init__(self, sock: socket.socket, flood: int) -> None:
        self._sock = sock
        self._flood = flood
        self._modes: dict[int, bytes] = {}
        self._credit: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._read: dict[int, int] = {}
        self._sunk: dict[int, int] = {}

    def run(self) -> None:
        held = bytearray()
        buffer = bytearray(_BUFFER)
        payload = stream = 0
        while count := self._sock.recv_into(buffer):
            view = memoryview(buffer)[:count]
            at = 0
            while at < count:
                if payload:
                    size = min(payload, count - at)
                    self._data(stream, view[at : at + size])
                    at += size
                    payload -= size
                    continue
                take = min(12 - len(held), count - at)
                held += view[at : at + take]
                at += take
                if len(held) == 12:
                    _, kind, flags, stream, length = _HEADER.unpack(held)
                    held.clear()
                    payload = length if kind == _DATA else 0
                    self._frame(kind, flags, stream, length)

    def _send(self, kind: int, flags: int, stream: int, length: int, data: bytes = b"") -> None:
        self._sock.sendall(_HEADER.pack(0, kind, flags, stream, length) + data)

    def _frame(self, kind: int, flags: int, stream: int, length: int) -> None:
        if kind == _PING:
            if flags & _SYN:
                self._send(_PING, _ACK, 0, length)
            return
        if flags & _SYN:
            self._credit[stream] = _WINDOW
            self._read[stream] = 0
            self._send(_UPDATE, _ACK, stream, 0)
        if kind == _UPDATE and stream in self._credit:
            self._credit[stream] += length
            self._pour(stream)
        if flags & (_FIN | _RST) and stream in self._credit:
            if flags & _FIN:
                self._send(_UPDATE, _FIN, stream, 0)
            for table in (self._modes, self._credit, self._left, self._read, self._sunk):
                table.pop(stream, None)

    def _data(self, stream: int, data: memoryview) -> None:
        if stream not in self._credit:
            return
        mode = self._modes.get(stream)
        size = len(data)
        if mode is None:
            mode = self._modes[stream] = bytes(data[:1])
            data = data[1:]
            if mode == FLOOD:
                self._left[stream] = self._flood
                self._pour(stream)
            elif mode == SINK:
                self._sunk[stream] = self._flood
        if mode == SINK:
            self._sunk[stream] -= len(data)
            if not self._sunk[stream]:
                self._send(_DATA, 0, stream, 1, SINK)
        if mode == ECHO and data:
            self._send(_DATA, 0, stream, len(data), bytes(data))
        self._read[stream] += size
        if self._read[stream] >= _WINDOW // 2:
            self._send(_UPDATE, 0, stream, self._read[stream])
            self._read[stream] = 0

    def _pour(self, stream: int) -> None:
        left = self._left.get(stream, 0)
        while left and self._credit[stream]:
            size = min(left, self._credit[stream], _FRAME)
            self._send(_DATA, 0, stream, size, _PIECE[:size])
            left -= size
            self._credit[stream] -= size
        if stream in self._left:
            self._left[stream] = left
