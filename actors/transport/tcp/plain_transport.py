"""A plain socket as an asyncio transport, for whatever runs over TLS elsewhere.

asyncio's own needs a task to be made, and closes a socket with unread bytes, which takes from the
peer what it has not read yet. This one begins in the callback that accepted the socket, may be
given bytes that were read before, and says goodbye as `tls_transport` does: what waits, FIN, and a
moment for the peer's own end.

Every callback comes from the loop; an exception in one ends the connection and is logged.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from itertools import islice
from typing import Any, Final

from loguru import logger

from actors.transport.tcp.pump.reset import close_with_reset

#: Bytes read from the socket at a time: what comes together leaves together.
READ: Final = 256 * 1024
#: Buffers handed to the kernel in one call.
VECTORS: Final = 64
#: Seconds an ended connection may take to say goodbye.
GOODBYE_SECONDS: Final = 1.0


class PlainTransport(asyncio.Transport):
    """A plain socket as an asyncio transport, for whatever runs over TLS elsewhere.

    Args:
        sock: connected, non-blocking; taken over.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._protocol: asyncio.Protocol | None = None
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._high, self._low = READ, READ // 4
        self._paused = False
        self._writing = False
        self._closing = False
        self._closed = False
        self._goodbye: asyncio.TimerHandle | None = None

    def start(self, protocol: asyncio.Protocol, early: bytes = b"") -> None:
        """Deliver to this protocol from now on.

        Args:
            early: what was read from the socket already.
        """
        self._protocol = protocol
        protocol.connection_made(self)
        if early and not self._closed:
            protocol.data_received(early)
        if not self._closed:
            self._loop.add_reader(self._sock, self._readable)

    # From the peer.

    def _readable(self) -> None:
        try:
            self._read()
        except Exception:  # noqa: BLE001  # hostile input costs its own connection only
            logger.exception("connection failed")
            self._end()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        protocol = self._protocol
        if self._closing or protocol is None:
            if not data:
                self._end()
            return  # said goodbye: what comes is not wanted any more
        if data:
            protocol.data_received(data)
            return
        protocol.eof_received()
        self._loop.remove_reader(self._sock)
        self.close()
        if not self._unsent:
            self._end()

    # To the peer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep until the kernel takes it; nothing once closed."""
        self.writelines((bytes(data),))

    def writelines(self, list_of_data: Any) -> None:
        """The same for several buffers, in one call of the kernel; they must not change."""
        if self._closing or self._closed:
            return
        for one in list_of_data:
            if one:
                self._unsent.append(one)
                self._unsent_bytes += len(one)
        if not self._writing:
            self._flush()
        if not self._paused and self._unsent_bytes > self._high:
            self._paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def _flush(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                if len(unsent) == 1:
                    sent = self._sock.send(unsent[0])
                else:
                    sent = self._sock.sendmsg(list(islice(unsent, VECTORS)))
                self._unsent_bytes -= sent
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.popleft())
                if sent:
                    unsent[0] = memoryview(unsent[0])[sent:]
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock, self._writable)
        except OSError as error:
            self._end(error)
            return
        else:
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._sock)
            if self._closing:
                self._shut()

    def _writable(self) -> None:
        try:
            self._flush()
            if self._paused and self._unsent_bytes <= self._low:
                self._paused = False
                if self._protocol is not None:
                    self._protocol.resume_writing()
        except Exception:  # noqa: BLE001  # costs its own connection only
            logger.exception("connection failed")
            self._end()

    def get_write_buffer_size(self) -> int:
        """Bytes the kernel has not taken."""
        return self._unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol's writing pauses, and when it resumes."""
        self._high = READ if high is None else high
        self._low = self._high // 4 if low is None else low

    # The end.

    def close(self) -> None:
        """Send what waits and FIN, then wait a little for the peer's own."""
        if self._closing or self._closed:
            return
        self._closing = True
        self._goodbye = self._loop.call_later(GOODBYE_SECONDS, self._end)
        if not self._unsent:
            self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(error)

    def abort(self) -> None:
        """Close at once, with RST; idempotent."""
        self._end(reset=True)

    def _end(self, error: Exception | None = None, *, reset: bool = False) -> None:
        if self._closed:
            return
        self._closed = self._closing = True
        self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
        if reset:
            close_with_reset(self._sock)
        else:
            self._sock.close()
        if self._goodbye is not None:
            self._goodbye.cancel()
            self._goodbye = None
        self._unsent.clear()
        self._unsent_bytes = 0
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            if error is not None:
                error.__traceback__ = None  # it would keep us alive
            self._loop.call_soon(protocol.connection_lost, error)

    def is_closing(self) -> bool:
        return self._closing or self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`socket`, `peername`."""
        if name == "socket":
            return self._sock
        if name == "peername":
            try:
                return self._sock.getpeername()
            except OSError:
                return default
        return default
