"""A QUIC endpoint: one UDP socket, many connections, one timer.

Per wake-up: drain the socket (at most `BATCH` datagrams), give every datagram to its connection,
deliver the events of every touched connection, then transmit once per touched connection. There is
no task, future or queue per packet.

The endpoint outlives its socket (docs/decisions/0013): `attach` and `detach` are the life of the
socket, owned by a listener actor; connections are owned by whoever got them and go on when a
socket is attached again.

A connection reaches `on_connection` only after the peer's certificate was verified here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from loguru import logger
from sortedcontainers import SortedList

from actors.transport.connection import Connection
from actors.transport.quic.engine import Address, Established
from actors.transport.quic.engines import select
from actors.transport.quic.quic_connection import QuicConnectionHandle, plain_address
from actors.transport.quic.settings import QuicSettings
from actors.transport.stream import CloseReason
from actors.transport.tls import CLIENT, SERVER, IdentityRejected, TlsIdentity, verify_peer

#: Datagrams taken per wake-up before the event loop gets a turn.
BATCH = 64
#: Kernel buffers asked for; the kernel clamps.
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
#: Datagrams held while the socket does not take them; beyond it they are lost like on any wire.
MAX_UNSENT = 1024
CID_LENGTH = 8
_VERSION_1 = 1
_SMALLEST_INITIAL = 1200
#: TLS alerts (RFC 8446 section 6) by rejection.
_ALERTS = {
    "absent": 116,
    "unknown_ca": 48,
    "expired": 45,
    "not_yet_valid": 45,
    "wrong_purpose": 43,
    "no_alpn": 120,
}
_BAD_CERTIFICATE = 42


class DialFailed(Exception):
    """An outgoing connection was not established; `reason` says why."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class EndpointStatistics(NamedTuple):
    """Counters of one endpoint."""

    connections: int  #: live, verified connections
    pending: int  #: handshakes in progress
    datagrams_in: int  #: received
    datagrams_out: int  #: sent
    counters: dict[str, int]  #: handshakes by outcome, drops by reason


def _accept_nothing(connection: Connection) -> None:
    connection.close(0, "")


class QuicEndpoint:
    """See the module docstring.

    Args:
        identity: what we present and whom we trust.
        settings: limits and timers.
        alpn: protocols offered and accepted.
        on_connection: gets every verified incoming connection; None: outgoing only.
    """

    def __init__(
        self,
        *,
        identity: TlsIdentity,
        settings: QuicSettings = QuicSettings(),  # noqa: B008  # frozen value
        alpn: tuple[str, ...] = ("orp/1",),
        on_connection: Callable[[Connection], object] | None = None,
    ) -> None:
        self.settings = settings
        self.on_connection = on_connection
        self.accepting = on_connection is not None
        self.counters: Counter[str] = Counter()
        #: The engine of new connections, and why it is this one.
        self.engine = select(settings.engine)
        self._identity = identity
        self._alpn = alpn
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._address: tuple[str, int] | None = None
        self._by_cid: dict[bytes, QuicConnectionHandle] = {}
        self._connections: set[QuicConnectionHandle] = set()
        self._pending: set[QuicConnectionHandle] = set()
        self._pending_by_source: Counter[str] = Counter()
        self._dirty: dict[QuicConnectionHandle, None] = {}
        self._flush_scheduled = False
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._writing = False
        self._timers: SortedList[tuple[float, int, QuicConnectionHandle]] = SortedList(
            key=lambda entry: entry[:2]
        )
        self._timer_handle: asyncio.TimerHandle | None = None
        self._armed_at = 0.0
        self._retry = QuicRetryTokenHandler()
        self._buffer_size = 65536
        self._datagrams_in = self._datagrams_out = 0

    # The socket.

    def attach(self, address: tuple[str, int]) -> tuple[str, int]:
        """Bind a UDP socket and begin to receive. Returns the bound address.

        Port 0 takes the port of the previous attachment, or a free one.

        Raises:
            OSError: the address cannot be bound.
        """
        self.detach()
        host, port = address
        if port == 0 and self._address is not None:
            port = self._address[1]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        name = sock.getsockname()
        self._address = (name[0], name[1])
        self._loop.add_reader(sock, self._readable)
        for connection in self._connections:
            self.touch(connection)
        return self._address

    def detach(self) -> None:
        """Close the socket; verified connections live on, handshakes in progress end."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        assert self._loop is not None
        self._loop.remove_reader(sock)
        if self._writing:
            self._loop.remove_writer(sock)
            self._writing = False
        self._unsent.clear()
        sock.close()
        for connection in list(self._pending):
            self.counters["handshake_detached"] += 1
            connection.abort()

    @property
    def address(self) -> tuple[str, int] | None:
        """The bound address, also while detached; None before the first `attach`."""
        return self._address

    @property
    def attached(self) -> bool:
        """True while a socket is bound."""
        return self._socket is not None

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this identity; live connections are not touched."""
        self._identity = identity

    def abort(self) -> None:
        """Close every connection and the socket; idempotent."""
        for connection in list(self._connections | self._pending):
            connection.abort()
        self._flush()
        self.detach()
        self._by_cid.clear()
        self._timers.clear()
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None

    def statistics(self) -> EndpointStatistics:
        """The counters as one tuple."""
        return EndpointStatistics(
            len(self._connections),
            len(self._pending),
            self._datagrams_in,
            self._datagrams_out,
            dict(self.counters),
        )

    # Outgoing connections.

    async def connect(
        self, address: tuple[str, int], *, server_name: str = "localhost", timeout: float = 5.0
    ) -> Connection:
        """Dial, and verify the server.

        Raises:
            DialFailed: refused, not verified, or not done within `timeout` seconds.
            OSError: no socket could be bound, or the name does not resolve.
        """
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM)
        family, _, _, _, target = infos[0]
        if self._socket is None:
            self.attach(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        engine = self.engine.make(
            self.settings, self._identity, self._alpn, client=True, server_name=server_name
        )
        connection = QuicConnectionHandle(self, engine, self.settings, client=True)
        done: asyncio.Future[Connection] = loop.create_future()

        def established(event: Established) -> None:
            if self._verify(connection, event, SERVER, server_name) and not done.done():
                self._promote(connection)
                done.set_result(connection)

        def failed(reason: CloseReason) -> None:
            if not done.done():
                done.set_exception(DialFailed(reason))

        connection.on_established = established
        connection.on_failed = failed
        self._admit(connection, "")
        engine.connect((str(target[0]), int(target[1])), time.monotonic())
        self.touch(connection)
        try:
            async with asyncio.timeout(timeout):
                result = await done
        except TimeoutError:
            connection.abort()
            raise DialFailed(CloseReason("handshake", 0, False, "timed out")) from None
        except BaseException:
            connection.abort()
            raise
        connection.on_failed = None
        return result

    # Receiving.

    def _readable(self) -> None:
        sock = self._socket
        if sock is None:
            return
        now = time.monotonic()
        touched: dict[QuicConnectionHandle, None] = {}
        for _ in range(BATCH):
            try:
                data, address = sock.recvfrom(self._buffer_size)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # ICMP errors of earlier sends surface here; the datagram socket stays usable.
                self.counters["receive_error"] += 1
                continue
            self._datagrams_in += 1
            connection = self._route(data, address, now)
            if connection is None:
                continue
            connection.last_heard = now
            connection.datagrams_in += 1
            connection.octets_in += len(data)
            try:
                connection.engine.receive(data, address, now)
            except Exception:  # noqa: BLE001  # hostile input must cost its own connection only
                self._broken(connection)
                continue
            touched[connection] = None
        for connection in touched:
            self._deliver(connection)
        self._dirty.update(touched)
        self._flush()

    def _deliver(self, connection: QuicConnectionHandle) -> None:
        try:
            connection.process_events()
        except Exception:  # noqa: BLE001  # an unguarded callback ends its connection only
            self._broken(connection)

    def _broken(self, connection: QuicConnectionHandle) -> None:
        self.counters["connection_failed"] += 1
        logger.exception("connection from {} failed", connection.remote_address)
        connection.refuse(_BAD_CERTIFICATE, "internal error")

    def _route(self, data: bytes, address: Address, now: float) -> QuicConnectionHandle | None:
        """The connection a datagram belongs to; makes one for an acceptable Initial."""
        if not data:
            self.counters["drop_empty"] += 1
            return None
        if not data[0] & 0x80:
            connection = self._by_cid.get(data[1 : 1 + CID_LENGTH])
            if connection is None:
                self.counters["drop_unknown_cid"] += 1
            return connection
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_LENGTH)
        except ValueError:
            self.counters["drop_malformed"] += 1
            return None
        connection = self._by_cid.get(header.destination_cid)
        if connection is not None:
            return connection
        return self._first_packet(data, header, address, now)

    def _first_packet(
        self, data: bytes, header: QuicHeader, address: Address, now: float
    ) -> QuicConnectionHandle | None:
        if not self.accepting:
            self.counters["drop_not_accepting"] += 1
            return None
        if len(data) < _SMALLEST_INITIAL:
            self.counters["drop_short_initial"] += 1
            return None
        if header.version != _VERSION_1:
            self.counters["version_negotiation"] += 1
            answer = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=[_VERSION_1],
            )
            self._send(answer, address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            self.counters["drop_unknown_cid"] += 1
            return None
        source = plain_address(address)[0]
        if len(self._pending) >= self.settings.max_pending:
            self.counters["drop_pending_limit"] += 1
            return None
        if self._pending_by_source[source] >= self.settings.max_pending_per_source:
            self.counters["drop_source_limit"] += 1
            return None
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=(address[0], address[1]),
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now,
                )
                retried = header.destination_cid
            except ValueError:
                self.counters["drop_bad_token"] += 1
                return None
        elif len(self._pending) >= self.settings.retry_above:
            self._send_retry(header, address, now)
            return None
        return self._accept(original, retried, source)

    def _send_retry(self, header: QuicHeader, address: Address, now: float) -> None:
        self.counters["retry"] += 1
        # Any id does: the client only has to come back with it and the token.
        source_cid = self._retry._aead.generate_key(128)[:CID_LENGTH]
        token = self._retry.create_token(
            address=(address[0], address[1]),
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        answer = encode_quic_retry(
            version=_VERSION_1,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._send(answer, address)

    def _accept(self, original: bytes, retried: bytes | None, source: str) -> QuicConnectionHandle:
        engine = self.engine.make(
            self.settings,
            self._identity,
            self._alpn,
            client=False,
            original_destination_cid=original,
            retry_source_cid=retried,
        )
        connection = QuicConnectionHandle(self, engine, self.settings, client=False)

        def established(event: Established) -> None:
            if self._verify(connection, event, CLIENT, None):
                self._promote(connection)
                self.counters["handshake_ok"] += 1
                (self.on_connection or _accept_nothing)(connection)

        def failed(reason: CloseReason) -> None:
            if reason.kind != "handshake":
                self.counters[f"handshake_failed_{reason.kind}"] += 1

        connection.on_established = established
        connection.on_failed = failed
        self._admit(connection, source)
        self.add_cid(connection, retried or original)
        return connection

    def _admit(self, connection: QuicConnectionHandle, source: str) -> None:
        connection.source = source
        self._pending.add(connection)
        self._pending_by_source[source] += 1
        self.add_cid(connection, connection.engine.source_cid)

    def _promote(self, connection: QuicConnectionHandle) -> None:
        self._leave_pending(connection)
        connection.established = True
        connection.on_failed = None
        self._connections.add(connection)

    def _leave_pending(self, connection: QuicConnectionHandle) -> None:
        if connection in self._pending:
            self._pending.discard(connection)
            self._pending_by_source[connection.source] -= 1
            if self._pending_by_source[connection.source] <= 0:
                del self._pending_by_source[connection.source]

    def _verify(
        self,
        connection: QuicConnectionHandle,
        event: Established,
        purpose: object,
        server_name: str | None,
    ) -> bool:
        """Check the peer's chain and protocol; refuse with the matching TLS alert."""
        slug = ""
        if event.alpn not in self._alpn:
            slug = "no_alpn"
        else:
            try:
                connection.peer = verify_peer(
                    event.chain,
                    self._identity.authorities,
                    purpose=purpose,  # type: ignore[arg-type]  # one of CLIENT, SERVER
                    server_name=server_name,
                )
            except IdentityRejected as rejection:
                slug = rejection.slug
        if slug:
            self.counters[f"refused_{slug}"] += 1
            connection.refuse(_ALERTS.get(slug, _BAD_CERTIFICATE), slug)
            return False
        connection.alpn = event.alpn
        return True

    # Connection ids and ends, called by connections.

    def add_cid(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route this id to the connection."""
        self._by_cid[cid] = connection
        connection.cids.add(cid)

    def remove_cid(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route it no more."""
        if self._by_cid.get(cid) is connection:
            del self._by_cid[cid]
        connection.cids.discard(cid)

    def ended(self, connection: QuicConnectionHandle) -> None:
        """It is over for its users; its ids stay until the closing period ends."""
        self._leave_pending(connection)
        self._connections.discard(connection)

    def _forget(self, connection: QuicConnectionHandle) -> None:
        for cid in list(connection.cids):
            self.remove_cid(connection, cid)
        self._leave_pending(connection)
        self._connections.discard(connection)
        self._dirty.pop(connection, None)

    # Sending.

    def touch(self, connection: QuicConnectionHandle) -> None:
        """It has something to send: transmit at the end of this loop iteration."""
        self._dirty[connection] = None
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def flush_now(self, connection: QuicConnectionHandle) -> None:
        """Transmit for one connection at once: its last words."""
        if self._loop is not None:
            self._transmit(connection, time.monotonic())

    def _flush(self) -> None:
        self._flush_scheduled = False
        now = time.monotonic()
        # Deliveries during the flush may touch more connections; a few rounds catch them all.
        for _ in range(4):
            if not self._dirty:
                return
            dirty, self._dirty = self._dirty, {}
            for connection in dirty:
                self._transmit(connection, now)
        if self._dirty:
            for connection in list(self._dirty):
                self.touch(connection)

    def _transmit(self, connection: QuicConnectionHandle, now: float) -> None:
        try:
            datagrams = connection.engine.transmit(now)
        except Exception:  # noqa: BLE001  # an engine fault ends its connection only
            self._broken(connection)
            self._forget(connection)
            return
        for data, address in datagrams:
            connection.datagrams_out += 1
            connection.octets_out += len(data)
            self._send(data, address)
        self._deliver(connection)
        if connection.engine.terminated:
            self._forget(connection)
        else:
            self._schedule(connection, now)

    def _send(self, data: bytes, address: Address) -> None:
        sock = self._socket
        if sock is None:
            self.counters["drop_no_socket"] += 1
            return
        if self._unsent:
            self._hold(data, address)
            return
        try:
            sock.sendto(data, address)
            self._datagrams_out += 1
        except (BlockingIOError, InterruptedError):
            self._hold(data, address)
        except OSError:
            self.counters["send_error"] += 1

    def _hold(self, data: bytes, address: Address) -> None:
        if len(self._unsent) >= MAX_UNSENT:
            self.counters["drop_send_queue"] += 1
            return
        self._unsent.append((data, address))
        if not self._writing and self._loop is not None and self._socket is not None:
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        sock = self._socket
        if sock is None or self._loop is None:
            return
        while self._unsent:
            data, address = self._unsent[0]
            try:
                sock.sendto(data, address)
                self._datagrams_out += 1
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.counters["send_error"] += 1
            self._unsent.popleft()
        self._loop.remove_writer(sock)
        self._writing = False

    # The timer.

    def _schedule(self, connection: QuicConnectionHandle, now: float) -> None:
        """Make sure the connection is looked at in time; an earlier look is kept."""
        when = self._wanted(connection)
        if connection.timer_at and connection.timer_at <= when:
            return
        if connection.timer_at:
            self._timers.discard((connection.timer_at, id(connection), connection))
        connection.timer_at = when
        self._timers.add((when, id(connection), connection))
        self._arm(now)

    def _wanted(self, connection: QuicConnectionHandle) -> float:
        when = connection.engine.next_timer()
        candidates = [] if when is None else [when]
        if connection.closed is None:
            if not connection.established:
                candidates.append(connection.started_at + self.settings.handshake_timeout)
            elif self.settings.keepalive:
                quiet = max(connection.last_heard, connection.last_ping)
                candidates.append(quiet + self.settings.keepalive)
        return min(candidates, default=time.monotonic() + 1.0)

    def _arm(self, now: float) -> None:
        if not self._timers or self._loop is None:
            return
        first = self._timers[0][0]
        if self._timer_handle is not None:
            if self._armed_at <= first:
                return
            self._timer_handle.cancel()
        self._armed_at = first
        self._timer_handle = self._loop.call_later(max(0.0, first - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer_handle = None
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now + 0.0005:
            _, _, connection = self._timers.pop(0)
            connection.timer_at = 0.0
            self._due(connection, now)
        self._flush()
        self._arm(time.monotonic())

    def _due(self, connection: QuicConnectionHandle, now: float) -> None:
        engine = connection.engine
        if connection.closed is None:
            if not connection.established:
                if now >= connection.started_at + self.settings.handshake_timeout:
                    self.counters["handshake_timeout"] += 1
                    connection.abort()
            elif self.settings.keepalive:
                quiet = max(connection.last_heard, connection.last_ping)
                if now >= quiet + self.settings.keepalive:
                    connection.last_ping = now
                    engine.ping()
        when = engine.next_timer()
        if when is not None and when <= now + 0.0005:
            try:
                engine.handle_timer(max(now, when))
            except Exception:  # noqa: BLE001  # an engine fault ends its connection only
                self._broken(connection)
        self._deliver(connection)
        if engine.terminated:
            self._forget(connection)
        else:
            self._dirty[connection] = None
