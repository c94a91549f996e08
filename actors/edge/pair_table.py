"""Which stream ids live here, and who they belonged to a moment ago.

A plain object shared by the actors of a door. The live part is written by the pairs themselves,
for exactly as long as they are spliced. The rest remembers, for a while after the end of a pair,
whose stream it was: a resume of a known id must come from one of its two agents, and is checked
against the policy of its service again.

Source: protocol sheet ORP 3.7; 6.1 R6, R7.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.control.messages import P2PMode
from actors.runtime import ActorRef
from wire.orp.events import PeerFrame
from wire.orp.identity import AgentUri, IdentityError, parse_identity
from wire.orp.messages import StreamTerms

#: Ended pairs remembered; the oldest is forgotten first.
MAX_REMEMBERED = 65_536
#: Seconds an ended pair is remembered: longer than a resume may take.
REMEMBER_SECONDS = 60.0
REMEMBER_MIGRATED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PairRow:
    """Whose stream it is.

    Attributes:
        stream_id: never 0.
        consumer, provider: agent URIs.
        tenant: of both.
        service, method: what was opened.
        p2p: whether its agents may or must leave the relay.
    """

    stream_id: int
    consumer: str
    provider: str
    tenant: str
    service: str
    method: str
    p2p: P2PMode = P2PMode.ALLOWED

    def has(self, uri: str) -> bool:
        """True for one of the two agents."""
        return uri in (self.consumer, self.provider)

    def other(self, uri: str) -> str:
        """The agent across."""
        return self.provider if uri == self.consumer else self.consumer

    def terms(self) -> StreamTerms:
        """For another relay."""
        return StreamTerms(self.consumer, self.provider, self.service, self.method)

    @classmethod
    def of_terms(cls, terms: StreamTerms, stream_id: int, tenant: str) -> PairRow | None:
        """What another relay says of a stream; None: it cannot be one of this tenant."""
        row = cls(
            stream_id, terms.consumer, terms.provider, tenant, terms.target_service, terms.method
        )
        try:
            members = parse_identity(row.consumer), parse_identity(row.provider)
        except IdentityError:
            return None
        ours = all(isinstance(one, AgentUri) and one.tenant == tenant for one in members)
        return row if ours and row.consumer != row.provider and row.service else None


@dataclass(slots=True)
class Remembered:
    """What is known of a stream beside its actor; all that is kept of one that ended.

    Attributes:
        row: whose stream it is.
        finished: both agents got everything.
        migrated: an agent of it said that the stream goes peer to peer.
        relays: where each agent of it is (or was) that is at another relay.
        pending_checkpoint: the last checkpoint of its agent here, for the relay of the other one.
        ended: when, monotonic seconds.
    """

    row: PairRow
    finished: bool = False
    migrated: bool = False
    relays: dict[str, str] = field(default_factory=dict)
    pending_checkpoint: PeerFrame | None = None
    ended: float = 0.0


class PairTable:
    def __init__(self) -> None:
        self._live: dict[int, PairEntry] = {}
        #: By the time of their end. Bound: MAX_REMEMBERED each; the oldest is forgotten first.
        self._ended: OrderedDict[int, Remembered] = OrderedDict()
        self._migrated: OrderedDict[int, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def remembered(self) -> int:
        """Ended streams that are remembered."""
        return len(self._ended) + len(self._migrated)

    def enter(self, row: PairRow, pair: ActorRef, clock: Callable[[], float]) -> PairEntry:
        """A pair is spliced; abort the entry with it."""
        entry = PairEntry(self, row, pair, clock)
        self._live[row.stream_id] = entry
        self._ended.pop(row.stream_id, None)
        self._migrated.pop(row.stream_id, None)
        return entry

    def leave(self, entry: PairEntry, now: float) -> None:
        """It ended."""
        record = entry.record
        stream_id = record.row.stream_id
        if self._live.get(stream_id) is entry:
            del self._live[stream_id]
        record.ended = now
        self._ended[stream_id] = record
        self._ended.move_to_end(stream_id)
        self._forget(now)

    def over(self, row: PairRow, now: float) -> None:
        """A stream that was never spliced ended: who tries to resume it is told at once."""
        if row.stream_id and row.stream_id not in self._live:
            self._ended[row.stream_id] = Remembered(row, finished=True, ended=now)
            self._ended.move_to_end(row.stream_id)
            self._forget(now)

    def _forget(self, now: float) -> None:
        ended, migrated = self._ended, self._migrated
        while ended:
            oldest = next(iter(ended))
            if len(ended) <= MAX_REMEMBERED and now - ended[oldest].ended <= REMEMBER_SECONDS:
                break
            record = ended.pop(oldest)
            if record.migrated:
                migrated[oldest] = record
        while migrated:
            oldest = next(iter(migrated))
            age = now - migrated[oldest].ended
            if len(migrated) <= MAX_REMEMBERED and age <= REMEMBER_MIGRATED_SECONDS:
                break
            del migrated[oldest]

    def _known(self, stream_id: int) -> Remembered | None:
        found = self._live.get(stream_id)
        if found is not None:
            return found.record
        return self._ended.get(stream_id) or self._migrated.get(stream_id)

    def live(self, stream_id: int) -> ActorRef | None:
        """The pair of this id."""
        found = self._live.get(stream_id)
        return None if found is None else found.pair

    def finished(self, stream_id: int) -> bool:
        """True when both agents got everything: there is nothing to resume."""
        ended = self._ended.get(stream_id)
        return ended is not None and ended.finished

    def relays(self, stream_id: int) -> dict[str, str]:
        """Where each agent of this stream is (or was) that is at another relay."""
        found = self._known(stream_id)
        return {} if found is None else found.relays

    def keep_checkpoint(self, event: PeerFrame) -> None:
        """An agent's checkpoint for another relay: kept, as the way there may be lost with it."""
        found = self._known(event.message.stream_id)
        if found is not None:
            found.pending_checkpoint = event

    def pending_checkpoints(self, relay_id: str, since: float) -> list[PeerFrame]:
        """What was kept for agents at that relay, without streams that ended before `since`."""
        records = [entry.record for entry in self._live.values()]
        for record in reversed(self._ended.values()):  # the newest first
            if record.ended < since:
                break
            records.append(record)
        return [
            record.pending_checkpoint
            for record in records
            if record.pending_checkpoint is not None and relay_id in record.relays.values()
        ]

    def row(self, stream_id: int, now: float) -> PairRow | None:
        """Whose stream it is or was; None: not known here."""
        found = self._known(stream_id)
        if found is None:
            return None
        if stream_id in self._live:
            return found.row
        # A stream that went peer to peer may come back whenever its direct path is lost.
        seconds = REMEMBER_MIGRATED_SECONDS if found.migrated else REMEMBER_SECONDS
        return found.row if now - found.ended <= seconds else None

    def unfinished(self, stream_id: int, now: float) -> PairRow | None:
        """Whose stream it is, when there is something left to come back to."""
        return None if self.finished(stream_id) else self.row(stream_id, now)

    def migrate(self, stream_id: int, uri: str) -> bool:
        """A member says that its stream goes peer to peer now; False: none, or not allowed.

        Others may say so as well (sheet 6.2 R26), and are not believed.
        """
        found = self._known(stream_id)
        if found is None or not found.row.has(uri) or found.row.p2p is P2PMode.FORBIDDEN:
            return False
        found.migrated = True
        return True

    def may_migrate(self, stream_id: int) -> bool | None:
        """False for streams whose agents must not learn each other's addresses.

        None: no stream of this id is alive here, and nothing could migrate.
        """
        found = self._live.get(stream_id)
        return None if found is None else found.record.row.p2p is not P2PMode.FORBIDDEN


class PairEntry:
    """One live row as a resource of its pair.

    Attributes:
        pair: its actor.
        record: what is kept when it ended.
    """

    __slots__ = ("_clock", "_open", "_table", "pair", "record")

    def __init__(
        self, table: PairTable, row: PairRow, pair: ActorRef, clock: Callable[[], float]
    ) -> None:
        self.record = Remembered(row)
        self.pair = pair
        self._clock = clock
        self._table = table
        self._open = True

    def abort(self) -> None:
        """The pair ended; idempotent."""
        if self._open:
            self._open = False
            self._table.leave(self, self._clock())
