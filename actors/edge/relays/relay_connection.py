"""RelayConnection: another relay that dialled us, and the streams it brings.

Temporary: the other relay's next dial is its restart. Only relays of the allow-list get this far
(`listener`). Every stream is independent; a stream that is refused costs the others nothing.

Source: protocol sheet ORP 3.7, 3.11; 6.4 X2, X3, X5.
"""

from __future__ import annotations

from functools import partial

from actors.edge.connection.peer_frames import PeerFrames
from actors.edge.connection.stream_acceptor import StreamAcceptor
from actors.edge.context import EdgeContext
from actors.edge.messages import Close, CopyFrame
from actors.edge.opening.open_request import OpenRequest
from actors.edge.pair_table import PairRow
from actors.edge.relays.signalling import Signalling
from actors.edge.resume.returning import ResumingStream
from actors.runtime import (
    Down,
    ExitReason,
    MailboxSpec,
    handles,
    shutdown,
)
from actors.transport.addresses import address_text
from actors.transport.connection import Connection
from actors.transport.quota import Ticket
from actors.transport.stream import CloseReason, Stream
from wire.orp.close_codes import CloseCode
from wire.orp.events import PeerFrame
from wire.orp.identity import AgentUri, IdentityError, RelayUri, parse_identity
from wire.orp.messages import FirstWord, ForwardStream, OpenStream, Ping, StreamResume


class RelayConnection(StreamAcceptor):
    """Another relay that dialled us, and the streams it brings.

    Args:
        identity: of the other relay.
        ticket: of `EdgeQuotas.links`.
    """

    mailbox = MailboxSpec(bound=65_536)
    counted_as = "relay_"

    def __init__(
        self, door: EdgeContext, connection: Connection, identity: RelayUri, ticket: Ticket
    ) -> None:
        super().__init__(door, identity.relay_id, identity.text)
        self._ticket = ticket
        self._connection = connection
        self._identity = identity
        self._signalling: Signalling | None = None
        self._frames = PeerFrames(door)
        self._ended = False

    def init(self) -> None:
        """Take the connection over."""
        connection = self._connection
        self.own(connection, "connection")
        self.own(self._ticket, "ticket")
        self.own(self._handed, "streams")
        connection.abort_code = CloseCode.INTERNAL_ERROR
        connection.on_stream = self.guard("connection", self._on_stream)
        connection.on_closed = self.guard("connection", self._on_closed)
        connection.welcome()
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
            "remote": address_text(*self._connection.remote_address),
            "streams": statistics.streams,
            "opening": self._opening,
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
        self._take(stream, partial(self._on_first, stream))

    def _on_first(self, stream: Stream, message: FirstWord, rest: bytes) -> None:
        if isinstance(message, Ping) and self._signalling is None:
            relay_id = self._identity.relay_id
            signalling = Signalling(stream, self._from_relay, self._door.counters)
            self._signalling = self.own(signalling, "signalling")
            signalling.accept(self.guard, rest)
            self.own(self._door.relays.add_route(relay_id, self.ref), "signalling route")
            self._frames.repeat(relay_id, signalling)
            return
        source = self._source(message) if isinstance(message, ForwardStream) else None
        if source is None or not isinstance(message, ForwardStream):
            self._unexpected(stream)
        elif message.target_service:
            self._open_stream(stream, message, source, rest)
        else:
            # Another relay's half of a stream: its positions follow.
            self._read_message(stream, partial(self._on_positions, stream, source, message), rest)

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
        opening = OpenRequest(
            OpenStream(message.target_service, message.method, stream_id),
            stream,
            rest,
            source.text,
            source.tenant,
            self.ref,
            relay=self._identity.relay_id,
        )
        if self._start_pair(opening):
            self._door.counters["streams_from_relays"] += 1

    def _on_positions(
        self,
        stream: Stream,
        source: AgentUri,
        first: ForwardStream,
        message: FirstWord,
        rest: bytes,
    ) -> None:
        if not isinstance(message, StreamResume) or not message.stream_id:
            self._unexpected(stream)
            return
        row = None
        if first.terms is not None:
            row = PairRow.of_terms(first.terms, message.stream_id, source.tenant)
            if row is None or not row.has(source.text):
                self._unexpected(stream)
                return
        half = ResumingStream(
            stream,
            message,
            rest,
            source.text,
            source.tenant,
            relay=self._identity.relay_id,
            row=row,
            provides=first.provides,
        )
        self._start_half(half, "halves_from_relays")

    @handles(Down)
    def _down(self, down: Down) -> None:
        """A stream's owner ended."""
        self._owner_ended(down)

    # What agents say to each other across the link.

    @handles(CopyFrame)
    def _forward(self, message: CopyFrame) -> None:
        if self._signalling is not None:
            self._signalling.send(message.frame)
        else:
            self._door.counters["relay_frame_dropped"] += 1

    def _from_relay(self, event: PeerFrame) -> None:
        self._frames.from_relay(event, self._identity.relay_id, self.now())
