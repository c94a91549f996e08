"""A stream the relay opened for a service: dial its target, and accept or refuse.

Source: protocol sheet ORP 3.3, 2.5.
"""

from __future__ import annotations

import asyncio

from actors.runtime import (
    ActorRef,
    AskFailed,
    shutdown,
)
from actors.transport.first_message import FirstMessage, NoMessage
from actors.transport.stream import CloseReason, Stream, StreamClosed, StreamEnd
from tools.agent.bridge import Bridge
from tools.agent.ends import SocketGuard
from tools.agent.forward_tunnel import TunnelFailed
from tools.agent.messages import WatchMode
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from tools.agent.targets import TargetFailed, Targets
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    AllocGranted,
    FirstMessageReader,
    FirstWord,
    IncomingStream,
    StreamAccept,
    StreamReject,
    StreamTerms,
)

#: Seconds a provider waits for a consumer that may never have heard that its stream is ready.
UNCERTAIN_SECONDS = 5.0
#: Seconds an INCOMING_STREAM may take to arrive on a stream the relay opened.
FIRST_FRAME_SECONDS = 10.0
#: Seconds a provider waits for STREAM_READY or ALLOC_GRANTED, then assumes a splice.
MODE_SECONDS = 5.0


class ProviderBridge(Bridge):
    """A stream the relay opened towards us.

    Args:
        stream: not started yet.
        link: the relay link.
        table: of the agent's resumable streams.
        targets: of the agent's services.
    """

    patience = UNCERTAIN_SECONDS

    def __init__(
        self,
        settings: AgentSettings,
        stream: Stream,
        link: ActorRef,
        table: StreamTable,
        targets: Targets,
    ) -> None:
        super().__init__(settings, table)
        self._targets = targets
        self._link = link
        self._mode: asyncio.Future[AllocGranted | None]
        self._stream = stream
        self._first: asyncio.Future[IncomingStream]
        self._method = ""

    def init(self) -> None:
        """Own the stream and begin to read the first frame."""
        stream = self._stream
        assert stream is not None
        self._first = self.system.loop.create_future()
        self._mode = self.system.loop.create_future()
        self._stream_guard = self.own(StreamEnd(stream, ResetCode.SOURCE_FAILED), "stream")
        FirstMessage[FirstWord](
            self,
            stream,
            FirstMessageReader(),
            self._on_first,
            self._no_first,
            deadline=FIRST_FRAME_SECONDS,
            code=ResetCode.SOURCE_FAILED,
            kind="stream",
        ).start()

    async def continue_(self) -> None:
        """INCOMING_STREAM, dial the target, STREAM_ACCEPT, bridge."""
        try:
            incoming = await self._first
        except ConnectionError as error:
            self.stop(shutdown(f"no INCOMING_STREAM: {error}"))
            return
        self._service, self._stream_id = incoming.target_service, incoming.stream_id
        self._method, self._peer_uri = incoming.method, incoming.source_agent_uri
        if self._service not in self._targets:
            self._refuse(reject.NO_HANDLER)
            return
        try:
            sock = await self._targets.connect(self._service, timeout=self._settings.target_timeout)
        except TargetFailed as error:
            self._targets.refusals[self._service].note(str(error), self._peer_uri)
            self._refuse(reject.backend_dial_failed(str(error)))
            return
        stream = self._stream
        assert stream is not None
        guarded = self.own(SocketGuard(sock), "socket")
        if not self._take_socket(sock):
            self._refuse(reject.backend_dial_failed("reset"))
            return
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

    def _terms(self) -> StreamTerms:
        return StreamTerms(self._peer_uri, "", self._service, self._method)

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
            except AskFailed:
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

    def _decide(self, granted: AllocGranted | None, _: str = "") -> None:
        if not self._mode.done():
            self._mode.set_result(granted)
            if self._stream is not None:
                self._stream.pause()  # what happens until the pump takes over is held for it

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

    def _on_first(self, message: FirstWord, rest: bytes) -> None:
        stream = self._stream
        assert stream is not None
        if not isinstance(message, IncomingStream):
            self._fail_first("unexpected first frame")
            return
        self._early += rest
        stream.on_data = self.guard("stream", self._early_bytes)
        stream.on_eof = self.guard("stream", self._ended_early)
        stream.on_reset = self.guard("stream", self._closed_early)
        stream.on_lost = self.guard("stream", self._closed_early)
        self._first.set_result(message)
        stream.start()

    def _no_first(self, why: NoMessage) -> None:
        self._fail_first(why.why if why.error is None else why.error.label)

    def _fail_first(self, why: str) -> None:
        self._first.set_exception(ConnectionError(why))
        self._first.exception()  # it may come before anybody waits

    def _early_bytes(self, chunk: bytes) -> None:
        self._early += chunk
        self._decide(None)  # application bytes: the stream is spliced

    def _ended_early(self) -> None:
        """The consumer half-closed already, which is legal."""
        self._early_eof = True
        self._decide(None)

    def _closed_early(self, why: int | CloseReason) -> None:
        self._broken = True
        self._path_lost = isinstance(why, CloseReason) or why == ResetCode.RELAY_FAULT
        self._decide(None)
