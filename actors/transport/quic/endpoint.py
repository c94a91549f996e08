"""A QUIC endpoint: few UDP sockets, many connections, one timer.

Per wake-up: drain the socket, give every run of datagrams to its connection, deliver the events of
every touched connection, then transmit once per touched connection, a run of equal datagrams in
one system call. There is no task, future or queue per packet.

The endpoint outlives its sockets (docs/decisions/0013): `attach` and `detach` are the life of the
listening socket, owned by a listener actor; connections are owned by whoever got them and go on
when a socket is attached again. Outgoing connections use one more socket per address family.

A connection reaches `on_connection` only after the peer's certificate was verified here, as far as
the door's `PeerPolicy` asks for one. What belongs to no connection is judged in `admission`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from loguru import logger

from actors.runtime import Guard, unguarded
from actors.transport.addresses import Target, address_text, host_and_port
from actors.transport.connection import Connection, ConnectionStatistics, DialFailed
from actors.transport.dialling import first_to_connect, resolve
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.admission import Accepted, Admission, plain_host
from actors.transport.quic.datagram_size import NO_VIABLE_PATH
from actors.transport.quic.endpoint_sockets import EndpointSockets
from actors.transport.quic.engine import Address, Established
from actors.transport.quic.engines import select
from actors.transport.quic.peer_check import BAD_CERTIFICATE, PeerRefused, check_peer
from actors.transport.quic.pmtu_black_holes import PmtuBlackHoles
from actors.transport.quic.quic_connection import QuicConnectionHandle
from actors.transport.quic.routes import Routes
from actors.transport.quic.settings import QuicSettings
from actors.transport.quic.shedding import Shedding
from actors.transport.quic.stateless_reset import ResetKey
from actors.transport.quic.transmit_schedule import TransmitSchedule
from actors.transport.refusal_log import RefusalLog, changed_its_mind, turned_away
from actors.transport.stream import CloseReason
from actors.transport.tls import TlsIdentity
from actors.transport.udp import AskedAddress, UdpSocket, UdpStatistics

#: Connections whose paths are shown together: looking at them takes time from all.
PATHS_SHOWN = 1000


class EndpointStatistics(NamedTuple):
    """Counters of one endpoint."""

    connections: int  #: live, verified connections
    pending: int  #: handshakes in progress
    datagrams_in: int  #: received, since the endpoint was made
    datagrams_out: int  #: sent, since the endpoint was made
    counters: dict[str, int]  #: handshakes by outcome, drops by reason
    engines: dict[str, int]  #: live, verified connections by the engine they have
    udp: UdpStatistics  #: of the present listening socket


def _accept_nothing(connection: Connection) -> None:
    connection.close(0, "")


class QuicEndpoint:
    """A QUIC endpoint: few UDP sockets, many connections, one timer.

    Args:
        identity: what we present and whom we trust.
        alpn: protocols offered and accepted.
        settings: limits and timers.
        peer_policy: who shows a certificate.
        on_connection: gets every verified incoming connection; None: outgoing only.
        make_socket: makes the datagram sockets; another one may change what travels.
        counters: where handshakes by outcome and drops by reason are counted.
        until_welcome: a connection counts as pending until `Connection.welcome`, not only until
            its peer is verified.
    """

    def __init__(
        self,
        *,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        settings: QuicSettings = QuicSettings(),  # noqa: B008  # frozen value
        peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
        on_connection: Callable[[Connection], object] | None = None,
        make_socket: Callable[..., UdpSocket] = UdpSocket,
        counters: Counter[str] | None = None,
        until_welcome: bool = False,
    ) -> None:
        self._until_welcome = until_welcome
        self.settings = settings
        #: Application code that handshakes in progress end with when the socket is closed.
        self.farewell = 0
        self.on_connection = on_connection
        self.counters: Counter[str] = Counter() if counters is None else counters
        #: The engine of new connections, and why it is this one.
        self.engine = select(settings.engine)
        self._identity = identity
        self._reset_key = ResetKey.derived(identity.key)
        self._admission = Admission(settings, self.counters, self._reset_key)
        self._admission.accepting = on_connection is not None
        self._alpn = alpn
        self._policy = peer_policy
        self._sockets = EndpointSockets(
            make_socket, self._received, lambda: self._schedule.flush(), self.counters
        )
        self._schedule = TransmitSchedule(self._sockets, self._broken, self._forget, self.counters)
        #: It has something to send: transmit at the end of this loop iteration.
        self.schedule_transmit = self._schedule.schedule
        #: Transmit for one connection at once: its last words.
        self.transmit_now = self._schedule.transmit_now
        self._routes = Routes()
        self._connections: set[QuicConnectionHandle] = set()
        self._engines: Counter[str] = Counter()
        self._outgoing: set[QuicConnectionHandle] = set()
        self._pending: set[QuicConnectionHandle] = set()
        self._shedding = Shedding(self._admission.flood, self.counters)
        self._narrow = PmtuBlackHoles()
        self._refusals = RefusalLog("QUIC")
        self._aborted = False
        self._past_lost = 0

    @property
    def accepting(self) -> bool:
        """False: new incoming handshakes are dropped."""
        return self._admission.accepting

    @accepting.setter
    def accepting(self, value: bool) -> None:
        self._admission.accepting = value

    # The sockets.

    def attach(
        self, address: tuple[str, int], guard: Guard = unguarded, *, only_ipv6: bool = False
    ) -> tuple[str, int]:
        """Bind the listening socket and begin to receive. Returns the bound address.

        Port 0 takes the port of the previous attachment, or a free one.

        Args:
            address: IP literal and port; "::" takes IPv4 as well, unless `only_ipv6`.
            guard: wraps the socket's callbacks: an unusable socket is its owner's failure.

        Raises:
            OSError: the address cannot be bound.
        """
        self.detach()
        self._schedule.start()
        opened = self._sockets.listen(address, guard, only_ipv6=only_ipv6)
        bound = host_and_port(opened.address)
        self._shedding.attach(opened)
        self._refusals.name = f"QUIC {address_text(*bound)}"
        for connection in self._connections:
            self.schedule_transmit(connection)
        return bound

    def detach(self) -> None:
        """Close the sockets; verified connections live on, handshakes in progress end."""
        for connection in list(self._pending):
            self.counters["handshake_detached"] += 1
            connection.abort_code = self.farewell
            if not connection.client:
                connection.on_failed = None  # it is not turned away: we leave
            self._dismiss(connection)  # its last words leave before the socket closes
        self._sockets.close()
        self._shedding.detach()

    @property
    def address(self) -> tuple[str, int] | None:
        """The bound address, also while detached; None before the first `attach`."""
        return self._sockets.address

    @property
    def attached(self) -> bool:
        """True while a listening socket is bound."""
        return self._sockets.listening is not None

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this identity; live connections are not touched."""
        self._identity = identity

    def abort(self) -> None:
        """Close every connection and socket; idempotent."""
        self._aborted = True
        for connection in list(self._connections | self._pending):
            connection.abort()
        self._schedule.flush()
        self.detach()
        self._routes.clear()
        self._schedule.abort()
        self._shedding.abort()

    def statistics(self) -> EndpointStatistics:
        """The counters as one tuple."""
        return EndpointStatistics(
            len(self._connections),
            len(self._pending) + self._waiting(),
            *self._sockets.datagrams(),
            dict(self.counters),
            dict(self._engines),
            self._sockets.statistics(),
        )

    def _waiting(self) -> int:
        """Verified connections that are not welcome yet."""
        handshakes = sum(1 for one in self._pending if one.at_gate is not None)
        return len(self._admission.gate) - handshakes

    def paths(self) -> list[ConnectionStatistics]:
        """The counters of live connections, of at most PATHS_SHOWN of them."""
        return [one.statistics() for one in islice(self._connections, PATHS_SHOWN)]

    @property
    def packets_lost(self) -> int:
        """Packets declared lost, of all connections there ever were."""
        return self._past_lost + sum(max(0, c.engine.path.lost) for c in self._connections)

    # Outgoing connections.

    async def connect(
        self, address: tuple[str, int], *, server_name: str = "localhost", timeout: float = 5.0
    ) -> Connection:
        """Dial, and verify the server. A name is tried by all its addresses.

        Args:
            timeout: seconds for all of it, the lookup of a name included.

        Raises:
            DialFailed: refused, not verified, or not done within `timeout` seconds.
            OSError: no socket could be bound, or the name does not resolve.
        """
        text = "lookup timed out"
        try:
            async with asyncio.timeout(timeout):
                targets = await resolve(*address)
                text = "timed out"
                return await first_to_connect(
                    targets,
                    lambda target: self._dial(target, server_name),
                    lambda late: late.close(0, ""),
                )
        except TimeoutError:
            pass  # raised below: as its context this one would keep all of it alive
        raise DialFailed(CloseReason("handshake", 0, False, text))

    async def _dial(self, target: Target, server_name: str) -> Connection:
        """As `connect`, for one address; cancelled when its time is over."""
        if self._aborted:
            raise OSError("the endpoint is closed")  # its owner ended: nobody would close a socket
        self._schedule.start()
        self._sockets.require(target.family)
        engine = self.engine.make(
            self._settings_for(target.address[0]),
            self._identity,
            self._alpn,
            client=True,
            peer_policy=self._policy,
            server_name=server_name,
        )
        connection = QuicConnectionHandle(self, engine, self.settings, client=True)
        # A result, never an exception: that would hold this frame, and the frame it.
        done: asyncio.Future[CloseReason | None] = asyncio.get_running_loop().create_future()

        def established(event: Established) -> None:
            if self._verify(connection, event, server_name) and not done.done():
                self._promote(connection)
                done.set_result(None)

        def failed(reason: CloseReason) -> None:
            if not done.done():
                done.set_result(reason)

        connection.on_established = established
        connection.on_failed = failed
        self._admit(connection)
        engine.connect(target.address, time.monotonic())
        self.schedule_transmit(connection)
        try:
            reason = await done
        except BaseException:
            connection.abort()
            raise
        # Not while the other is handled: as its context that would keep all this alive.
        if reason is not None:
            raise DialFailed(reason)
        return connection

    def punch(self, address: tuple[str, int]) -> None:
        """One byte to an address, from the listening socket: opens the way back through a NAT."""
        self._sockets.punch(address)

    # Receiving.

    def _received(self, buffer: memoryview, size: int, address: Address) -> None:
        """A run of datagrams of one sender, `size` bytes each but the last."""
        data = bytes(buffer)
        connection = self._routes.find(buffer)
        if connection is not None and (len(data) <= size or self._routes.one_target(data, size)):
            self._feed(connection, data, size, address)
            return
        for start in range(0, len(data) or 1, size):
            datagram = data[start : start + size]
            connection = self._routes.find(datagram)
            if connection is None:
                connection = self._stranger(datagram, address)
            if connection is not None:
                self._feed(connection, datagram, size, address)

    def _feed(
        self, connection: QuicConnectionHandle, data: bytes, size: int, address: Address
    ) -> None:
        now = time.monotonic()
        connection.last_heard = now
        if connection.at_gate is not None and connection.datagrams_in:
            connection.at_gate.heard()
        count = -(-len(data) // size)
        connection.datagrams_in += count
        connection.octets_in += len(data)
        if connection.cost.overdrawn:
            return  # an engine that is closing looks at what comes as well
        # CPU time: on a busy machine the time of the clock says nothing about the peer.
        began = time.thread_time()
        try:
            if len(data) > size:
                connection.engine.receive_segments(data, size, address, now)
            else:
                connection.engine.receive(data, address, now)
        except Exception:  # noqa: BLE001  # hostile input must cost its own connection only
            self._broken(connection)
        if not connection.cost.spend(time.thread_time() - began, count, len(data)):
            self.counters["closed_costly"] += connection.closed is None
            connection.expel("too costly")
        self._schedule.mark(connection)

    def _stranger(self, datagram: bytes, address: Address) -> QuicConnectionHandle | None:
        """A datagram without a connection; makes one for an acceptable Initial."""
        now = time.monotonic()
        if self._outgoing and datagram and datagram[0] < 0x80:
            for connection in self._outgoing:
                if connection.engine.peer_address == address and (
                    connection.engine.take_stateless_reset(datagram, address, now)
                ):
                    self._schedule.mark(connection)
                    return None
        verdict = self._admission.judge(datagram, address, now)
        self._shedding.look(now)
        if isinstance(verdict, Accepted):
            return self._accept(verdict, address)
        if verdict is not None:
            self._sockets.send([(verdict, address)])
        return None

    def _accept(self, accepted: Accepted, address: Address) -> QuicConnectionHandle:
        engine = self.engine.make(
            self._settings_for(plain_host(address)),
            self._identity,
            self._alpn,
            client=False,
            peer_policy=self._policy,
            original_destination_cid=accepted.original_cid,
            retry_source_cid=accepted.retry_cid,
            reset_token=self._reset_key.token,
        )
        connection = QuicConnectionHandle(self, engine, self.settings, client=False)

        def established(event: Established) -> None:
            if self._verify(connection, event):
                self._promote(connection)
                self.counters["handshake_ok"] += 1
                (self.on_connection or _accept_nothing)(connection)

        def failed(reason: CloseReason) -> None:
            if reason.kind != "handshake":
                self.counters[f"handshake_failed_{reason.kind}"] += 1
                if not changed_its_mind(reason):
                    self._refusals.note(turned_away(reason), plain_host(address))

        connection.on_established = established
        connection.on_failed = failed
        connection.asked = address if isinstance(address, AskedAddress) else None
        place = self._admission.gate.enter(accepted.source, time.monotonic())
        if place is not None:
            place.give_way = lambda: self._dismiss(connection)
        connection.at_gate = place
        self._admit(connection)
        self.add_cid(connection, accepted.retry_cid or accepted.original_cid)
        return connection

    def _settings_for(self, host: str) -> QuicSettings:
        """Without probes for hosts whose path swallowed large datagrams lately."""
        narrow = self._narrow.has(host, time.monotonic())
        return replace(self.settings, max_probed=0) if narrow else self.settings

    def _admit(self, connection: QuicConnectionHandle) -> None:
        self._pending.add(connection)
        self.add_cid(connection, connection.engine.source_cid)

    def _dismiss(self, connection: QuicConnectionHandle) -> None:
        """End a handshake in progress, and keep nothing of it."""
        connection.abort()
        self._forget(connection)

    def _promote(self, connection: QuicConnectionHandle) -> None:
        self._pending.discard(connection)
        connection.established = True
        connection.on_established = connection.on_failed = None
        self._connections.add(connection)
        self._engines[connection.engine.name] += 1
        remote = connection.remote_address
        logger.debug("QUIC with {} ({})", address_text(*remote), connection.engine.name)
        if connection.client:
            self._outgoing.add(connection)
        place = connection.at_gate
        if place is not None and self._until_welcome:
            place.proved()
            place.give_way = lambda: connection.close(connection.abort_code, "gave way")
        else:
            connection.welcome()

    def _verify(
        self,
        connection: QuicConnectionHandle,
        event: Established,
        server_name: str | None = None,
    ) -> bool:
        """Check the peer's chain and protocol; refuse with the matching TLS alert."""
        try:
            connection.peer = check_peer(
                event,
                self._identity,
                self._alpn,
                self._policy,
                client=not connection.client,
                server_name=server_name,
            )
        except PeerRefused as refusal:
            self.counters[f"refused_{refusal.slug}"] += 1
            if not connection.client:
                who = plain_host(connection.remote_address)
                self._refusals.note(refusal.slug.replace("_", " "), who)
            connection.refuse(refusal.alert, refusal.slug)
            return False
        connection.alpn = event.alpn
        connection.watch_revocations(self._identity.revocations)
        return True

    def _broken(self, connection: QuicConnectionHandle) -> None:
        self.counters["connection_failed"] += 1
        logger.exception("connection from {} failed", connection.remote_address)
        connection.refuse(BAD_CERTIFICATE, "internal error")

    # Connection ids and ends, called by connections.

    def add_cid(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route this id to the connection."""
        self._routes.add(connection, cid)

    def remove_cid(self, connection: QuicConnectionHandle, cid: bytes) -> None:
        """Route it no more."""
        self._routes.remove(connection, cid)

    def ended(self, connection: QuicConnectionHandle) -> None:
        """It is over for its users; its ids stay until the closing period ends."""
        self._pending.discard(connection)
        connection.welcome()  # or gone: its place is free
        if connection in self._connections:
            self._past_lost += max(0, connection.engine.path.lost)
            self._connections.discard(connection)
            self._engines[connection.engine.name] -= 1
            reason = connection.closed
            if reason is not None and not reason.application and reason.code == NO_VIABLE_PATH:
                # One of the sides found that large datagrams vanish.
                self.counters["black_hole"] += 1
                self._narrow.add(connection.remote_address[0], time.monotonic())
        self._outgoing.discard(connection)

    def _forget(self, connection: QuicConnectionHandle) -> None:
        for cid in list(connection.cids):
            self.remove_cid(connection, cid)
        self.ended(connection)
        self._schedule.forget(connection)
        connection.let_go()
