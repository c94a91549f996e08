"""One connected agent: its connection and its ctrl stream, and the streams it brings.

Owns the connection and everything on it that has no owner of its own yet (streams whose first
message is being read). What the agent provides is `registration`'s. Temporary: the agent's
reconnect is its restart.

Source: protocol sheet ORP 3.1, 3.2, 3.6, 3.9; 6.1 R9, R14; 6.2 R17, R18.
"""

from __future__ import annotations

from functools import partial

from actors.control.messages import (
    PeerOf,
    Superseded,
)
from actors.edge.connection.peer_frames import PeerFrames
from actors.edge.connection.registration import Announce, Recheck, Registration
from actors.edge.connection.stream_acceptor import StreamAcceptor
from actors.edge.context import ConnectionEntry, EdgeContext
from actors.edge.ctrl_pace import CtrlPace
from actors.edge.messages import (
    Close,
    CopyFrame,
    RemoteAddress,
    SendGranted,
    SendReady,
)
from actors.edge.opening.open_request import OpenRequest
from actors.edge.resume.absences import ASK_ROUND_TRIPS, ASK_SECONDS
from actors.edge.resume.returning import ResumingStream
from actors.edge.stream_credit import StarvedCheck, StreamCredit
from actors.runtime import (
    AskFailed,
    Deferred,
    Down,
    ExitReason,
    MailboxSpec,
    Refusal,
    handles,
    shutdown,
)
from actors.runtime.serial_queue import SerialQueue
from actors.transport.addresses import address_text
from actors.transport.claim import OpenTowards
from actors.transport.connection import Connection
from actors.transport.quota import Ticket
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.control_session import ControlSession, RelayState
from wire.orp.events import ControlClosed, PeerFrame, RelayEvent, SessionFailed
from wire.orp.identity import AgentUri
from wire.orp.messages import (
    AllocGranted,
    CandidateAnswer,
    CandidateOffer,
    FirstWord,
    Hello,
    MigrateToP2P,
    MigrateToRelay,
    ObservedAddrQuery,
    ObservedAddrResp,
    OpenStream,
    Register,
    RegisterAck,
    StreamReady,
    StreamResume,
)

#: Ctrl frames waiting for their peer to be looked up; more are dropped and counted.
MAX_ROUTED = 256


class _Settled:
    """An agent that had streams would have asked for one by now."""

    __slots__ = ()


class AgentConnection(StreamAcceptor):
    """The actor of one agent's connection."""

    mailbox = MailboxSpec(bound=4096)

    def __init__(
        self, door: EdgeContext, connection: Connection, identity: AgentUri, ticket: Ticket
    ) -> None:
        super().__init__(door, identity.tenant, identity.text)
        self._ticket = ticket
        self._connection = connection
        self._identity = identity
        self._ctrl: Stream | None = None
        self._registration = Registration(self, self, door, identity)
        self._credit = StreamCredit(self, connection, door.counters)
        self._ended = False
        self._brought_back = False
        self._frames = PeerFrames(door)

    def init(self) -> None:
        """Take the connection over."""
        connection = self._connection
        self.own(connection, "connection")
        self.own(self._ticket, "ticket")
        self.own(self._handed, "streams")
        connection.abort_code = CloseCode.INTERNAL_ERROR
        self._session = ControlSession(
            connection.peer.uri, self.now(), self._door.settings.hello_deadline
        )
        self._registration.begin()
        self._routes: SerialQueue[PeerFrame] = SerialQueue(
            self, "route", self._route, bound=MAX_ROUTED
        )
        connection.on_stream = self.guard("connection", self._on_stream)
        connection.on_closed = self.guard("connection", self._on_closed)
        connection.on_stream_credit = self.guard("connection", self._credit.serve)
        self._arm()
        connection.start()

    def terminate(self, reason: ExitReason) -> None:
        """Tell the agent why, if nobody did."""
        if not self._ended:
            code = CloseCode.INTERNAL_ERROR if reason.abnormal else CloseCode.GOING_AWAY
            self._connection.close(code, code.name.lower())

    def describe(self) -> dict[str, object]:
        """Who is connected, from where, with what."""
        statistics = self._connection.statistics()
        return {
            "agent_uri": self._identity.text,
            "tenant": self._identity.tenant,
            "remote": address_text(*self._connection.remote_address),
            "transport": self._connection.transport,
            "certificate_ends": self._connection.peer.not_after.isoformat(),
            "generation": self._registration.generation,
            "session": self._session.state.value,
            "services": sorted(self._registration.services),
            "streams": statistics.streams,
            "opening": self._opening,
            "waiting_for_credit": len(self._credit),
            "datagrams_in": statistics.datagrams_in,
            "datagrams_out": statistics.datagrams_out,
            "round_trip_ms": round(statistics.round_trip * 1000, 3),
            "congestion_window": statistics.congestion_window,
            "in_flight": statistics.in_flight,
            "lost": statistics.lost,
        }

    # The connection.

    def _on_closed(self, reason: CloseReason) -> None:
        self._ended = True
        self._door.counters[f"connection_{reason.kind}"] += 1
        self.stop(shutdown(str(reason)))

    def close(self, code: int, reason: str) -> None:
        """End the connection with a code; the actor ends with it."""
        if not self._ended:
            self._ended = True
            self._connection.close(code, reason)
            self.stop(shutdown(reason or "closed"))

    def _fail(self, error: PeerError) -> None:
        self._door.counters[f"ctrl_{error.label}"] += 1
        self.log.bind(agent_uri=self._identity.text).info("ctrl failed: {}", error)
        self.close(error.code, error.reason)

    def _on_stream(self, stream: Stream) -> None:
        if self._ctrl is None:
            self._ctrl = stream
            pace = CtrlPace(self, stream, self._on_ctrl_data, self._ctrl_frames)
            stream.on_data = self.guard("ctrl", self.own(pace, "pace").data)
            stream.on_eof = self.guard("ctrl", self._on_ctrl_eof)
            stream.on_reset = self.guard("ctrl", self._on_ctrl_reset)
            stream.on_stop_sending = self.guard("ctrl", self._on_ctrl_reset)
            stream.start()
            return
        if self._session.state is not RelayState.READY:
            self._door.counters["stream_before_hello"] += 1
            stream.abort(ResetCode.MALFORMED)
            self._barren()
        else:
            self._take(stream, partial(self._on_first, stream))

    # The ctrl stream.

    def _ctrl_frames(self) -> int:
        return self._session.statistics().frames_received

    def _on_ctrl_data(self, chunk: bytes) -> None:
        self._serve(self._session.receive(chunk, self.now()))

    def _on_ctrl_eof(self) -> None:
        self._serve(self._session.receive_eof())

    def _on_ctrl_reset(self, code: int) -> None:
        self._door.counters["ctrl_reset"] += 1
        self.close(CloseCode.CTRL_CLOSED, "ctrl stream reset")

    @handles(ControlSession)
    def _due(self, _: ControlSession) -> None:
        self._serve(self._session.handle_timer(self.now()))

    def _serve(self, events: list[RelayEvent]) -> None:
        for event in events:
            if isinstance(event, Hello):
                self._connection.welcome()
                services = self._registration.services
                entry = ConnectionEntry(self._door, self._identity.text, self.ref, services)
                self.own(entry, "entry")
                self.ref.tell(Announce())
                self._await_returns()
            elif isinstance(event, Register):
                self._await_returns()
                self._registration.register(event)
            elif isinstance(event, ObservedAddrQuery):
                host, port = self._connection.remote_address
                self._session.send(ObservedAddrResp(event.request_id, host, port))
            elif isinstance(event, PeerFrame):
                self._frames.notice(event, self._identity.text)
                if not self._in_rate(event):
                    continue
                if self._frames.allowed(event) and not self._routes.add(event):
                    self._door.counters["peer_frame_dropped"] += 1
            elif isinstance(event, MigrateToP2P):
                self._migrate(event)
            elif isinstance(event, ControlClosed):
                self.close(CloseCode.CTRL_CLOSED, "ctrl stream closed")
            elif isinstance(event, SessionFailed):
                self._write_ctrl()
                self._fail(event.error)
                return
        self._write_ctrl()
        self._arm()

    def _write_ctrl(self) -> None:
        data = self._session.data_to_send()
        if data and self._ctrl is not None and not self._ctrl.write_closed:
            room = self._ctrl.write(data)
            if room < 0:
                self._door.counters["ctrl_backlog"] += 1
                self.close(CloseCode.OVERLOADED, "ctrl stream is not read")

    def _arm(self) -> None:
        when = self._session.next_timer()
        if when is None:
            self.cancel_timer("session")
        else:
            self.start_timer(max(0.0, when - self.now()), self._session, "session")

    # Registration.

    @handles(Announce)
    async def _announce(self, _: Announce) -> None:
        await self._registration.announce()

    @handles(Recheck)
    async def _recheck(self, _: Recheck) -> None:
        await self._registration.recheck()

    @handles(Down)
    def _down(self, down: Down) -> None:
        """A stream's owner ended, or the registry restarts and must hear of this agent again."""
        if self._owner_ended(down):
            return
        if self._session.state is RelayState.READY:
            self._registration.registry_down(down)

    @handles(Superseded)
    def _superseded(self, _: Superseded) -> None:
        self._door.counters["superseded"] += 1
        self.close(CloseCode.SUPERSEDED, "superseded by a newer connection")

    @handles(Close)
    def _close_asked(self, message: Close) -> None:
        self.close(message.code, message.reason)

    # Frames between agents.

    async def _route(self, event: PeerFrame) -> None:
        stream_id, uri = event.message.stream_id, self._identity.text
        if self._frames.across(event, uri, self.now()):
            return
        peer_of = PeerOf(stream_id, uri)
        try:
            peer = await self._door.control().registry.ask_again(
                peer_of, timeout=self._door.settings.resolve_deadline
            )
        except AskFailed:
            peer = None
        if peer is None:
            peer = self._frames.former_peer(event, uri, self.now())
        if peer is None or not peer.try_tell(CopyFrame(event)):
            self._door.counters["peer_frame_dropped"] += 1

    def _migrate(self, message: MigrateToP2P) -> None:
        uri = self._identity.text
        if not self._frames.migrate(message, uri):
            return
        # The other agent's relay waits for it, too.
        self._frames.across(PeerFrame(message, message.to_frame()), uri, self.now())

    def _in_rate(self, event: PeerFrame) -> bool:
        """False: too many addresses for other agents to dial."""
        if not isinstance(event.message, CandidateOffer | CandidateAnswer):
            return True
        return self._door.quotas.candidates.take(*self._bringer, self.now())

    @handles(CopyFrame)
    def _forward(self, message: CopyFrame) -> None:
        if self._session.state is RelayState.READY and self._session.forward(message.frame):
            self._write_ctrl()

    def say(self, message: RegisterAck | StreamReady | AllocGranted) -> None:
        """Send on ctrl, while there is one."""
        if self._session.state is RelayState.READY:
            self._session.send(message)
            self._write_ctrl()

    @handles(SendReady)
    def _send_ready(self, message: SendReady) -> None:
        self.say(StreamReady(message.stream_id, message.peer))

    @handles(SendGranted)
    def _send_granted(self, message: SendGranted) -> None:
        self.say(message.granted)

    @handles(RemoteAddress)
    def _remote_address(self, _: RemoteAddress) -> tuple[str, int] | Refusal:
        if self._connection.closed is not None:
            return Refusal("closed")
        return self._connection.remote_address

    # Streams.

    @handles(OpenTowards)
    def _open_towards(self, message: OpenTowards) -> Refusal | Deferred | None:
        return self._credit.open(message)

    @handles(StarvedCheck)
    def _starved(self, _: StarvedCheck) -> None:
        if self._credit.starved():
            self._door.meters.counters["agents_recycled_total"] += 1
            self.log.bind(agent_uri=self._identity.text).warning(
                "connection recycled: streams that ended hold the agent's stream credit"
            )
            self.close(CloseCode.GOING_AWAY, "stream credit used up by streams that ended")

    def _await_returns(self) -> None:
        round_trip = self._connection.statistics().round_trip
        self.start_timer(ASK_SECONDS + ASK_ROUND_TRIPS * round_trip, _Settled(), "settled")

    @handles(_Settled)
    def _settled(self, _: _Settled) -> None:
        if self._opening or self._arrived:
            self._await_returns()  # what they are for is not known yet
        elif not self._brought_back:
            self._door.absences.came_without(self._identity.text)

    def _barren(self) -> None:
        if not self._door.quotas.barren.take(*self._bringer, self.now()):
            self.close(CloseCode.OVERLOADED, "too many streams without a first frame")

    def _on_first(self, stream: Stream, message: FirstWord, rest: bytes) -> None:
        identity = self._identity
        if isinstance(message, OpenStream):
            self._start_pair(
                OpenRequest(message, stream, rest, identity.text, identity.tenant, self.ref)
            )
        elif isinstance(message, StreamResume | MigrateToRelay) and message.stream_id:
            self._brought_back = True
            half = ResumingStream(stream, message, rest, identity.text, identity.tenant)
            self._start_half(half, "resume_asked")
        else:
            self._unexpected(stream)
