"""RelayLink: the way to one other relay: dial, verify, open streams, dial again.

Connections are made when somebody needs one, and shared by all streams to that relay: a stream
that is refused there costs nobody else anything. When the stream credit of every connection is
used up, one more is dialled. After a failed dial requests are refused at once until the pause is
over, which doubles from dial to dial.

The other relay's certificate must be one of a relay, with the id the controller knows it by
(sheet 6.2 R27). A link nobody used for a while ends; the next stream starts a new one.

Source: protocol sheet ORP 3.11; 6.4 X3, X4.
"""

from __future__ import annotations

from actors.edge.connection.peer_frames import PeerFrames
from actors.edge.context import EdgeContext
from actors.edge.messages import CopyFrame, Reach
from actors.edge.relays.directory import SignallingRoute
from actors.edge.relays.signalling import Signalling
from actors.runtime import (
    DEFERRED,
    Actor,
    Deferred,
    ExitReason,
    MailboxSpec,
    OwnedTask,
    Refusal,
    handles,
)
from actors.transport.addresses import address_text
from actors.transport.claim import ClaimQueue, OpenTowards
from actors.transport.connection import Connection
from actors.transport.quic import DialFailed
from actors.transport.stream import CloseReason, Stream
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.events import PeerFrame
from wire.orp.identity import relay_problem

#: Streams waiting for a connection or for stream credit; one more is refused.
MAX_WAITING = 4096
#: Seconds between two looks whether anybody uses the link.
LOOK_SECONDS = 5.0


class _Look:
    """Does anybody use the link?"""

    __slots__ = ()


class _Lane:
    """One connection of the link."""

    __slots__ = ("connection", "route", "signalling")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.signalling: Signalling | None = None
        self.route: SignallingRoute | None = None


class RelayLink(Actor):
    """The way to one other relay: dial, verify, open streams, dial again.

    Args:
        relay_id: as the controller knows it.
    """

    mailbox = MailboxSpec(bound=65_536)

    def __init__(self, door: EdgeContext, relay_id: str) -> None:
        self._door = door
        self._relay_id = relay_id
        self._settings = door.relays.settings
        self._lanes: list[_Lane] = []
        self._waiting = ClaimQueue(
            self, self._open, bound=MAX_WAITING, crowded="too many streams wait for this relay"
        )
        self._dial: OwnedTask | None = None
        self._failures = 0
        self._not_before = 0.0
        self._used = 0.0
        self._last_error = ""
        self._frames = PeerFrames(door)

    def init(self) -> None:
        """Get an endpoint to dial from."""
        self._endpoint = self._door.relays.dialler()
        self.own(self._endpoint, "endpoint")
        self._used = self.now()
        self.start_timer(LOOK_SECONDS, _Look(), "look")
        if self._door.pending_checkpoints(self._relay_id):
            self._door.relays.reach(self._relay_id)  # an earlier incarnation may have lost them

    def terminate(self, reason: ExitReason) -> None:
        """Say goodbye; pairs on both sides then wait for their agents to come another way."""
        code = CloseCode.INTERNAL_ERROR if reason.abnormal else CloseCode.GOING_AWAY
        for lane in self._lanes:
            lane.connection.on_closed = lambda reason: None  # it is no loss
            lane.connection.close(code, code.name.lower())

    def describe(self) -> dict[str, object]:
        """Where to, and how it is."""
        address = self._door.relays.address(self._relay_id)
        return {
            "relay": self._relay_id,
            "direction": "out",
            "endpoint": "" if address is None else address_text(*address),
            "connections": len(self._lanes),
            "streams": self._streams(),
            "waiting": len(self._waiting),
            "signalling": any(lane.signalling and lane.signalling.open for lane in self._lanes),
            "failed_dials": self._failures,
            "last_error": self._last_error,
        }

    def _streams(self) -> int:
        return sum(lane.connection.statistics().streams for lane in self._lanes)

    @handles(_Look)
    def _look(self, _: _Look) -> None:
        if self._streams() > len(self._lanes) or self._waiting:  # beside the signalling streams
            self._used = self.now()
        if self.now() - self._used >= self._settings.idle:
            self.stop()
        else:
            self.start_timer(LOOK_SECONDS, _Look(), "look")

    # Streams.

    @handles(OpenTowards)
    def _open_towards(self, message: OpenTowards) -> Refusal | Deferred | None:
        self._used = self.now()
        if not self._may_dial() and not self._lanes:
            return Refusal(f"relay unreachable: {self._last_error}")
        answer = self._waiting.open(message)
        if answer is DEFERRED:
            self._dial_if_useful()
        return answer

    def _open(self) -> Stream | None:
        for lane in self._lanes:
            if lane.connection.closed is None:
                stream = lane.connection.open_stream()
                if stream is not None:
                    return stream
        return None

    def _serve_waiting(self) -> None:
        self._waiting.serve()
        if self._waiting:
            self._dial_if_useful()

    # Dialling.

    def _may_dial(self) -> bool:
        dialling = self._dial is not None and not self._dial.done
        return dialling or self.now() >= self._not_before

    def _dial_if_useful(self) -> None:
        full = len(self._lanes) >= self._settings.max_connections
        if full or (self._dial is not None and not self._dial.done) or not self._may_dial():
            return
        self._dial = self.spawn_task(self._dial_once(), "dial")

    async def _dial_once(self) -> None:
        settings, address = self._settings, self._door.relays.address(self._relay_id)
        error = "no endpoint is known"
        if address is not None:
            try:
                connection = await self._endpoint.connect(
                    address, server_name=settings.server_name, timeout=settings.dial_timeout
                )
            except (DialFailed, OSError) as failed:
                error = str(failed)
            else:
                error = self._stranger(connection)
                if not error and connection.closed is not None:
                    error = str(connection.closed)  # it sent us away as soon as it knew us
                if not error:
                    self._adopt(connection)
                    return
                connection.close(CloseCode.ILLEGAL_FRAME, "not the relay expected")
        self._door.counters["relay_dial_failed"] += 1
        self._last_error = error
        self._failures += 1
        pause = min(settings.backoff_cap, settings.backoff * 2.0 ** min(self._failures - 1, 16))
        self._not_before = self.now() + pause * self.system.rng.uniform(0.5, 1.0)
        self.log.info("relay {} not reached: {}", self._relay_id, error)
        if not self._lanes:
            self._waiting.refuse(f"relay unreachable: {error}")

    def _stranger(self, connection: Connection) -> str:
        """Why the peer is not the relay we want; empty when it is."""
        ids = (self._relay_id,) if self._settings.check_id else ()
        return relay_problem(connection.peer.uri, ids)

    def _adopt(self, connection: Connection) -> None:
        self._failures = 0
        self._not_before = 0.0
        lane = _Lane(connection)
        self._lanes.append(lane)
        self.own(connection, "connection")
        connection.abort_code = CloseCode.INTERNAL_ERROR
        connection.on_closed = self.guard("connection", lambda reason: self._lost(lane, reason))
        connection.on_stream = self.guard("connection", self._unexpected)
        connection.on_stream_credit = self.guard("connection", self._serve_waiting)
        self._door.counters["relay_connected"] += 1
        self.log.info("connected to relay {}", connection.peer.uri)
        stream = connection.open_stream()
        if stream is not None:
            signalling = Signalling(stream, self._from_relay, self._door.counters)
            lane.signalling = signalling
            signalling.offer(
                self.guard, lambda knows: self._answered(lane, signalling, knows=knows)
            )
        connection.start()
        self._serve_waiting()

    def _answered(self, lane: _Lane, signalling: Signalling, *, knows: bool) -> None:
        """If the other relay knows the extension, say what it may have missed."""
        if not knows:
            self._door.relays.mute(self._relay_id)
        elif lane in self._lanes:
            lane.route = self._door.relays.add_route(self._relay_id, self.ref)
            self.own(lane.route, "route")
            self._frames.repeat(self._relay_id, signalling)

    def _lost(self, lane: _Lane, reason: CloseReason) -> None:
        self.disown(lane.connection)
        self._lanes.remove(lane)
        if lane.route is not None:
            self.disown(lane.route)
            lane.route.abort()
        self._last_error = str(reason)
        self._door.counters["relay_lost"] += 1
        if reason.application and reason.code == CloseCode.GOING_AWAY:
            self.log.info("relay {} goes away", self._relay_id)
        else:
            self.log.warning("connection to relay {} lost: {}", self._relay_id, reason)
        if self._waiting:
            self._dial_if_useful()

    def _unexpected(self, stream: Stream) -> None:
        """Relays open streams on connections they dialled."""
        self._door.counters["relay_stream_unexpected"] += 1
        stream.abort(ResetCode.MALFORMED)

    # What agents say to each other across the link.

    @handles(CopyFrame)
    def _forward(self, message: CopyFrame) -> None:
        for lane in self._lanes:
            if lane.signalling is not None and lane.signalling.open:
                lane.signalling.send(message.frame)
                return
        self._door.counters["relay_frame_dropped"] += 1

    @handles(Reach)
    def _reach(self, _: Reach) -> None:
        """Dial, for what is said to the other relay whenever it is reached."""
        if not self._lanes:
            self._used = self.now()
            self._dial_if_useful()

    def _from_relay(self, event: PeerFrame) -> None:
        self._frames.from_relay(event, self._relay_id, self.now())
