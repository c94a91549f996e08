"""The connection to a relay: dial, HELLO, REGISTER, ctrl stream, reconnect.

All relays are dialled at once and the first finished handshake wins, by QUIC, else by TCP where
that is configured; on TCP QUIC is tried again now and then. After a loss the next round starts at
once, then waits 1 s doubling to 30 s with jitter. The link outlives connections: local
connections that arrive meanwhile wait for the next one, bounded by their own deadline.

Source: protocol sheet ORP 3.1, 3.2, 3.12, 3.13; 6.5 A9, A11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from actors.runtime import (
    ChildRefused,
    ChildSpec,
    Deferred,
    ExitReason,
    MailboxSpec,
    Refusal,
    Restart,
    handles,
)
from actors.transport.addresses import address_text
from actors.transport.claim import OpenTowards
from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import CloseReason, Stream
from actors.transport.tcp import TcpEndpoint
from actors.transport.tls import TlsIdentity, TlsMaterialError
from tools.agent.certificates import load_agent_identity
from tools.agent.complaints import Complaints
from tools.agent.dialling import Dialler, race
from tools.agent.direct_paths import ALPN, SWEEP_SECONDS
from tools.agent.messages import Drain, Promote, ReadCertificates, WatchMode
from tools.agent.open_queue import OpenQueue, PatienceOver
from tools.agent.promoter import Promoter
from tools.agent.provider_bridge import ProviderBridge
from tools.agent.relays_only import RelaysOnly
from tools.agent.settings import AgentSettings
from tools.agent.silence import NOTHING_HEARD, RelaySilent, SilenceWatch
from tools.agent.stream_keeper import StreamKeeper
from tools.agent.stream_table import StreamTable
from tools.agent.targets import Targets
from wire.orp.agent_session import AgentSession
from wire.orp.close_codes import CloseCode, ResetCode
from wire.orp.events import ControlClosed, ServiceRegistered, SessionFailed, SessionReady
from wire.orp.messages import (
    PROTOCOL_VERSION,
    AllocGranted,
    CandidateAnswer,
    CandidateOffer,
    MigrateToP2P,
    ObservedAddrResp,
    Register,
    StreamCheckpoint,
    StreamReady,
)

#: As `AgentSettings.relay_patience`, behind a relay that had said nothing until its idle timeout.
IDLE_PATIENCE = 2.0
#: Streams whose mode is waited for.
MAX_WATCHED = 16_384


class _Dial:
    """Try all relays again."""

    __slots__ = ()


class _Sweep:
    """Are there direct connections nobody uses?"""

    __slots__ = ()


class _TryQuic:
    """We are on TCP: does a relay answer by QUIC again?"""

    __slots__ = ()


class _Due:
    """The session's timer is due."""

    __slots__ = ()


class RelayLink(StreamKeeper):
    mailbox = MailboxSpec(bound=8192)
    handler_limit = 120.0
    #: What dials relays; benchmarks dial like agents of another make.
    endpoint_type: type[QuicEndpoint] = QuicEndpoint

    def __init__(self, settings: AgentSettings, bridges: str, table: StreamTable) -> None:
        super().__init__(settings, table)
        self._bridges = bridges
        self._targets = Targets(settings.provide)
        self._ctrl: Stream | None = None
        self._registered: list[str] = []
        self._rounds = 0
        self._promoter: Promoter | None = None
        self._tcp: TcpEndpoint | None = None
        #: Times in a row that another connection took our place.
        self._superseded = 0
        self._over_tcp = False
        self._return_pause = 0.0
        self._connected = 0
        self._serial = 0
        self._draining = False
        self._last_error = ""
        self._complaints = Complaints(lambda text: self.log.warning("{}", text))
        self._waiting = OpenQueue(self, self._open)
        self._silence = SilenceWatch(self)
        #: Streams being opened; bound: MAX_WATCHED, the oldest is dropped; cleared with the
        #: connection.
        self._watched: dict[int, Callable[[AllocGranted | None, str], object]] = {}

    def init(self) -> None:
        """Read the certificates; dialling follows."""
        settings = self._settings
        identity = TlsIdentity.load(
            Path(settings.certificate), Path(settings.key), Path(settings.ca)
        )
        self._uri = settings.uri or identity.uri
        self._endpoint = self._make_endpoint(identity)
        if settings.relays_tcp:
            tcp = TcpEndpoint(alpn=(PROTOCOL_VERSION,), identity=identity)
            self._tcp = self.own(tcp, "tcp endpoint")
        self._keep_streams()
        self.ref.tell(_Dial())

    def _make_endpoint(self, identity: TlsIdentity) -> QuicEndpoint:
        """For relays; and, when wanted, for other agents by the same socket."""
        settings = self._settings
        if settings.p2p_listen is None:
            return self.own(
                self.endpoint_type(
                    alpn=(PROTOCOL_VERSION,), identity=identity, settings=QuicSettings()
                ),
                "endpoint",
            )
        endpoint = self.own(
            QuicEndpoint(
                identity=identity,
                settings=QuicSettings(),
                alpn=ALPN,
                on_connection=self.guard("direct", self._dialled),
            ),
            "endpoint",
        )
        endpoint.attach(settings.p2p_listen, self.guard)
        self._promoter = self.own(
            Promoter(self, self, endpoint, settings, self._table, self._uri), "promoter"
        )
        self.start_timer(SWEEP_SECONDS, _Sweep(), "sweep")
        return endpoint

    def _dialled(self, connection: Connection) -> None:
        if self._promoter is not None:
            self._promoter.paths.admit(connection)

    @handles(_Sweep)
    def _sweep(self, _: _Sweep) -> None:
        if self._promoter is not None:
            self._promoter.paths.sweep()
            self.start_timer(SWEEP_SECONDS, _Sweep(), "sweep")

    @handles(Promote)
    def _promote(self, message: Promote) -> None:
        if self._promoter is not None and not self._over_tcp:
            self._promoter.watch(message.stream)

    def say(self, message: CandidateOffer | CandidateAnswer | MigrateToP2P) -> bool:
        if self._session is None or not self._ready or not self._session.send(message):
            return False
        self._write_ctrl()
        return True

    def describe(self) -> dict[str, object]:
        """To whom we are connected, and what we offer."""
        connection, promoter = self._connection, self._promoter
        return {
            "agent_uri": self._uri,
            "relay": address_text(*connection.remote_address) if connection else "",
            "relay_uri": connection.peer.uri if connection else "",
            "direct_connections": len(promoter.paths) if promoter else 0,
            "direct_streams": promoter.paths.streams if promoter else 0,
            "promoted": promoter.promoted if promoter else 0,
            "stayed_on_relay": promoter.stayed if promoter else 0,
            "transport": "tcp" if self._over_tcp else "quic",
            "ready": self._ready,
            "registered": list(self._registered),
            "connections": self._connected,
            "waiting": len(self._waiting),
            "streams": len(self._table.streams),
            "parked": len(self._table.parked()),
            "resumed": self._resumed,
            "resume_expired": self._expired,
            "last_error": self._last_error,
        }

    def terminate(self, reason: ExitReason) -> None:
        """Say that we leave on purpose, so that nobody waits for us."""
        if self._connection is not None and not reason.abnormal:
            self._connection.on_closed = lambda reason: None  # it is no loss
            self._connection.close(CloseCode.SILENT, "")

    # Dialling.

    @handles(_Dial)
    def _dial(self, _: _Dial) -> None:
        if self._connection is None:
            self._waiting.relay_lost(self._settings.relay_patience)
            self.spawn_task(self._dial_all(), "dial")

    async def _dial_all(self) -> None:
        settings = self._settings
        self._read_certificates()
        connection = await self._dial_by(self._endpoint, settings.relays, "QUIC")
        self._over_tcp = connection is None and self._tcp is not None
        if connection is None and self._tcp is not None:
            by_quic = self._last_error
            connection = await self._dial_by(self._tcp, settings.relays_tcp, "TCP")
            self._last_error = "; ".join(filter(None, (by_quic, self._last_error)))
        if connection is None:
            why = self._last_error or "no relay to dial"
            self._complaints.say(f"no relay answers: {why}", self.now())
            self._again()
            return
        self._adopt(connection)
        if self._over_tcp:
            self.log.info("agent on TCP+TLS fallback")
            self._return_pause = settings.return_after
            self.start_timer(self._return_pause, _TryQuic(), "quic")

    @handles(ReadCertificates)
    def _read_certificates(self, _: ReadCertificates | None = None) -> str:
        """They may have been renewed. Returns why they are not used; empty when they are."""
        try:
            identity = load_agent_identity(self._settings, self._uri)
        except (TlsMaterialError, OSError) as error:
            self.log.warning("certificates not read again, the old ones stay: {}", error)
            return str(error)
        self._endpoint.reload(identity)
        if self._tcp is not None:
            self._tcp.reload(identity)
        return ""

    @handles(Drain)
    def _drain(self, _: Drain) -> None:
        self._draining = True

    async def _dial_by(
        self, endpoint: Dialler, relays: Sequence[tuple[str, int]], transport: str
    ) -> Connection | None:
        settings = self._settings
        winner, why = await race(
            RelaysOnly(endpoint, settings.relay_ids),
            relays,
            transport=transport,
            server_name=settings.server_name,
            timeout=settings.dial_timeout,
        )
        if winner is None:
            self._last_error = why
        return winner

    @handles(_TryQuic)
    def _try_quic(self, _: _TryQuic) -> None:
        if self._over_tcp and self._connection is not None:
            self.spawn_task(self._leave_tcp(), "quic")

    async def _leave_tcp(self) -> None:
        """UDP may pass again: then the streams go on over QUIC."""
        better = await self._dial_by(self._endpoint, self._settings.relays, "QUIC")
        older = self._connection
        if not self._over_tcp or older is None:
            if better is not None:
                better.close(CloseCode.SILENT, "")
        elif better is None:
            self._return_pause = min(2 * self._return_pause, self._settings.return_cap)
            self.start_timer(self._return_pause, _TryQuic(), "quic")
        else:
            self.log.info("agent back on QUIC")
            self._over_tcp = False
            self._part(older)
            self._adopt(better)

    def _part(self, older: Connection) -> None:
        """Its streams park, and the relay keeps them for our next connection."""
        self.disown(older)
        self._forget_connection()
        older.on_closed = lambda reason: None
        older.close(CloseCode.INTERNAL_ERROR, "another transport")

    def _again(self) -> None:
        """Dial once more: at once after a loss, then with doubling pauses."""
        settings = self._settings
        pause = 0.0
        if self._rounds:
            ceiling = min(settings.backoff_cap, settings.backoff * 2.0 ** (self._rounds - 1))
            pause = ceiling * self.system.rng.uniform(0.5, 1.0)
        self._rounds = min(self._rounds + 1, 16)
        self.log.debug("dialling again in {:.2f} s: {}", pause, self._last_error)
        self.start_timer(pause, _Dial(), "dial")

    def _adopt(self, connection: Connection) -> None:
        self._connection = connection
        self._connected += 1
        self.own(connection, "connection")
        # Said when this actor dies: the relay then keeps the streams for our next connection.
        connection.abort_code = CloseCode.INTERNAL_ERROR
        connection.on_closed = self.guard("connection", self._lost)
        connection.on_stream = self.guard("connection", self._incoming)
        connection.on_stream_credit = self.guard("connection", self._on_credit)
        services = [Register(service) for service in self._targets.services]
        self._session = AgentSession(self._uri, services, self.now())
        ctrl = connection.open_stream()
        if ctrl is None:
            # Closed meanwhile, or a relay that allows no stream: `start` reports the end.
            connection.close(CloseCode.CTRL_CLOSED, "no stream credit for ctrl")
            connection.start()
            return
        self._ctrl = ctrl
        ctrl.on_data = self.guard("ctrl", self._from_ctrl)
        ctrl.on_eof = self.guard("ctrl", self._ctrl_ended)
        ctrl.on_reset = self.guard("ctrl", lambda code: self._ctrl_ended())
        ctrl.start()
        self._write_ctrl()
        connection.start()

    def _lost(self, reason: CloseReason) -> None:
        if self._connection is not None:
            self.disown(self._connection)
        self._last_error = str(reason)
        if reason.application and reason.code == CloseCode.SUPERSEDED:
            # Another process with our certificate: dialling at once would only take turns with it.
            self._superseded += 1
            self._rounds = max(self._rounds, min(self._superseded, 16))
            self.log.error(
                "another agent connected as {}: is its certificate used twice?", self._uri
            )
        else:
            self._superseded = 0
            if reason.application and reason.code == CloseCode.GOING_AWAY:
                self.log.info("the relay goes away; the next one, or it again, is dialled")
            elif self._ready or not reason.application or reason.code or reason.text:
                self.log.warning("relay connection lost: {}", reason)
            else:  # all that relays say to an identity they do not take
                closed = f"a relay closed without a word: it does not serve {self._uri}"
                self._complaints.say(closed, self.now())
        if reason.kind == "idle" or reason.text.startswith(NOTHING_HEARD):  # for long
            self._waiting.relay_lost(IDLE_PATIENCE)
        self._forget_connection()
        for stream in self._table.lingering():
            stream.path_lost()
        self._again()

    def _forget_connection(self) -> None:
        self._connection = self._session = self._ctrl = None
        self._ready = False
        self._registered.clear()
        self._watched.clear()
        for timer in ("session", "quic", "silence"):
            self.cancel_timer(timer)

    # The ctrl stream.

    def _from_ctrl(self, chunk: bytes) -> None:
        if self._session is None or self._ctrl is None:
            return
        self._ctrl.consume(len(chunk))
        self._serve(self._session.receive(chunk, self.now()))

    def _ctrl_ended(self) -> None:
        if self._connection is not None:
            self._connection.close(CloseCode.CTRL_CLOSED, "ctrl stream ended")

    @handles(_Due)
    def _session_due(self, _: _Due) -> None:
        if self._session is not None:
            self._serve(self._session.handle_timer(self.now()))

    def _serve(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, ServiceRegistered):
                self._registered.append(event.register.service_name)
            elif isinstance(event, SessionReady):
                self._ready = True
                self._rounds = 0
                self._complaints.over()
                relay = self._connection.peer.uri if self._connection else ""
                self.log.bind(agent_uri=self._uri).info("connected to {}", relay)
                if not self._over_tcp:
                    self._silence.connected()
                self._repeat_checkpoints()
                if self._promoter is not None and not self._over_tcp and self._session:
                    self._session.query_observed_address(self.now())
                self._resume_all()  # live streams before new ones
                self._waiting.relay_found()
            elif isinstance(event, CandidateOffer | CandidateAnswer | ObservedAddrResp):
                self._from_peer(event)
            elif isinstance(event, StreamCheckpoint):
                self._table.checkpointed(event)
            elif isinstance(event, (StreamReady, AllocGranted)):
                decided = self._watched.pop(event.stream_id, None)
                if decided is not None:
                    granted = event if isinstance(event, AllocGranted) else None
                    decided(granted, event.peer_agent_uri)
            elif isinstance(event, SessionFailed) and self._connection is not None:
                self._connection.close(event.error.code, event.error.reason)
                return
            elif isinstance(event, ControlClosed):
                self._ctrl_ended()
                return
        self._write_ctrl()

    def _from_peer(self, event: CandidateOffer | CandidateAnswer | ObservedAddrResp) -> None:
        promoter = self._promoter
        if isinstance(event, CandidateOffer):
            if promoter is not None:
                promoter.offered(event)
            else:
                self.say(CandidateAnswer(event.stream_id, ()))  # spares the other one the wait
        elif promoter is None:
            return
        elif isinstance(event, CandidateAnswer):
            promoter.answered(event)
        else:
            promoter.observed(event.ip, event.port)

    def _write_ctrl(self) -> None:
        if self._session is None or self._ctrl is None:
            return
        data = self._session.data_to_send()
        if data and not self._ctrl.write_closed:
            self._ctrl.write(data)
        when = self._session.next_timer()
        if when is None:
            self.cancel_timer("session")
        else:
            self.start_timer(max(0.0, when - self.now()), _Due(), "session")

    @handles(WatchMode)
    def _watch_mode(self, message: WatchMode) -> None:
        if len(self._watched) >= MAX_WATCHED:
            # The oldest never heard: its stream was refused, or decided otherwise long ago.
            del self._watched[next(iter(self._watched))]
        self._watched[message.stream_id] = message.decided

    # Streams.

    def _incoming(self, stream: Stream) -> None:
        if self._draining:
            stream.abort(ResetCode.GOING_AWAY)
            return
        bridges = self.system.ref(self._bridges)
        self._serial += 1
        settings, link, table, targets = self._settings, self.ref, self._table, self._targets
        spec = ChildSpec(
            f"in-{stream.stream_id}~{self._serial}",
            lambda: ProviderBridge(settings, stream, link, table, targets),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            if bridges is None:
                raise ChildRefused(self._bridges, spec.id, "down")
            self.system.start_child(bridges, spec)
        except ChildRefused:
            stream.abort()

    @handles(OpenTowards)
    def _open_towards(self, message: OpenTowards) -> Refusal | Deferred | None:
        return self._waiting.open(message)

    @handles(PatienceOver)
    def _patience_over(self, _: PatienceOver) -> None:
        self._waiting.over(self._last_error)

    def _open(self) -> Stream | None:
        """A stream to the relay now; None while there is none, or it allows none."""
        connection = self._connection
        if not self._ready or connection is None:
            return None
        if not self._over_tcp:
            self._silence.asked(connection)
        return connection.open_stream()

    @handles(RelaySilent)
    def _relay_silent(self, _: RelaySilent) -> None:
        self._silence.look(self._connection)

    def _on_credit(self) -> None:
        self._resume_all()  # live streams before new ones
        self._waiting.serve()
