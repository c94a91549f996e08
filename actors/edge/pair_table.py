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
from dataclasses import dataclass

from actors.control.messages import P2PMode
from actors.runtime import ActorRef

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


class PairTable:
    """See the module docstring."""

    def __init__(self) -> None:
        self._live: dict[int, PairEntry] = {}
        self._ended: OrderedDict[int, tuple[float, PairEntry]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def enter(self, row: PairRow, pair: ActorRef, clock: Callable[[], float]) -> PairEntry:
        """A pair is spliced; abort the entry with it."""
        entry = PairEntry(self, row, pair, clock)
        self._live[row.stream_id] = entry
        self._ended.pop(row.stream_id, None)
        return entry

    def leave(self, entry: PairEntry, now: float) -> None:
        """It ended."""
        current = self._live.get(entry.row.stream_id)
        if current is entry:
            del self._live[entry.row.stream_id]
        self._ended[entry.row.stream_id] = (now, entry)
        self._ended.move_to_end(entry.row.stream_id)
        if len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)

    def live(self, stream_id: int) -> ActorRef | None:
        """The pair of this id."""
        found = self._live.get(stream_id)
        return None if found is None else found.pair

    def finished(self, stream_id: int) -> bool:
        """True when both agents got everything: there is nothing to resume."""
        ended = self._ended.get(stream_id)
        return ended is not None and ended[1].finished

    def links(self, stream_id: int) -> dict[str, ActorRef]:
        """By which link each agent of this stream is (or was) reached that is at another relay."""
        found = self._live.get(stream_id)
        if found is None:
            ended = self._ended.get(stream_id)
            found = None if ended is None else ended[1]
        return {} if found is None else found.links

    def row(self, stream_id: int, now: float) -> PairRow | None:
        """Whose stream it is or was; None: not known here."""
        found = self._live.get(stream_id)
        if found is not None:
            return found.row
        ended = self._ended.get(stream_id)
        if ended is None:
            return None
        # A stream that went peer to peer may come back whenever its direct path is lost.
        seconds = REMEMBER_MIGRATED_SECONDS if ended[1].migrated else REMEMBER_SECONDS
        return ended[1].row if now - ended[0] <= seconds else None

    def migrate(self, stream_id: int, uri: str) -> PairEntry | None:
        """A member says that its stream goes peer to peer now; None: not a member, or not allowed.

        Others may say so as well (sheet 6.2 R26), and are not believed.
        """
        found = self._live.get(stream_id)
        if found is None:
            ended = self._ended.get(stream_id)
            found = None if ended is None else ended[1]
        if found is None or not found.row.has(uri) or found.row.p2p is P2PMode.FORBIDDEN:
            return None
        found.migrated = True
        return found

    def may_migrate(self, stream_id: int) -> bool:
        """False for streams whose agents must not learn each other's addresses."""
        found = self._live.get(stream_id)
        return found is None or found.row.p2p is not P2PMode.FORBIDDEN


class PairEntry:
    """One live row as a resource of its pair.

    Attributes:
        finished: both agents got everything.
        migrated: an agent of it said that the stream goes peer to peer.
        links: of agents at other relays, by URI.
    """

    __slots__ = ("_clock", "_open", "_table", "finished", "links", "migrated", "pair", "row")

    def __init__(
        self, table: PairTable, row: PairRow, pair: ActorRef, clock: Callable[[], float]
    ) -> None:
        self.row = row
        self.pair = pair
        self._clock = clock
        self.finished = False
        self.migrated = False
        self.links: dict[str, ActorRef] = {}
        self._table = table
        self._open = True

    def abort(self) -> None:
        """The pair ended; idempotent."""
        if self._open:
            self._open = False
            self._table.leave(self, self._clock())
