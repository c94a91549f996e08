"""A local connection to a service: open the stream, and see what the relay makes of it.

Source: protocol sheet ORP 3.3, 2.5; 6.5 A5 (the bytes of a STREAM_REJECT never reach the
application: the first bytes are looked at until STREAM_READY or a reject decides).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from functools import partial
from typing import Literal

from actors.runtime import (
    ActorRef,
    AskFailed,
    shutdown,
)
from actors.transport.claim import claim_stream
from actors.transport.quic.rate_limit import RateLimit
from actors.transport.stream import CloseReason, StreamClosed, StreamEnd
from tools.agent.bridge import Bridge
from tools.agent.ends import SocketGuard
from tools.agent.forward_tunnel import TunnelFailed
from tools.agent.messages import Promote, WatchMode
from tools.agent.resumable import ResumableStream
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from wire.errors import PeerError
from wire.orp.close_codes import ResetCode
from wire.orp.frame import FrameReader, FrameType
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import AllocGranted, OpenStream, StreamReject, StreamTerms, decode

#: Seconds the other half of a lost opening is looked for, to be reset: nobody waits for it.
UNHEARD_SECONDS = 2.0
#: Seconds from OPEN_STREAM until a stream nobody said anything about is taken for spliced: a relay
#: of the reference says nothing of streams that go to another relay (sheet 3.3, 3.11).
MODE_SECONDS = 10.0
#: Pause before a stream that was lost while it was opened is opened again, seconds: none at
#: first, then doubling from here with jitter.
REOPEN_PAUSE = 0.05
#: First two bytes of a STREAM_REJECT frame (version 1, sheet 2.1).
_REJECT_START = (0x2000 | FrameType.STREAM_REJECT).to_bytes(2, "big")


def _reject_in(early: bytes | bytearray) -> StreamReject | Literal[False] | None:
    """What the first bytes of a stream are: a reject, application bytes (False), or unclear."""
    if not _REJECT_START.startswith(bytes(early[:2])):
        return False
    reader = FrameReader(MAX_FIRST_FRAME_PAYLOAD_BYTES)
    try:
        reader.feed(early)
        frame = reader.next_frame()
        message = None if frame is None else decode(frame)
    except PeerError:
        return False
    return message if isinstance(message, StreamReject) else None


class ConsumerBridge(Bridge):
    """A local connection that wants a service.

    Args:
        sock: accepted, non-blocking.
        link: the relay link.
        table: of the agent's resumable streams.
        lines: of the log, above level DEBUG.
    """

    def __init__(
        self,
        settings: AgentSettings,
        service: str,
        sock: socket.socket,
        link: ActorRef,
        table: StreamTable,
        lines: RateLimit,
    ) -> None:
        super().__init__(settings, table)
        self._lines = lines
        self._service = service
        self._link = link
        self._accepted = sock
        self._decided: asyncio.Future[StreamReject | AllocGranted | None]
        self._lost = False
        self._assumed = False  # nobody said that the stream is ready
        self._reopened = 0

    def init(self) -> None:
        """Own the local socket."""
        self._guarded = self.own(SocketGuard(self._accepted), "socket")
        if not self._take_socket(self._accepted):
            self.stop(shutdown("the local side reset before it was accepted"))

    async def continue_(self) -> None:
        """OPEN_STREAM, then wait for what decides: STREAM_READY, ALLOC_GRANTED or STREAM_REJECT."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.open_timeout):
                outcome = await self._open()
                while self._lost:
                    await self._leave_lost()
                    outcome = await self._open()
        except TimeoutError:
            self._not_opened("not in time")
            return
        except (AskFailed, StreamClosed) as error:
            self._not_opened(str(error))
            return
        if isinstance(outcome, StreamReject):
            self._rejected(outcome)
            return
        self.disown(self._stream_guard)
        if isinstance(outcome, AllocGranted):
            try:
                await self._tunnel(outcome, "")
            except TunnelFailed as error:
                self.log.log(self._level(), "{}: no tunnel: {}", self._service, error)
                self.stop(shutdown(f"no tunnel: {error}"))
                return
        self.disown(self._guarded)
        self._couple(self._late_words if self._assumed else None)
        if isinstance(self._stream, ResumableStream):
            self._link.try_tell(Promote(self._stream))

    def _not_opened(self, why: str) -> None:
        self.log.log(self._level(), "{}: no stream: {}", self._service, why)
        self.stop(shutdown(f"no stream: {why}"))

    async def _leave_lost(self) -> None:
        """The path was lost before the stream was ready: make room for another opening.

        No byte of the application has travelled, so a new stream is the same to it, and it has no
        need to know whether the lost one was joined. If it was, its other half waits for us: it is
        looked for, and reset.
        """
        assert self._stream is not None
        self.disown(self._stream_guard)
        lost = ResumableStream(self._stream, self._stream_id, self._table)
        lost.patience = UNHEARD_SECONDS
        lost.on_drain = lambda _: lost.abort()  # it has a path again
        lost.park()
        self._stream = None
        self._early.clear()
        self._lost = False
        self.log.debug("{}: lost while it was opened, opened again", self._service)
        if self._reopened:
            ceiling = REOPEN_PAUSE * 2.0 ** min(self._reopened, 6)
            await asyncio.sleep(ceiling * self.system.rng.uniform(0.5, 1.0))
        self._reopened += 1

    async def _open(self) -> StreamReject | AllocGranted | None:
        self._decided = self.system.loop.create_future()
        self._stream = stream = await claim_stream(
            self,
            self._link,
            timeout=self._settings.open_timeout,
            code=ResetCode.SOURCE_FAILED,
            patient=True,
        )
        self._stream_guard = self.own(StreamEnd(stream, ResetCode.SOURCE_FAILED), "stream")
        self._stream_id = 0
        while not self._stream_id:
            self._stream_id = secrets.randbits(64)
        await self._link.ask_again(
            WatchMode(self._stream_id, self.guard("mode", partial(self._mode, self._stream_id))),
            timeout=self._settings.open_timeout,
        )
        stream.on_data = self.guard("stream", self._first_bytes)
        stream.on_eof = self.guard("stream", self._ended_early)
        stream.on_reset = self.guard("stream", self._closed_early)
        stream.on_lost = self.guard("stream", self._closed_early)
        stream.start()
        stream.write(OpenStream(self._service, "", self._stream_id).encode())
        await asyncio.wait({self._decided}, timeout=MODE_SECONDS)
        if not self._decided.done():
            self._assumed = True
            self._decide(None)
        return self._decided.result()

    def _terms(self) -> StreamTerms:
        return StreamTerms("", self._peer_uri, self._service)

    def _mode(self, stream_id: int, granted: AllocGranted | None, peer: str) -> None:
        if stream_id != self._stream_id:
            return  # late words about a lost one
        self._peer_uri = peer
        if self._assumed and granted is not None:
            # What was sent meanwhile went nowhere: that must not look like a stream.
            self.stop(shutdown("the relay decided too late"))
        self._decide(granted)

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
        verdict = _reject_in(self._early)
        if verdict is not None:
            self._decide(verdict or None)  # application bytes: the stream is spliced

    def _late_words(self, early: bytes) -> bool:
        """The first bytes of a stream that was taken for spliced: is it a reject, after all?"""
        verdict = _reject_in(early)
        if isinstance(verdict, StreamReject):
            assert self._pump is not None
            self._pump.abort()  # its FIN is behind it, and would deliver what is held
            self._rejected(verdict)
        return verdict is False

    def _rejected(self, answer: StreamReject) -> None:
        level = self._level()
        self.log.log(level, "{}: rejected: {} {}", self._service, answer.code, answer.reason)
        self.stop(shutdown(f"rejected {answer.code}: {answer.reason}"))

    def _level(self) -> str:
        """Whoever may connect locally can have as many refusals as they like."""
        return "WARNING" if self._lines.take(self.now()) else "DEBUG"

    def _ended_early(self) -> None:
        """FIN before STREAM_READY: an empty answer, or one whose bytes are held already."""
        self._early_eof = True
        self._decide(None)

    def _closed_early(self, why: int | CloseReason) -> None:
        if isinstance(why, CloseReason) or why == ResetCode.RELAY_FAULT:
            if not self._decided.done():
                self._lost = True
                self._decide(None)
            else:
                self._broken = True  # it was ready: the pump begins with a parked stream
        else:
            self._decide(StreamReject(502, "stream ended before it was ready"))
