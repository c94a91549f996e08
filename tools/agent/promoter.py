"""Moves streams from the relay to a direct path between the two agents.

The consumer begins: a second after its stream is spliced it offers its addresses, dials those it is
answered, and moves the stream. Between agents of ours both suspend the relay's path, tell each
other their positions and send again what was on the way, so nothing is lost or doubled; a move that
fails goes on where it was. Towards an agent of the reference, which neither waits nor sends again,
a stream is moved only while nothing flows; from one, once everything it sent has come.

The loss of a direct path parks the stream, and the link brings it back through the relay.

Source: protocol sheet ORP 3.9, 3.10; 6.5 A6, A7, A11.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from actors.runtime import Actor
from actors.transport.connection import Connection
from actors.transport.first_message import FirstMessage
from actors.transport.quic import QuicEndpoint
from actors.transport.stream import CloseReason, Stream, StreamClosed
from tools.agent.candidates import gather, interface_addresses
from tools.agent.direct_paths import OWN_ALPN, DirectPaths
from tools.agent.resumable import ResumableStream
from tools.agent.resumption import Resumption
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    Candidate,
    CandidateAnswer,
    CandidateOffer,
    FirstMessageReader,
    FirstWord,
    MigrateToP2P,
    StreamResume,
)

#: Seconds for the other agent's echo, and for the first frame on a direct stream.
ECHO_SECONDS = 2.0
FIRST_FRAME_SECONDS = 5.0
#: Seconds for what an agent of the reference sent by the relay before it moved.
FOLLOW_SECONDS = 20.0
#: Seconds without a further byte by the relay until that is all.
FOLLOW_QUIET_SECONDS = 0.1
#: Seconds without a byte until a stream is quiet.
QUIET_SECONDS = 0.5
#: The relay's stream is kept for so long after a move, in case the other agent did not hear.
FORMER_SECONDS = 3.0
#: The other agent did hear: only the relays must hear of the move before we leave their streams.
HEARD_SECONDS = 0.25
#: Streams being moved at a time; others stay on the relay.
MAX_PROMOTIONS = 256


class RelayChannel(Protocol):
    """What the promoter needs of the link."""

    def say(self, message: CandidateOffer | CandidateAnswer | MigrateToP2P) -> bool:
        """Send on ctrl; False: there is no relay."""

    def left_relay(self, stream: ResumableStream) -> None:
        """The stream has a direct path: attempts to bring it back are of no use."""


class Promoter:
    """Moves streams from the relay to a direct path between the two agents. A resource of the link.

    Args:
        owner: the link; its tasks and guards are used.
        endpoint: bound to `settings.p2p_listen`.
    """

    def __init__(
        self,
        owner: Actor,
        channel: RelayChannel,
        endpoint: QuicEndpoint,
        settings: AgentSettings,
        table: StreamTable,
        uri: str,
    ) -> None:
        self._owner = owner
        self._channel = channel
        self._endpoint = endpoint
        self._settings = settings
        self._table = table
        self._loop = asyncio.get_running_loop()
        self.paths = DirectPaths(endpoint, uri, self._arrived, owner.guard)
        self._answers: dict[int, asyncio.Future[tuple[Candidate, ...]]] = {}
        self._observed: tuple[str, int] | None = None
        #: Relay streams of moved ones, until the other agent must have heard.
        self._formers: set[Stream] = set()
        self._promotions = 0
        self.promoted = self.stayed = 0

    def abort(self) -> None:
        """Give everything up; idempotent."""
        for answer in self._answers.values():
            answer.cancel()
        self.paths.abort()
        for former in list(self._formers):
            former.abort(ResetCode.NONE)
        self._formers.clear()

    def candidates(self) -> tuple[Candidate, ...]:
        """Where we can be reached."""
        address = self._endpoint.address
        if address is None:
            return ()
        return gather(
            address,
            advertised=self._settings.p2p_advertise,
            observed=self._observed,
            interfaces=interface_addresses(),
        )

    # What ctrl says.

    def observed(self, ip: str, port: int) -> None:
        """The relay sees us there."""
        self._observed = (ip, port)

    def offered(self, offer: CandidateOffer) -> None:
        """The consumer of a stream wants to leave the relay."""
        stream = self._table.streams.get(offer.stream_id)
        ours = self.candidates() if stream is not None and stream.movable else ()
        self._channel.say(CandidateAnswer(offer.stream_id, ours))
        if ours:
            self.paths.punch(offer.candidates)

    def answered(self, answer: CandidateAnswer) -> None:
        """The provider told where it is."""
        waiting = self._answers.get(answer.stream_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.candidates)

    # As the consumer.

    def watch(self, stream: ResumableStream) -> None:
        """A stream of ours is spliced: move it, if that works."""
        if self._promotions < MAX_PROMOTIONS:
            self._promotions += 1
            self._owner.spawn_task(self._promote(stream), "promotion")

    async def _promote(self, stream: ResumableStream) -> None:
        try:
            await self._try_to_move(stream)
        finally:
            self._promotions -= 1

    async def _try_to_move(self, stream: ResumableStream) -> None:
        await asyncio.sleep(self._settings.p2p_after)
        if not stream.movable or stream.stream_id in self._answers:
            return
        answer = self._answers[stream.stream_id] = self._loop.create_future()
        try:
            async with asyncio.timeout(self._settings.p2p_budget):
                moved = await self._attempt(stream, answer)
        except (TimeoutError, StreamClosed):
            moved = False
        finally:
            del self._answers[stream.stream_id]
        if not moved:
            self.stayed += 1
            self._owner.log.debug("p2p: stayed on relay: {:016x}", stream.stream_id)

    async def _attempt(
        self, stream: ResumableStream, answer: asyncio.Future[tuple[Candidate, ...]]
    ) -> bool:
        if not self._channel.say(CandidateOffer(stream.stream_id, self.candidates())):
            return False
        candidates = await answer
        if not stream.movable:
            return False  # it ended meanwhile: nobody needs a connection
        reached = await self.paths.reach(
            candidates,
            peer=stream.peer,
            server_name=self._settings.server_name,
            budget=self._settings.p2p_budget,
        )
        if reached is None:
            self._owner.log.debug("no candidate pair: {:016x}", stream.stream_id)
            return False
        connection, candidate = reached
        own = connection.alpn == OWN_ALPN
        moved = await (self._move(stream, connection) if own else self._jump(stream, connection))
        if moved:
            self.promoted += 1
            stream.peer = connection.peer.uri
            self._channel.say(MigrateToP2P(stream.stream_id, selected=candidate))
            self._part(stream, HEARD_SECONDS if own else FORMER_SECONDS)
            self._owner.log.info(
                "p2p: migrated to direct: {:016x} remote={}:{} rtt_ms={:.1f}",
                stream.stream_id,
                candidate.ip,
                candidate.port,
                connection.statistics().round_trip * 1000,
            )
        return moved

    async def _move(self, stream: ResumableStream, connection: Connection) -> bool:
        """To an agent of ours: both say where they are, and nothing is lost."""
        path = connection.open_stream()
        if path is None:
            return False
        if not stream.suspend():
            path.abort(ResetCode.RELAY_FAULT)
            return False
        done: asyncio.Future[bool] = self._loop.create_future()

        def ended(_: Resumption, again: bool | None) -> None:
            if not done.done():
                done.set_result(again is None)

        attempt = self._owner.own(
            Resumption(self._owner, stream, path, ended, code=ResetCode.RELAY_FAULT, direct=True),
            "migration",
        )
        moved = False
        try:
            async with asyncio.timeout(ECHO_SECONDS):
                moved = await done
        except TimeoutError:
            attempt.abort()
        finally:
            self._owner.disown(attempt)
            if not moved:
                attempt.abort()
                stream.rollback()
        return moved

    async def _jump(self, stream: ResumableStream, connection: Connection) -> bool:
        """To an agent of the reference: only while nothing is on the way."""
        position = (stream.sent, stream.received)
        await asyncio.sleep(QUIET_SECONDS)
        if (stream.sent, stream.received) != position or stream.backlog or not stream.movable:
            return False
        path = connection.open_stream()
        if path is None or not stream.suspend():
            return False
        path.write(stream.positions().encode())
        path.pause()
        here = StreamResume(stream.stream_id, stream.received, stream.sent)
        if stream.return_(path, here, b"", direct=True):
            return True
        stream.rollback()
        path.abort(ResetCode.RELAY_FAULT)
        return False

    # As the provider.

    def _arrived(self, connection: Connection, stream: Stream) -> None:
        """The consumer opened a direct stream: its positions come first."""

        def taken(message: FirstWord, rest: bytes) -> None:
            if isinstance(message, StreamResume) and message.stream_id:
                self._taken(connection, stream, message, rest)
            else:
                stream.abort(ResetCode.MALFORMED)

        FirstMessage[FirstWord](
            self._owner,
            stream,
            FirstMessageReader(),
            taken,
            lambda _: stream.abort(ResetCode.MALFORMED),
            deadline=FIRST_FRAME_SECONDS,
            code=ResetCode.MALFORMED,
            kind="arrival",
        ).start()

    def _taken(
        self, connection: Connection, path: Stream, message: StreamResume, rest: bytes
    ) -> None:
        stream = self._table.streams.get(message.stream_id)
        own = connection.alpn == OWN_ALPN
        if stream is None or stream.peer != connection.peer.uri or (own and stream.lingering):
            path.abort(ResetCode.REJECTED)
        elif own:
            stream.suspend()
            path.write(stream.positions().encode())
            self._settle(stream, path, message, rest)
        elif stream.awaited:
            path.abort(ResetCode.REJECTED)  # it follows an earlier one
        else:
            self._owner.spawn_task(self._follow(stream, path, message, rest), "migration")

    async def _follow(
        self, stream: ResumableStream, path: Stream, message: StreamResume, rest: bytes
    ) -> None:
        """An agent of the reference moved: what it sent by the relay comes first.

        That may be more than it says: what it wrote between the look at its position and the change
        of paths still took the old one, and the direct path goes on behind it.
        """
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await stream.reached(message.my_position)
                position = -1
                while position != stream.received:
                    position = stream.received
                    await asyncio.sleep(FOLLOW_QUIET_SECONDS)
        except TimeoutError:
            path.abort(ResetCode.RELAY_FAULT)
            return
        if not stream.suspend():
            path.abort(ResetCode.RELAY_FAULT)  # the relay was lost meanwhile, and bytes with it
            return
        self._settle(stream, path, replace(message, my_position=position), rest)

    def _settle(
        self, stream: ResumableStream, path: Stream, message: StreamResume, rest: bytes
    ) -> None:
        if stream.return_(path, message, rest, direct=True):
            self.promoted += 1
            self._channel.left_relay(stream)
            self._part(stream, FORMER_SECONDS, follows=path.connection.alpn != OWN_ALPN)
        else:
            stream.rollback()
            path.abort(ResetCode.RELAY_FAULT)

    def _part(self, stream: ResumableStream, pause: float, *, follows: bool = False) -> None:
        """Leave the relay's stream, once nobody may need it any more.

        Args:
            follows: the stream went on behind the last byte that came there.
        """
        former = stream.take_former()
        if former is None:
            return
        self._formers.add(former)
        if follows:
            # No longer a way to put it where it belongs: better no stream than one with a hole.
            late = CloseReason("aborted", text="bytes by the relay came too late")
            former.on_data = self._owner.guard("former", lambda _: stream.fail(late))
            former.start()

        def leave(_: int = 0) -> None:
            if former in self._formers:
                self._formers.discard(former)
                former.abort(ResetCode.NONE)

        guarded = self._owner.guard("former", leave)
        former.on_stop_sending = guarded  # the relay heard of the move, and left it first
        self._loop.call_later(pause, guarded)
