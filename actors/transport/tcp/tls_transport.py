"""TLS over a non-blocking socket, as an asyncio transport without asyncio's own TLS layer.

That layer keeps a buffer of 256 KiB per connection, from the accept on, and leaves a cycle behind
when a handshake fails. This one has nothing of TLS until the peer sends its first byte, reads into
a buffer that all connections of an endpoint share, keeps what the kernel does not take and nothing
else, and lets go of everything when it ends.

Every callback comes from the loop; an exception in one ends the connection and is logged.

Source: RFC 8446; https://docs.python.org/3/library/ssl.html#memory-bio-support.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from itertools import islice
from typing import Any, Final, Protocol

from loguru import logger

#: Bytes read from the socket at a time: what comes together leaves together.
READ: Final = 256 * 1024
#: Bytes encrypted before they are handed to the socket.
CHUNK: Final = 64 * 1024
#: Plaintext of one TLS record.
RECORD: Final = 16 * 1024
#: Buffers handed to the kernel in one call.
VECTORS: Final = 16
#: Seconds an ended connection may take to say goodbye.
GOODBYE_SECONDS: Final = 1.0


class HandshakeOwner(Protocol):
    """Who is told how a handshake goes; let go of when it is over."""

    def handshake_heard(self) -> None:
        """The first bytes came."""

    def handshake_done(self, transport: TlsTransport) -> None:
        """TLS is established; calls `start`, `close` or `abort`."""

    def handshake_failed(self, why: str) -> None:
        """It is over, and the socket closed."""


class TlsTransport(asyncio.Transport):
    """TLS over a non-blocking socket, as an asyncio transport without asyncio's own TLS layer.

    Args:
        sock: connected, non-blocking; taken over.
        context: ours.
        buffer: shared by the connections of an endpoint, at least `READ` bytes.
        server_name: clients: whom the certificate must name; None: we are the server.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        buffer: memoryview,
        server_name: str | None = None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._context = context
        self._buffer = buffer
        self._owner: HandshakeOwner | None = None
        self._server_name = server_name
        self._protocol: asyncio.Protocol | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        #: Records the kernel has not taken, and bytes that TLS has not.
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._plain: deque[bytes] = deque()
        self._high, self._low = CHUNK, CHUNK // 4
        self._paused = False
        self._writing = False
        self._reading = True
        self._closing = False
        self._closed = False
        self._goodbye: asyncio.TimerHandle | None = None

    # The handshake.

    def accept(self, owner: HandshakeOwner) -> None:
        """Servers: wait for the peer's first bytes."""
        self._owner = owner
        self._loop.add_reader(self._sock, self._readable)

    def connect(self, owner: HandshakeOwner) -> None:
        """Clients: say hello."""
        self.accept(owner)
        self._begin()
        self._shake_hands()

    def _begin(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=self._server_name is None,
            server_hostname=self._server_name,
        )

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_records()
            return
        except (ssl.SSLError, ValueError) as error:
            self._send_records()  # the alert
            self._end(label(error))
            return
        self._send_records()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.handshake_done(self)

    def start(self, protocol: asyncio.Protocol) -> None:
        """Deliver to this protocol from now on; what came with the handshake comes next."""
        self._protocol = protocol
        protocol.connection_made(self)

    # From the peer.

    def _readable(self) -> None:
        try:
            self._read()
        except Exception:  # noqa: BLE001  # hostile input costs its own connection only
            logger.exception("TLS connection failed")
            self._end("internal error")

    def _read(self) -> None:
        try:
            count = self._sock.recv_into(self._buffer[:READ])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(label(error), error)
            return
        if not count:
            self._end("eof")
            return
        if self._closing:
            return  # said goodbye: what comes is not wanted any more
        if self._tls is None:
            if self._owner is not None:
                self._owner.handshake_heard()
            self._begin()
        assert self._incoming is not None
        self._incoming.write(self._buffer[:count])
        if self._owner is not None:
            self._shake_hands()
        if self._protocol is not None:
            self._deliver(self._protocol)

    def _deliver(self, protocol: asyncio.Protocol) -> None:
        tls, received = self._tls, []
        assert tls is not None
        failed: ssl.SSLError | None = None
        ended = False
        try:
            while chunk := tls.read(RECORD):
                received.append(chunk)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            failed = error
        if received:
            protocol.data_received(received[0] if len(received) == 1 else b"".join(received))
        if self._closed:
            return
        if failed is not None:
            self._send_records()
            self._end(label(failed), failed)
        elif ended:
            protocol.eof_received()
            self.close()
        elif self._plain or (self._outgoing is not None and self._outgoing.pending):
            self._encrypt()

    def pause_reading(self) -> None:
        """Take nothing more of the peer: its kernel's buffer, and ours, fill."""
        if self._reading and not self._closing and not self._closed:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def resume_reading(self) -> None:
        """Go on."""
        if not self._reading:
            self._reading = True
            if not self._closed:
                self._loop.add_reader(self._sock, self._readable)

    def is_reading(self) -> bool:
        return self._reading and not self._closing and not self._closed

    # To the peer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep until the kernel takes it; nothing once closed."""
        if self._closing or self._closed:
            return
        self._plain.append(bytes(data))
        self._encrypt()
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def _encrypt(self) -> None:
        tls, outgoing = self._tls, self._outgoing
        assert tls is not None
        assert outgoing is not None
        view = memoryview(b"")
        try:
            while self._plain:
                view = memoryview(self._plain[0])
                while view:
                    view = view[tls.write(view[:CHUNK]) :]
                    if outgoing.pending >= CHUNK:
                        self._collect(outgoing)
                self._plain.popleft()
        except ssl.SSLWantReadError:
            self._plain[0] = bytes(view)
        except ssl.SSLError as error:
            self._end(label(error), error)
            return
        self._send_records()

    def _collect(self, outgoing: ssl.MemoryBIO) -> None:
        records = outgoing.read()
        self._unsent.append(records)
        self._unsent_bytes += len(records)

    def _send_records(self) -> None:
        outgoing = self._outgoing
        if outgoing is not None and outgoing.pending:
            self._collect(outgoing)
        if not self._writing:
            self._flush()

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
                    unsent[0] = unsent[0][sent:]
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock, self._writable)
        except OSError as error:
            self._end(label(error), error)
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
            if self._paused and self.get_write_buffer_size() <= self._low:
                self._paused = False
                if self._protocol is not None:
                    self._protocol.resume_writing()
        except Exception:  # noqa: BLE001  # costs its own connection only
            logger.exception("TLS connection failed")
            self._end("internal error")

    def get_write_buffer_size(self) -> int:
        """Bytes the kernel has not taken."""
        return self._unsent_bytes + sum(map(len, self._plain))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol's writing pauses, and when it resumes."""
        self._high = CHUNK if high is None else high
        self._low = self._high // 4 if low is None else low

    # The end.

    def close(self) -> None:
        """Send what waits and close_notify, then wait a little for the peer's end: closing a
        socket with unread bytes would take from the peer what it has not read yet."""
        if self._closing or self._closed:
            return
        if self._tls is None or self._owner is not None:
            self.abort()
            return
        self.resume_reading()  # the peer's end is waited for
        self._closing = True
        self._goodbye = self._loop.call_later(GOODBYE_SECONDS, self._end, "eof")
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it was written, or the peer's own is not here yet
        self._send_records()

    def _shut(self) -> None:
        self._tls = self._incoming = self._outgoing = None
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(label(error), error)

    def abort(self) -> None:
        """Close at once; idempotent."""
        self._end("aborted")

    def _end(self, why: str, error: Exception | None = None) -> None:
        if self._closed:
            return
        self._closed = self._closing = True
        self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
        self._sock.close()
        if self._goodbye is not None:
            self._goodbye.cancel()
            self._goodbye = None
        self._tls = self._incoming = self._outgoing = None
        self._unsent.clear()
        self._plain.clear()
        self._unsent_bytes = 0
        owner, self._owner = self._owner, None
        protocol, self._protocol = self._protocol, None
        if owner is not None:
            owner.handshake_failed(why)
        if protocol is not None:
            if error is not None:
                error.__traceback__ = None  # it would keep us alive
            self._loop.call_soon(protocol.connection_lost, error)

    def is_closing(self) -> bool:
        return self._closing or self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`socket`, `peername`, `ssl_object`."""
        if name == "ssl_object":
            return default if self._tls is None else self._tls
        if name == "socket":
            return self._sock
        if name == "peername":
            try:
                return self._sock.getpeername()
            except OSError:
                return default
        return default


#: OpenSSL's numbers (X509_V_ERR_*) in the words of `certificate_path`.
_VERIFY: Final = {
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_ca",
    19: "unknown_ca",
    20: "unknown_ca",
    21: "unknown_ca",
    26: "wrong_purpose",
    62: "wrong_name",
    64: "wrong_name",
}


def label(error: Exception) -> str:
    """A short name of why TLS or the socket failed; the names are few."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, "unverified")
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls").lower()
    return type(error).__name__.removesuffix("Error").lower()
