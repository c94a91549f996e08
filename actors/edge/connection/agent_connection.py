"""One connected agent: its connection, its ctrl stream, its registrations.

Owns the connection and everything on it that has no owner of its own yet (streams whose first
frame is being read). Holds, beside the registry, the list of services this agent registered, and
publishes them again when the registry was restarted. Temporary: the agent's reconnect is its
restart.

Source: protocol sheet ORP 3.1, 3.2, 3.6, 3.9; 6.1 R9, R14; 6.2 R17, R18.
"""

from __future__ import annotations

import asyncio
import contextlib

from actors.control.messages import (
    AgentUp,
    Confirm,
    Decide,
    PeerOf,
    RegisterRefused,
    RegisterService,
    Superseded,
)
from actors.edge.connection.first_frame import FirstFrame
from actors.edge.connection.peer_frames import PeerFrames
from actors.edge.connection.stream_acceptor import StreamAcceptor
from actors.edge.context import ConnectionEntry, EdgeContext
from actors.edge.ctrl_pace import CtrlPace
from actors.edge.messages import (
    Close,
    CopyFrame,
    OpenTowards,
    RemoteAddress,
    SendGranted,
    SendReady,
)
from actors.edge.opening.open_request import OpenRequest
from actors.edge.opening.stream_pair import StreamPair
from actors.edge.resume.returning import ResumingStream
from actors.edge.stream_credit import StarvedCheck, StreamCredit
from actors.runtime import (
    ActorDown,
    AskFailed,
    Deferred,
    Down,
    ExitReason,
    MailboxSpec,
    NoAnswer,
    Refusal,
    ReplyError,
    handles,
    shutdown,
)
from actors.runtime.serial_queue import SerialQueue
from actors.transport.addresses import address_text
from actors.transport.connection import Connection
from actors.transport.quota import Ticket
from actors.transport.stream import CloseReason, Stream
from wire.errors import PeerError
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.control_session import ControlSession, RelayState
from wire.orp.events import ControlClosed, PeerFrame, RelayEvent, SessionFailed
from wire.orp.frame import Frame, FrameType
from wire.orp.identity import AgentUri
from wire.orp.messages import (
    CandidateAnswer,
    CandidateOffer,
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
#: Pause before a refused announcement to the registry is tried again, seconds (times jitter).
ANNOUNCE_AGAIN = 0.25
#: Seconds (times jitter) after which an idle connection asks whether the registry still has it.
ANNOUNCE_REFRESH = 30.0

#: Method of the policy decision on a REGISTER, when it is judged.
REGISTER_METHOD = "REGISTER"


class _Announce:
    """Tell the registry about this agent again."""

    __slots__ = ()


class _Confirm:
    """Does the registry have what it was told?"""

    __slots__ = ()


def _forgotten(refused: ReplyError) -> bool:
    """True when the registry restarted since our AgentUp."""
    value = refused.refusal
    return isinstance(value, RegisterRefused) and value.why == "not_connected"


class AgentConnection(StreamAcceptor):
    """See the module docstring."""

    mailbox = MailboxSpec(bound=4096)

    def __init__(
        self, door: EdgeContext, connection: Connection, identity: AgentUri, ticket: Ticket
    ) -> None:
        super().__init__(door, identity.tenant, identity.text)
        self._ticket = ticket
        self._connection = connection
        self._identity = identity
        self._ctrl: Stream | None = None
        self._generation = 0
        self._registry_monitor = 0
        self._services: dict[str, str] = {}
        self._credit = StreamCredit(self, connection, door.counters)
        self._ended = False
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
        settings = self._door.settings
        self._registrations: SerialQueue[Register] = SerialQueue(
            self, "register", self._register, bound=settings.max_services_per_agent
        )
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
            "generation": self._generation,
            "session": self._session.state.value,
            "services": sorted(self._services),
            "streams": statistics.streams,
            "opening": len(self._opening),
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

    def _close(self, code: int, reason: str) -> None:
        """End the connection with a code; the actor ends with it."""
        if not self._ended:
            self._ended = True
            self._connection.close(code, reason)
            self.stop(shutdown(reason or "closed"))

    def _fail(self, error: PeerError) -> None:
        self._door.counters[f"ctrl_{error.label}"] += 1
        self.log.bind(agent_uri=self._identity.text).info("ctrl failed: {}", error)
        self._close(error.code, error.reason)

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
            self._take(stream, self._on_first_frame)

    # The ctrl stream.

    def _ctrl_frames(self) -> int:
        return self._session.statistics().frames_received

    def _on_ctrl_data(self, chunk: bytes) -> None:
        self._serve(self._session.receive(chunk, self.now()))

    def _on_ctrl_eof(self) -> None:
        self._serve(self._session.receive_eof())

    def _on_ctrl_reset(self, code: int) -> None:
        self._door.counters["ctrl_reset"] += 1
        self._close(CloseCode.CTRL_CLOSED, "ctrl stream reset")

    @handles(ControlSession)
    def _due(self, _: ControlSession) -> None:
        self._serve(self._session.handle_timer(self.now()))

    def _serve(self, events: list[RelayEvent]) -> None:
        for event in events:
            if isinstance(event, Hello):
                self._connection.welcome()
                entry = ConnectionEntry(self._door, self._identity.text, self.ref, self._services)
                self.own(entry, "entry")
                self.ref.tell(_Announce())
            elif isinstance(event, Register):
                self._on_register(event)
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
                self._close(CloseCode.CTRL_CLOSED, "ctrl stream closed")
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
                self._close(CloseCode.OVERLOADED, "ctrl stream is not read")

    def _arm(self) -> None:
        when = self._session.next_timer()
        if when is None:
            self.cancel_timer("session")
        else:
            self.start_timer(max(0.0, when - self.now()), self._session, "session")

    # Registration.

    @handles(_Announce)
    async def _announce(self, _: _Announce) -> None:
        registry = self._door.control().registry
        if self._registry_monitor:
            self.demonitor(self._registry_monitor)
        self._registry_monitor = self.monitor(registry)
        up = AgentUp(self._identity.text, self._identity.tenant, self.ref, self._generation)
        try:
            self._generation = await registry.ask_again(
                up, timeout=self._door.settings.register_deadline
            )
            for name, address in list(self._services.items()):
                await registry.ask_again(
                    self._registration(name, address),
                    timeout=self._door.settings.register_deadline,
                )
        except ReplyError as refused:
            if not _forgotten(refused):
                self._close(CloseCode.REGISTER_FAILED, f"registry: {refused}")
                return
            # It restarted between our AgentUp and the services: from the start, at once.
            self._door.counters["announce_again"] += 1
            self.start_timer(0.0, _Announce(), "announce")
        except NoAnswer:
            self._door.counters["announce_again"] += 1
            again = ANNOUNCE_AGAIN * self.system.rng.uniform(0.5, 2.0)
            self.start_timer(again, _Announce(), "announce")
        else:
            self._confirm_later()

    def _confirm_later(self) -> None:
        refresh = ANNOUNCE_REFRESH * self.system.rng.uniform(0.5, 1.5)
        self.start_timer(refresh, _Confirm(), "announce")

    @handles(_Confirm)
    async def _confirm(self, _: _Confirm) -> None:
        """What one lost notice would otherwise cost for good is repaired here."""
        question = Confirm(self._identity.text, self._generation, len(self._services))
        try:
            known = await self._door.control().registry.ask(
                question, timeout=self._door.settings.register_deadline
            )
        except AskFailed:
            known = False
        if known:
            self._confirm_later()
        else:
            self.start_timer(0.0, _Announce(), "announce")

    def _registration(self, name: str, address: str) -> RegisterService:
        identity = self._identity
        return RegisterService(identity.tenant, name, identity.text, self._generation, address)

    def _in_rate(self, event: PeerFrame) -> bool:
        """False: too many addresses for other agents to dial."""
        if not isinstance(event.message, CandidateOffer | CandidateAnswer):
            return True
        return self._door.quotas.candidates.take(*self._bringer, self.now())

    def _on_register(self, register: Register) -> None:
        full = len(self._services) + len(self._registrations)
        if full >= self._door.settings.max_services_per_agent:
            self._door.counters["register_limit"] += 1
            self._close(CloseCode.REGISTER_FAILED, "too many services")
        elif not self._registrations.add(register):
            self._close(CloseCode.TOO_MANY_REQUESTS, "too many REGISTERs")

    async def _register(self, register: Register) -> None:
        deadline = self.now() + self._door.settings.register_deadline
        registry = self._door.control().registry
        if not await self._may_provide(register.service_name):
            self._door.counters["register_denied"] += 1
            self._close(CloseCode.REGISTER_FAILED, "not allowed to provide this service")
            return
        if register.service_name not in self._services:
            ticket = self._door.quotas.services.take(*self._bringer)
            if ticket is None:
                self._close(CloseCode.REGISTER_FAILED, "too many services")
                return
            self.own(ticket, "ticket")
        try:
            service_id = ""
            while not service_id:
                while not self._generation and self.now() < deadline:
                    # HELLO is still on its way to the registry.
                    with contextlib.suppress(ActorDown):  # control as a whole restarts: wait, too
                        await registry.started(timeout=max(0.001, deadline - self.now()))
                    await self._pause()
                try:
                    service_id = await registry.ask_again(
                        self._registration(register.service_name, register.local_addr),
                        timeout=max(0.001, deadline - self.now()),
                    )
                except ReplyError as refused:
                    if not _forgotten(refused) or self.now() >= deadline:
                        raise
                    # It restarted: the announcement that its Down caused is on the way.
                    await self._pause()
        except (AskFailed, TimeoutError) as error:
            self._door.counters["register_failed"] += 1
            self.log.bind(agent_uri=self._identity.text).warning("REGISTER failed: {}", error)
            self._close(CloseCode.REGISTER_FAILED, "register failed")
            return
        self._services[register.service_name] = register.local_addr
        self._session.send(RegisterAck(service_id))
        self._write_ctrl()

    async def _may_provide(self, service: str) -> bool:
        """The policy on REGISTER (sheet 6.2 R20); without an answer in time, nobody may."""
        if not self._door.settings.judge_registers:
            return True
        identity = self._identity
        try:
            decision = await self._door.control().policy.ask_again(
                Decide(identity.tenant, identity.text, service, REGISTER_METHOD),
                timeout=self._door.settings.policy_deadline,
            )
        except AskFailed:
            return False
        return decision.allow

    @staticmethod
    async def _pause() -> None:
        await asyncio.sleep(0.005)

    @handles(Down)
    def _down(self, down: Down) -> None:
        """A stream's owner ended, or the registry restarts and must hear of this agent again."""
        if self._owner_ended(down):
            return
        if down.token == self._registry_monitor and self._session.state is RelayState.READY:
            self.start_timer(0.0, _Announce(), "announce")

    @handles(Superseded)
    def _superseded(self, _: Superseded) -> None:
        self._door.counters["superseded"] += 1
        self._close(CloseCode.SUPERSEDED, "superseded by a newer connection")

    @handles(Close)
    def _close_asked(self, message: Close) -> None:
        self._close(message.code, message.reason)

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

    @handles(CopyFrame)
    def _forward(self, message: CopyFrame) -> None:
        if self._session.state is RelayState.READY and self._session.forward(message.frame):
            self._write_ctrl()

    @handles(SendReady)
    def _send_ready(self, message: SendReady) -> None:
        if self._session.state is RelayState.READY:
            self._session.send(StreamReady(message.stream_id, message.peer))
            self._write_ctrl()

    @handles(SendGranted)
    def _send_granted(self, message: SendGranted) -> None:
        if self._session.state is RelayState.READY:
            self._session.send(message.granted)
            self._write_ctrl()

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
            self._close(CloseCode.GOING_AWAY, "stream credit used up by streams that ended")

    def _barren(self) -> None:
        if not self._door.quotas.barren.take(*self._bringer, self.now()):
            self._close(CloseCode.OVERLOADED, "too many streams without a first frame")

    def _on_first_frame(self, first: FirstFrame, frame: Frame, rest: bytes) -> None:
        stream, identity = first.stream, self._identity
        message = self._decoded(stream, frame)
        if frame.type == FrameType.OPEN_STREAM and isinstance(message, OpenStream):
            opening = OpenRequest(message, stream, rest, identity.text, identity.tenant, self.ref)
            self._start_pair(opening, StreamPair)
        elif isinstance(message, StreamResume | MigrateToRelay) and message.stream_id:
            half = ResumingStream(stream, message, rest, identity.text, identity.tenant)
            self._start_half(half, "resume_asked")
        elif message is not None:
            self._unexpected(stream)
