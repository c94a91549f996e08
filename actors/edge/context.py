"""What all actors of the edge door share: settings, references, counters.

A plain object made when the door is wired; it owns nothing. Counters are only ever incremented.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.control.messages import ControlPlane
from actors.edge.connection.opening_turns import OpeningTurns
from actors.edge.forward.context import ForwardContext
from actors.edge.opening.refusals import Refusals
from actors.edge.pair_table import PairTable
from actors.edge.quotas import EdgeQuotas
from actors.edge.relays.directory import RelayDirectory
from actors.edge.resume.absences import Absences
from actors.edge.settings import EdgeSettings
from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.runtime import ActorRef
from wire.orp.events import PeerFrame
from wire.orp.replay import RingBudget

if TYPE_CHECKING:
    from actors.edge.pair_account import PairAccount


class ByteCounter:
    """Application bytes passed on, in both directions."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


def _nowhere(record: StreamRecord) -> None:
    """No access log."""


class ConnectionEntry:
    """One row of `EdgeContext.connections` and `services` as a resource of its agent connection.

    Args:
        services: what the agent provides, by name; the connection keeps it current.
    """

    __slots__ = ("_door", "_ref", "_uri")

    def __init__(
        self, door: EdgeContext, uri: str, ref: ActorRef, services: Mapping[str, object]
    ) -> None:
        self._door = door
        self._uri = uri
        self._ref = ref
        door.connections[uri] = ref
        door.services[uri] = services

    def abort(self) -> None:
        """The connection's actor ended; a newer connection of the agent stays."""
        if self._door.connections.get(self._uri) is self._ref:
            del self._door.connections[self._uri]
            del self._door.services[self._uri]


@dataclass(slots=True)
class EdgeContext:
    """Shared by the actors of one edge door.

    Attributes:
        settings: deadlines and limits.
        control: finds the control actors (they do not exist yet when the door is wired).
        agents, streams: find the dynamic supervisors.
        forward: the forward plane; None: streams whose policy wants it are refused.
        counters: rejects by code, closes by reason, frames dropped, and so on.
        draining: no new connections and streams.
        connections: the newest connection of every connected agent, by URI.
        services: what each of those agents provides, the confirmed names.
        pairs: which stream ids live here.
        absences: which of them wait for agents.
        refusals: what providers said last.
        accounts: of all streams that are being opened or carried.
        ring_budget: shared by the replay rings of all pairs.
        quotas: what one agent and one tenant may fill.
        opening_turns: who begins how many streams in a turn.
        halves: finds the dynamic supervisor of returning halves.
        matcher: finds the actor that joins them.
        links: finds the dynamic supervisor of links to and from other relays.
        relays: where other relays are, and the links to them.
        meters: what is counted, for operators.
        access: gets the record of every stream that ended.
        clock: monotonic seconds.
    """

    settings: EdgeSettings
    control: Callable[[], ControlPlane]
    agents: Callable[[], ActorRef]
    streams: Callable[[], ActorRef]
    halves: Callable[[], ActorRef]
    matcher: Callable[[], ActorRef]
    links: Callable[[], ActorRef]
    relays: RelayDirectory
    forward: ForwardContext | None = None
    meters: Meters = field(default_factory=Meters)
    access: Callable[[StreamRecord], object] = _nowhere
    clock: Callable[[], float] = time.monotonic
    counters: Counter[str] = field(init=False)
    volume: ByteCounter = field(default_factory=ByteCounter)
    draining: bool = False
    connections: dict[str, ActorRef] = field(default_factory=dict)
    services: dict[str, Mapping[str, object]] = field(default_factory=dict)
    pairs: PairTable = field(default_factory=PairTable)
    absences: Absences = field(default_factory=Absences)
    refusals: Refusals = field(default_factory=Refusals)
    accounts: set[PairAccount] = field(default_factory=set)
    ring_budget: RingBudget = field(init=False)
    quotas: EdgeQuotas = field(init=False)
    opening_turns: OpeningTurns = field(default_factory=OpeningTurns)
    _serial: int = 0

    def __post_init__(self) -> None:
        self.ring_budget = RingBudget(self.settings.replay_budget)
        self.counters = self.meters.family("edge_events_total", "event", ("relay_dial_failed",))
        refused = self.meters.family("quota_refusals_total", "quota")
        self.quotas = EdgeQuotas(self.settings, refused)

    def pending_checkpoints(self, relay_id: str) -> list[PeerFrame]:
        """Checkpoints for agents at that relay which a pair there may still wait for."""
        return self.pairs.pending_checkpoints(relay_id, self.clock() - self.settings.hold)

    def next_serial(self) -> int:
        """A number no actor of this door had before: ids stay unique over reconnects."""
        self._serial += 1
        return self._serial
