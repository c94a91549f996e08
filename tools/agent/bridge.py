"""One local TCP connection and its stream: the opening of either side, then the pump.

Source: protocol sheet ORP 3.3, 3.4, 2.5; 6.5 A5 (the bytes of a STREAM_REJECT never reach the
application: the first bytes are looked at until STREAM_READY or a reject decides).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from pathlib import Path

from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    AskTimeout,
    MailboxFull,
    MailboxSpec,
    ReplyError,
    handles,
    shutdown,
)
from actors.transport.claim import StreamClaim
from actors.transport.stream import CloseReason, Stream, StreamClosed
from actors.transport.tls import TlsIdentity
from tools.agent.ends import SocketGuard, StreamGuard
from tools.agent.forward_tunnel import ForwardTunnel, TunnelFailed
from tools.agent.forwarded import LINGER, Forwarded
from tools.agent.messages import OpenService, Promote, WatchMode
from tools.agent.resumable import ResumableStream, StreamTable
from tools.agent.settings import AgentSettings
from tools.agent.tcp_pump import TcpPump
from wire.errors import PeerError
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.frame import FrameReader, FrameType
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import (
    AllocGranted,
    IncomingStream,
    OpenStream,
    StreamAccept,
    StreamReject,
    decode,
)

#: Seconds a provider waits for a consumer that may never have heard that its stream is ready, and
#: a consumer for a relay that may have said so to nobody.
UNCERTAIN_SECONDS = 5.0
UNHEARD_SECONDS = 2.0
#: Seconds an INCOMING_STREAM may take to arrive on a stream the relay opened.
FIRST_FRAME_SECONDS = 10.0
#: Seconds a provider waits for STREAM_READY or ALLOC_GRANTED, then assumes a splice.
MODE_SECONDS = 5.0
#: First two bytes of a STREAM_REJECT frame (version 1, sheet 2.1).
_REJECT_START = (0x2000 | FrameType.STREAM_REJECT).to_bytes(2, "big")


def _address(name: object) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else ""


class _Linger:
    """Both directions of a tunnel are done, and the last acknowledgements had their time."""

    __slots__ = ()


class _RelayOver:
    """The relay's stream of a forward stream ended a while ago."""

    __slots__ = ()


class _Bridge(Actor):
    """What both directions share: a socket, a stream, a pump."""

    mailbox = MailboxSpec(bound=16)
    handler_limit = 120.0
    #: Seconds a stream waits whose path was lost while it was opened.
    patience = UNCERTAIN_SECONDS

    def __init__(self, settings: AgentSettings, table: StreamTable) -> None:
        self._settings = settings
        self._table = table
        self._stream: Stream | None = None
        self._sock: socket.socket | None = None
        self._pump: TcpPump | None = None
        self._service = ""
        self._stream_id = 0
        self._peer_uri = ""
        self._phase = "opening"
        self._local = ""
        self._remote = ""
        self._early = bytearray()  # delivered and not consumed: bounded by the stream window
        self._early_eof = False
        self._broken = False
        self._path_lost = False
        self._forwarded: Forwarded | None = None

    def describe(self) -> dict[str, object]:
        """Service, stream id, local socket and bytes."""
        pump, stream = self._pump, self._stream
        return {
            "phase": self._phase,
            "relay_mode": "splice" if self._forwarded is None else "forward",
            "service": self._service,
            "stream_id": f"{self._stream_id:016x}",
            "peer": self._peer_uri,
            "local_address": self._local,
            "local_peer": self._remote,
            "bytes_from_socket": pump.bytes_in if pump else 0,
            "bytes_to_socket": pump.bytes_out if pump else 0,
            "stream_bytes_in": stream.bytes_in if stream else 0,
            "stream_bytes_out": stream.bytes_out if stream else 0,
            "resumes": stream.resumes if isinstance(stream, ResumableStream) else 0,
            "parked": isinstance(stream, ResumableStream) and stream.parked,
        }

    def _take_socket(self, sock: socket.socket) -> None:
        self._sock = sock
        self._local = _address(sock.getsockname())
        self._remote = _address(sock.getpeername())

    def _couple(self) -> None:
        assert self._sock is not None
        assert self._stream is not None
        self._phase = "bridged"
        if self._stream_id and self._forwarded is None:
            self._stream = ResumableStream(
                self._stream, self._stream_id, self._table, received=len(self._early)
            )
            self._stream.peer = self._peer_uri
            if self._broken:
                self._stream.patience = self.patience
                self._stream.park()
        self._pump = TcpPump(self._sock, self._stream, on_end=self._ended, guard=self.guard)
        self.own(self._pump, "pump")
        self._pump.start(bytes(self._early), ended=self._early_eof)
        self._early.clear()

    def _ended(self, why: str) -> None:
        self._phase = "ended"
        if why or self._forwarded is None or self._forwarded.tunnel.closed:
            self.stop(shutdown(why or "done"))
        else:
            self.start_timer(LINGER, _Linger())

    async def _tunnel(self, granted: AllocGranted, peer_uri: str) -> None:
        """From now on the stream is the tunnel's, and the relay's stream only tells of its life.

        Raises:
            TunnelFailed: it did not come up.
        """
        assert self._stream is not None
        settings, relay_stream = self._settings, self._stream
        self._phase = "opening the tunnel"
        identity = TlsIdentity.load(
            Path(settings.certificate), Path(settings.key), Path(settings.ca)
        )
        tunnel = ForwardTunnel(identity, granted, self.guard, peer_uri=peer_uri)
        self._forwarded = self.own(
            Forwarded(relay_stream, tunnel, self._relay_over, self.guard), "tunnel"
        )
        relay_stream.consume(len(self._early))
        self._early.clear()
        self._early_eof = False
        self._stream = await tunnel.open()

    def _relay_over(self) -> None:
        """The other agent is done, or gone. Without tunnel: at once; else what came may finish."""
        if self._pump is None and self._forwarded is not None:
            self._forwarded.tunnel.abort()  # and `open` fails
        elif self._phase == "bridged":
            self.start_timer(2 * LINGER, _RelayOver())

    @handles(_Linger)
    def _lingered(self, _: _Linger) -> None:
        assert self._forwarded is not None
        self._forwarded.close()
        self.stop(shutdown("done"))

    @handles(_RelayOver)
    def _relay_is_over(self, _: _RelayOver) -> None:
        """Nothing passes the tunnel any more; what arrived completely still goes to the socket."""
        stream = self._stream
        if self._phase != "bridged" or stream is None:
            return
        if not (stream.read_closed and stream.write_closed and not stream.backlog):
            self.stop(shutdown("the other side ended"))


class ConsumerBridge(_Bridge):
    """A local connection that wants a service.

    Args:
        sock: accepted, non-blocking.
        link: the relay link.
        table: of the agent's resumable streams.
    """

    patience = UNHEARD_SECONDS

    def __init__(
        self,
        settings: AgentSettings,
        service: str,
        sock: socket.socket,
        link: ActorRef,
        table: StreamTable,
    ) -> None:
        super().__init__(settings, table)
        self._service = service
        self._link = link
        self._accepted = sock
        self._decided: asyncio.Future[StreamReject | AllocGranted | None]

    def init(self) -> None:
        """Own the local socket."""
        self._guarded = self.own(SocketGuard(self._accepted), "socket")
        self._take_socket(self._accepted)
        self._decided = self.system.loop.create_future()

    async def continue_(self) -> None:
        """OPEN_STREAM, then wait for what decides: STREAM_READY, ALLOC_GRANTED or STREAM_REJECT."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.open_timeout):
                outcome = await self._open()
        except TimeoutError:
            self.stop(shutdown("no stream in time"))
            return
        except (ReplyError, ActorDown, AskTimeout, MailboxFull, StreamClosed) as error:
            self.stop(shutdown(f"not opened: {error}"))
            return
        if isinstance(outcome, StreamReject):
            self.log.info("{}: rejected: {} {}", self._service, outcome.code, outcome.reason)
            self.stop(shutdown(f"rejected {outcome.code}: {outcome.reason}"))
            return
        self.disown(self._stream_guard)
        if isinstance(outcome, AllocGranted):
            try:
                await self._tunnel(outcome, "")
            except TunnelFailed as error:
                self.log.info("{}: no tunnel: {}", self._service, error)
                self.stop(shutdown(f"no tunnel: {error}"))
                return
        self.disown(self._guarded)
        self._couple()
        if isinstance(self._stream, ResumableStream):
            self._link.try_tell(Promote(self._stream))

    async def _open(self) -> StreamReject | AllocGranted | None:
        claim = self.own(StreamClaim(ResetCode.SOURCE_FAILED), "claim")
        await self._link.ask_again(OpenService(claim), timeout=self._settings.open_timeout)
        self.disown(claim)
        self._stream = stream = claim.take()
        self._stream_guard = self.own(StreamGuard(stream), "stream")
        self._stream_id = 0
        while not self._stream_id:
            self._stream_id = secrets.randbits(64)
        await self._link.ask_again(
            WatchMode(self._stream_id, self.guard("mode", self._decide)),
            timeout=self._settings.open_timeout,
        )
        stream.on_data = self.guard("stream", self._first_bytes)
        stream.on_eof = self.guard("stream", self._ended_early)
        stream.on_reset = self.guard("stream", self._closed_early)
        stream.on_lost = self.guard("stream", self._closed_early)
        stream.start()
        stream.write(OpenStream(self._service, "", self._stream_id).encode())
        return await self._decided

    def _decide(self, outcome: StreamReject | AllocGranted | None) -> None:
        if not self._decided.done():
            self._decided.set_result(outcome)
            if self._stream is not None:
                # What happens to it before the pump takes over is held for the pump.
                self._stream.pause()

    def _first_bytes(self, chunk: bytes) -> None:
        """Bytes before STREAM_READY: a reject, or the provider's first words (then ready is near).

        Held bytes are not consumed, so the stream window bounds them.
        """
        self._early += chunk
        start = bytes(self._early[:2])
        if not _REJECT_START.startswith(start):
            self._decide(None)  # application bytes: the stream is spliced
            return
        reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
        try:
            reader.feed(self._early)
            frame = reader.next_frame()
            if frame is None:
                return
            message = decode(frame)
        except PeerError:
            self._decide(None)
            return
        if isinstance(message, StreamReject):
            self._decide(message)

    def _ended_early(self) -> None:
        """FIN before STREAM_READY: an empty answer, or one whose bytes are held already."""
        self._early_eof = True
        self._decide(None)

    def _closed_early(self, why: int | CloseReason) -> None:
        if isinstance(why, CloseReason) or why == ResetCode.RELAY_FAULT:
            # It may have been ready: the provider then waits for us. Ask for it for a moment.
            self._broken = True
            self._decide(None)
        else:
            self._decide(StreamReject(502, "stream ended before it was ready"))


class ProviderBridge(_Bridge):
    """A stream the relay opened towards us.

    Args:
        stream: not started yet.
        link: the relay link.
        table: of the agent's resumable streams.
    """

    def __init__(
        self, settings: AgentSettings, stream: Stream, link: ActorRef, table: StreamTable
    ) -> None:
        super().__init__(settings, table)
        self._link = link
        self._mode: asyncio.Future[AllocGranted | None]
        self._stream = stream
        self._reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
        self._first: asyncio.Future[IncomingStream]

    def init(self) -> None:
        """Own the stream and begin to read the first frame."""
        stream = self._stream
        assert stream is not None
        self._first = self.system.loop.create_future()
        self._mode = self.system.loop.create_future()
        self._stream_guard = self.own(StreamGuard(stream), "stream")
        stream.on_data = self.guard("stream", self._first_bytes)
        stream.on_eof = self.guard("stream", self._ended_early)
        stream.on_reset = self.guard("stream", self._closed_early)
        stream.on_lost = self.guard("stream", self._closed_early)
        stream.start()

    async def continue_(self) -> None:
        """INCOMING_STREAM, dial the target, STREAM_ACCEPT, bridge."""
        try:
            async with asyncio.timeout(FIRST_FRAME_SECONDS):
                incoming = await self._first
        except (TimeoutError, ConnectionError) as error:
            self.stop(shutdown(f"no INCOMING_STREAM: {error}"))
            return
        self._service, self._stream_id = incoming.target_service, incoming.stream_id
        self._peer_uri = incoming.source_agent_uri
        target = next(
            (m for m in self._settings.provide if m.service == incoming.target_service), None
        )
        if target is None:
            self._refuse(reject.NO_HANDLER)
            return
        try:
            async with asyncio.timeout(self._settings.target_timeout):
                sock = await self._dial(target.host, target.port)
        except TimeoutError:
            self._refuse(reject.backend_dial_failed("timed out"))
            return
        except OSError as error:
            self._refuse(reject.backend_dial_failed(error.strerror or type(error).__name__))
            return
        stream = self._stream
        assert stream is not None
        guarded = self.own(SocketGuard(sock), "socket")
        self._take_socket(sock)
        if stream.write_closed or self._broken:
            self.stop(shutdown("stream ended while dialling"))
            return
        try:
            granted = await self._accept(stream)
            self.disown(self._stream_guard)
            if granted is not None:
                await self._tunnel(granted, self._peer_uri)
        except (ConnectionError, StreamClosed, TunnelFailed) as error:
            self.stop(shutdown(f"not bridged: {error}"))
            return
        self.disown(guarded)
        self._couple()

    async def _accept(self, stream: Stream) -> AllocGranted | None:
        """STREAM_ACCEPT, then wait for what decides how the stream travels.

        Until then the target's bytes wait: in forward mode the relay would throw them away.
        Returns:
            The grant, or None for a splice.

        Raises:
            ConnectionError, StreamClosed: the stream ended before that.
        """
        if self._stream_id:
            watch = WatchMode(self._stream_id, self.guard("mode", self._decide))
            try:
                await self._link.ask_again(watch, timeout=MODE_SECONDS)
            except (ReplyError, ActorDown, AskTimeout, MailboxFull):
                self._decide(None)
        else:
            self._decide(None)
        if self._stream_died():
            raise ConnectionError("stream ended before it was accepted")
        stream.write(StreamAccept().encode())
        if self._early or self._early_eof:
            self._decide(None)
        granted = None
        try:
            async with asyncio.timeout(MODE_SECONDS):
                granted = await self._mode
        except TimeoutError:
            pass  # the message was lost: assume splice (sheet 3.3)
        stream.pause()
        if self._broken and not (self._path_lost and self._stream_id and granted is None):
            raise ConnectionError("stream ended before it was ready")
        # A path lost after our STREAM_ACCEPT: the consumer may have heard that it is ready, and
        # comes back for the stream.
        return granted

    def _stream_died(self) -> bool:
        return self._broken  # changed by callbacks while we wait

    def _decide(self, granted: AllocGranted | None) -> None:
        if not self._mode.done():
            self._mode.set_result(granted)
            if self._stream is not None:
                self._stream.pause()  # what happens until the pump takes over is held for it

    async def _dial(self, host: str, port: int) -> socket.socket:
        loop = self.system.loop
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        error: OSError | None = None
        for family, kind, protocol, _, address in infos:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as failed:
                sock.close()
                error = failed
            except BaseException:
                sock.close()
                raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise error or OSError(0, f"no address for {host}")

    def _refuse(self, answer: StreamReject) -> None:
        stream = self._stream
        assert stream is not None
        self.disown(self._stream_guard)
        stream.forget_callbacks()
        if not stream.write_closed:
            stream.write(answer.encode())
            stream.write_eof()
        stream.stop_sending(ResetCode.REJECTED)
        self.stop(shutdown(f"refused {answer.code}: {answer.reason}"))

    def _first_bytes(self, chunk: bytes) -> None:
        if self._first.done():
            self._early += chunk
            self._decide(None)  # application bytes: the stream is spliced
            return
        stream = self._stream
        assert stream is not None
        try:
            self._reader.feed(chunk)
            frame = self._reader.next_frame()
            if frame is None:
                stream.consume(len(chunk))
                return
            rest = bytes(self._reader.take_rest())
            stream.consume(len(chunk) - len(rest))
            message = decode(frame)
        except PeerError as error:
            self._fail_first(error.label)
            return
        self._early += rest
        if isinstance(message, IncomingStream):
            self._first.set_result(message)
        else:
            self._fail_first("unexpected first frame")

    def _ended_early(self) -> None:
        """The consumer half-closed already: legal once INCOMING_STREAM was read."""
        self._early_eof = True
        self._decide(None)
        self._fail_first("stream ended")

    def _closed_early(self, why: int | CloseReason) -> None:
        self._broken = True
        self._path_lost = isinstance(why, CloseReason) or why == ResetCode.RELAY_FAULT
        self._decide(None)
        self._fail_first("stream reset")

    def _fail_first(self, why: str) -> None:
        if not self._first.done():
            self._first.set_exception(ConnectionError(why))
            self._first.exception()  # it may come before anybody waits
