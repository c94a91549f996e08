"""One forwarded service: registered at a relay, again and again, until it is not wanted any more.

Relays are tried in turn, with a pause that doubles and jitter, so that a relay that comes back does
not meet all its services at once. A service that was served for a while begins anew. Users that are
served when the connection is lost keep what they have where the protocol lets them.

Source: protocol sheet rendezvous 1.6, 1.7 row 14, 5.6 rows 9, 10, 12.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from actors.runtime import Actor, ChildRefused, ChildSpec, MailboxSpec, Restart, handles
from actors.transport.addresses import address_text
from actors.transport.stream import CloseReason, Stream
from actors.transport.tcp.plain_transport import PlainTransport
from actors.transport.tcp.pump import PipePool
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.tls_transport import TlsTransport
from actors.transport.tcp.yamux_connection import YamuxConnection
from config.endpoint import Endpoint
from tools.forward.bridge import End, EndGuard, Locals, UserBridge
from tools.forward.relay_socket import ANSWER_SECONDS, NotServed, join, past_ok, register
from tools.forward.settings import ForwardedService
from tools.forward.tls_lines import register_over_tls
from wire.errors import PeerError
from wire.rendezvous.line import Protocol
from wire.rendezvous.registration import Registered, Registration, UserWaits
from wire.yamux.limits import INITIAL_WINDOW

#: The first pause and the longest, seconds.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 20.0
#: Served for so long, the next loss begins with the first pause again, seconds.
STABLE_SECONDS: Final = 10.0
_READ: Final = 64 * 1024
#: A further connection of a pool that ends sooner, and without a user, was not wanted: there is no
#: other word for a pool that is gone.
KNOWN_SECONDS: Final = 1.0
_DRAINED: Final = "drained"


class Drain:
    """Take no new users; those who are served may finish."""

    __slots__ = ()


class ServiceLink(Actor):
    """One forwarded service: registered at a relay, again and again, until it is not wanted any
    more.

    Args:
        bridges: place of the supervisor of its users.
        announce: prints where the service can be reached.
    """

    mailbox = MailboxSpec(bound=16)

    def __init__(
        self,
        service: ForwardedService,
        bridges: str,
        pipes: PipePool,
        announce: Callable[[ForwardedService, str], object],
    ) -> None:
        self._service = service
        self._bridges = bridges
        self._pipes = pipes
        self._announce = announce
        self._locals = Locals(service.locals)
        self._serial = 0
        self._state = "connecting"
        self._address = ""
        self._served = 0
        self._turn = 0
        self._leave: asyncio.Event = asyncio.Event()

    def init(self) -> None:
        """Begin."""
        self.spawn_task(self._run(), "relay")

    def describe(self) -> dict[str, object]:
        """Where it can be reached, and by whom it was."""
        return {
            "service": self._service.title,
            "protocol": self._service.protocol.value,
            "state": self._state,
            "address": self._address,
            "local": [str(one) for one in self._service.locals],
            "users": self._served,
            "local_refused": self._locals.refused,
        }

    @handles(Drain)
    def _drain(self, _: Drain) -> None:
        self._state = "draining"
        self._leave.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._leave.is_set():
            began = self.now()
            relay = self._service.relays[self._turn % len(self._service.relays)]
            try:
                why = await self._serve_while_local_is_there(relay)
            except (NotServed, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if self._leave.is_set():
                break
            self._turn += 1
            self._state, self._address = "waiting", ""
            if self.now() - began >= STABLE_SECONDS:
                pause = FIRST_PAUSE
            wait = pause * self.system.rng.uniform(0.5, 1.0)
            self.log.warning("{}: {}: {}; again in {:.1f} s", self._service.title, relay, why, wait)
            pause = min(LONGEST_PAUSE, 2 * pause)
            await asyncio.sleep(wait)

    async def _serve_while_local_is_there(self, relay: Endpoint) -> str:
        """As `_serve`; with a check, a service whose local server is down takes no users."""
        if not self._service.check_seconds:
            return await self._serve(relay)
        self._state = "local server down"
        (await self._locals.connect()).close()
        serving = asyncio.create_task(self._serve(relay))
        watching = asyncio.create_task(self._watch_local())
        try:
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            return serving.result() if serving.done() else watching.result()
        finally:
            for task in (serving, watching):
                task.cancel()
            await asyncio.wait({serving, watching})

    async def _watch_local(self) -> str:
        while True:
            await asyncio.sleep(self._service.check_seconds)
            try:
                (await self._locals.connect()).close()
            except (OSError, TimeoutError) as error:
                return f"the local server is down: {error}"

    async def _serve(self, relay: Endpoint) -> str:
        """Until the registration is over; why it is."""
        service = self._service
        self._state = "connecting"
        if service.tls is not None:
            async with asyncio.timeout(ANSWER_SECONDS):
                transport, early, registered = await register_over_tls(relay, service, service.tls)
            self._registered(transport.get_extra_info("socket"), registered)
            return await self._multiplex(transport, early)
        sock, registration, registered, more = await register(
            relay, service.protocol, service.options
        )
        self._registered(sock, registered)
        if service.protocol is Protocol.MULTIPLEX:
            return await self._multiplex(PlainTransport(sock), registration.rest)
        if service.protocol is Protocol.EVENT:
            waits = [one for one in more if isinstance(one, UserWaits)]
            return await self._events(relay, sock, registration, waits)
        return await self._pool(relay, sock, registration.rest, registered)

    def _registered(self, sock: socket.socket, registered: Registered) -> None:
        host = address_text(sock.getpeername()[0], 0).rpartition(":")[0]
        self._address = f"{host}:{registered.port}"
        self._state = "serving"
        self._announce(self._service, self._address)
        self.log.info("{}: users reach it at {}", self._service.title, self._address)

    # Multiplex.

    async def _multiplex(self, transport: PlainTransport | TlsTransport, early: bytes) -> str:
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        window = max(INITIAL_WINDOW, self._service.options.window)

        def closed(reason: CloseReason) -> None:
            if not over.done():
                over.set_result(f"the session ended: {reason}")

        def away() -> None:
            """The relay drains: users that are here stay, and we go elsewhere."""
            if not over.done():
                over.set_result("the relay is going away")

        connection = YamuxConnection(
            TcpSettings(
                stream_window=window,
                connection_window=64 * window,
                max_backlog=max(256 * 1024, window // 2),
                keepalive=30.0,
            ),
            client=False,
            on_ended=lambda _: self.disown(connection),
        )
        connection.abort_code = 0
        connection.on_closed = self.guard("session", closed)
        connection.on_going_away = self.guard("session", away)
        connection.on_stream = self.guard("session", self._stream_came)
        self.own(connection, "session")
        transport.start(connection)
        if early:
            connection.data_received(early)
        connection.start()
        leaving = asyncio.create_task(self._leave.wait())

        def left(_: asyncio.Task[bool]) -> None:
            if not over.done():
                over.set_result(_DRAINED)

        leaving.add_done_callback(left)
        try:
            await asyncio.wait({over})
        except asyncio.CancelledError:
            connection.close(0)
            raise
        finally:
            leaving.cancel()
        if over.result() == _DRAINED:
            connection.go_away()
        return over.result()

    def _stream_came(self, stream: Stream) -> None:
        if not self._bridge(stream):
            stream.abort(0)

    # Events.

    async def _events(
        self, relay: Endpoint, sock: socket.socket, registration: Registration,
        waits: list[UserWaits],
    ) -> str:  # fmt: skip
        loop = asyncio.get_running_loop()
        try:
            while True:
                for one in waits:
                    self._bridge(self._joining(relay, one.id))
                data = await loop.sock_recv(sock, _READ)
                if not data:
                    return "the control connection ended"
                answers = registration.receive(data)
                waits = [one for one in answers if isinstance(one, UserWaits)]
        except PeerError as error:
            return f"the relay breaks the protocol: {error}"
        finally:
            sock.close()

    def _joining(self, relay: Endpoint, known: str) -> Callable[[], Awaitable[tuple[End, bytes]]]:
        service = self._service

        async def made() -> tuple[End, bytes]:
            sock = await join(relay, service.protocol, known, service.options)
            try:
                return sock, await self._after_ok(sock)
            except BaseException:
                close_with_reset(sock)
                raise

        return made

    async def _after_ok(self, sock: socket.socket) -> bytes:
        """What the relay sent behind its consent, if it has to give one.

        Raises:
            OSError: it ended, or does not consent.
        """
        data = b""
        while self._service.options.token:
            try:
                rest = past_ok(data, self._service.options)
            except NotServed as error:
                sock.close()
                raise OSError(str(error)) from None
            if rest is not None:
                return rest
            more = await asyncio.get_running_loop().sock_recv(sock, _READ)
            if not more:
                sock.close()
                raise OSError("the relay ended the connection")
            data += more
        return data

    # Pools.

    async def _pool(
        self, relay: Endpoint, first: socket.socket, early: bytes, registered: Registered
    ) -> str:
        """Keep members there; each waits for the first byte of a user."""
        made = self._joining(relay, registered.id)

        async def member(sock: socket.socket | None, data: bytes) -> None:
            joined = self.now() if sock is None else None
            if sock is None:
                end, data = await made()
                assert isinstance(end, socket.socket)
                sock = end
            try:
                if not data:
                    data = await asyncio.get_running_loop().sock_recv(sock, _READ)
                if data and self._bridge(sock, data):
                    return
            except BaseException:
                close_with_reset(sock)  # it may be a user's by now, whose byte is on its way
                raise
            close_with_reset(sock)
            if not data and joined is not None and self.now() - joined < KNOWN_SECONDS:
                raise ConnectionResetError("the relay does not know the pool any more")

        async def keep(sock: socket.socket | None, data: bytes) -> None:
            waiting.discard(sock)
            while not self._leave.is_set():
                await member(sock, data)
                sock, data = None, b""

        waiting: set[socket.socket | None] = {first}
        try:
            async with asyncio.TaskGroup() as group:
                for n in range(self._service.idle):
                    group.create_task(keep(first if n == 0 else None, early if n == 0 else b""))
        except* OSError as errors:
            why = str(errors.exceptions[0])
        else:
            why = _DRAINED
        finally:
            if first in waiting:  # its task was cancelled before it began
                close_with_reset(first)
        return why

    # Users.

    def _bridge(
        self, remote: Callable[[], Awaitable[tuple[End, bytes]]] | End, early: bytes = b""
    ) -> bool:
        bridges = self.system.ref(self._bridges)
        self._serial += 1
        late = self._service.protocol is not Protocol.EVENT
        end, make = EndGuard(None), None
        if isinstance(remote, Stream | socket.socket):
            end.end = remote
        else:
            make = remote
        try:
            if bridges is None:
                raise ChildRefused(self._bridges, "user", "down")
            self.system.start_child(
                bridges,
                ChildSpec(
                    f"u{self.incarnation}.{self._serial}",
                    lambda: UserBridge(
                        self._locals, self._pipes, end, make, early=early, late=late
                    ),
                    restart=Restart.TEMPORARY,
                    shutdown=1.0,
                ),
            )
        except ChildRefused as refused:
            self.log.warning("a user is not served: {}", refused)
            return False
        self._served += 1
        return True
