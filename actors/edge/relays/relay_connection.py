"""RelayConnection: another relay that dialled us, and the streams it brings.

Temporary: the other relay's next dial is its restart. Only relays of the allow-list get this far
(`listener`). Every stream is independent; a stream that is refused costs the others nothing.

Source: protocol sheet ORP 3.7, 3.11; 6.4 X2, X3, X5.
"""

from __future__ import annotations

from actors.edge.door import Door
from actors.edge.first_frame import FirstFrame
from actors.edge.messages import Close, Forward
from actors.edge.opening import Opening
from actors.edge.peer_frames import PeerFrames
from actors.edge.relays.egress_pair import EgressPair
from actors.edge.relays.signalling import Signalling
from actors.edge.resume_half import ResumeHalf
from actors.edge.returning import Half
from actors.runtime import (
    Actor,
    ActorRef,
    ChildRefused,
    ChildSpec,
    Down,
    ExitReason,
    MailboxSpec,
    Restart,
    handles,
    shutdown,
)
from actors.transport.connection import Connection
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.events import PeerFrame
from wire.orp.frame import Frame
from wire.orp.identity import AgentUri, IdentityError, RelayUri, parse_identity
from wire.orp.messages import ForwardStream, OpenStream, Ping, StreamResume, decode


class RelayConnection(Actor):
    """See the module docstring.

    Args:
        identity: of the other relay.
    """

    mailbox = MailboxSpec(bound=65_536)

    def __init__(self, door: Door, connection: Connection, identity: RelayUri) -> None:
        self._door = door
        self._connection = connection
        self._identity = identity
        #: Bound: `max_opening_per_agent` of the settings, as for an agent.
        self._opening: dict[FirstFrame, None] = {}
        #: Streams and halves that went to an actor of their own, until it ends.
        self._handed: dict[int, Opening | Half] = {}
        self._signalling: Signalling | None = None
        self._frames = PeerFrames(door)
        self._ended = False

    def init(self) -> None:
        """Take the connection over."""
        connection = self._connection
        self.own(connection, "connection")
        connection.abort_code = CloseCode.INTERNAL_ERROR
        connection.on_stream = self.guard("connection", self._on_stream)
        connection.on_closed = self.guard("connection", self._on_closed)
        connection.start()

    def terminate(self, reason: ExitReason) -> None:
        """Tell the other relay why, if nobody did."""
        if not self._ended:
            code = CloseCode.INTERNAL_ERROR if reason.abnormal else CloseCode.GOING_AWAY
            self._connection.close(code, code.name.lower())

    def describe(self) -> dict[str, object]:
        """Who is connected, from where."""
        statistics = self._connection.statistics()
        return {
            "relay": self._identity.relay_id,
            "relay_uri": self._identity.text,
            "direction": "in",
            "remote": "{}:{}".format(*self._connection.remote_address),
            "streams": statistics.streams,
            "opening": len(self._opening),
            "signalling": self._signalling is not None and self._signalling.open,
            "datagrams_in": statistics.datagrams_in,
            "datagrams_out": statistics.datagrams_out,
            "round_trip_ms": round(statistics.round_trip * 1000, 3),
        }

    def _on_closed(self, reason: CloseReason) -> None:
        self._ended = True
        self._door.counters[f"relay_connection_{reason.kind}"] += 1
        self.stop(shutdown(str(reason)))

    @handles(Close)
    def _close_asked(self, message: Close) -> None:
        if not self._ended:
            self._ended = True
            self._connection.close(message.code, message.reason)
            self.stop(shutdown(message.reason))

    # Streams.

    def _on_stream(self, stream: Stream) -> None:
        if len(self._opening) >= self._door.settings.max_opening_per_agent:
            self._door.counters["stream_opening_limit"] += 1
            stream.abort(ResetCode.DEADLINE)
            return
        self._read_frame(stream, self._on_first_frame)

    def _read_frame(self, stream: Stream, then: object, early: bytes = b"") -> None:
        first = FirstFrame(
            self.system,
            stream,
            self._door.settings.first_frame_deadline,
            self.guard("first frame", then),  # type: ignore[arg-type]  # a bound method
            self.guard("first frame", self._on_failed),
        )
        self._opening[first] = None
        self.own(first, "opening")
        first.start(early)

    def _on_failed(self, first: FirstFrame, label: str) -> None:
        self._door.counters[f"relay_{label}"] += 1
        self._leave_opening(first)

    def _leave_opening(self, first: FirstFrame) -> None:
        self._opening.pop(first, None)
        self.disown(first)

    def _on_first_frame(self, first: FirstFrame, frame: Frame, rest: bytes) -> None:
        self._leave_opening(first)
        stream = first.stream
        message = self._decoded(stream, frame)
        if isinstance(message, Ping) and self._signalling is None:
            relay_id = self._identity.relay_id
            signalling = Signalling(stream, self._from_relay, self._door.counters)
            self._signalling = self.own(signalling, "signalling")
            signalling.accept(self.guard, rest)
            self.own(self._door.relays.add_voice(relay_id, self.ref), "voice")
            self._frames.repeat(relay_id, signalling)
            return
        source = self._source(message) if isinstance(message, ForwardStream) else None
        if source is None or not isinstance(message, ForwardStream):
            if message is not None:
                self._unexpected(stream)
        elif message.target_service:
            self._open_stream(stream, message, source, rest)
        else:
            # Another relay's half of a stream: its positions follow.
            def positions(second: FirstFrame, frame: Frame, rest: bytes) -> None:
                self._on_positions(second, frame, rest, source)

            self._read_frame(stream, positions, rest)

    def _decoded(self, stream: Stream, frame: Frame) -> object:
        try:
            return decode(frame)
        except PeerError as error:
            self._door.counters[f"relay_first_frame_{error.label}"] += 1
            stream.abort(ResetCode.MALFORMED)
            return None

    def _unexpected(self, stream: Stream) -> None:
        """The sheet's relay ends such a stream without a frame (2.5, silent outcomes)."""
        self._door.counters["relay_first_frame_unexpected"] += 1
        stream.write_eof()
        stream.stop_sending(ResetCode.MALFORMED)

    def _source(self, message: ForwardStream) -> AgentUri | None:
        """The agent the stream comes from, if it is one we serve."""
        try:
            identity = parse_identity(message.source_agent_uri)
        except IdentityError:
            return None
        tenants = self._door.settings.tenants
        if not isinstance(identity, AgentUri) or (tenants and identity.tenant not in tenants):
            self._door.counters["relay_source_refused"] += 1
            return None
        return identity

    def _open_stream(
        self, stream: Stream, message: ForwardStream, source: AgentUri, rest: bytes
    ) -> None:
        # The reference sends no id; its agents confuse streams that share id 0 (X2).
        stream_id = message.stream_id or self.system.rng.getrandbits(63) + 1
        opening = Opening(
            OpenStream(message.target_service, message.method, stream_id),
            stream,
            rest,
            source.text,
            source.tenant,
            self.ref,
            relay=self._identity.relay_id,
        )
        spec = ChildSpec(
            f"{stream_id:016x}~{self._door.next_serial()}",
            lambda: EgressPair(self._door, opening),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            self._hand_over(opening, self.system.start_child(self._door.streams(), spec))
            self._door.counters["streams_from_relays"] += 1
        except ChildRefused as refused:
            self._door.counters[f"stream_refused_{refused.why}"] += 1
            opening.refuse()

    def _on_positions(
        self, second: FirstFrame, frame: Frame, rest: bytes, source: AgentUri
    ) -> None:
        self._leave_opening(second)
        stream = second.stream
        message = self._decoded(stream, frame)
        if not isinstance(message, StreamResume) or not message.stream_id:
            if message is not None:
                self._unexpected(stream)
            return
        relay = self._identity.relay_id
        half = Half(stream, message, rest, source.text, source.tenant, relay=relay)
        spec = ChildSpec(
            f"{message.stream_id:016x}~{self._door.next_serial()}",
            lambda: ResumeHalf(self._door, half),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            self._hand_over(half, self.system.start_child(self._door.halves(), spec))
            self._door.counters["halves_from_relays"] += 1
        except ChildRefused as refused:
            self._door.counters[f"resume_refused_{refused.why}"] += 1
            half.abort()

    def _hand_over(self, what: Opening | Half, to: ActorRef) -> None:
        self._handed[self.monitor(to)] = what

    @handles(Down)
    def _down(self, down: Down) -> None:
        """A stream's owner ended; if it did before it ran, the stream is still ours to end."""
        handed = self._handed.pop(down.token, None)
        if handed is not None:
            handed.abandon()

    # What agents say to each other across the link.

    @handles(Forward)
    def _forward(self, message: Forward) -> None:
        if self._signalling is not None:
            self._signalling.send(message.frame)
        else:
            self._door.counters["relay_frame_dropped"] += 1

    def _from_relay(self, event: PeerFrame) -> None:
        self._frames.from_relay(event, self._identity.relay_id, self.now())
