"""Messages of the forward plane, and the records they carry."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.runtime import ActorRef, Request
from actors.transport.udp import Address

#: The two sides of a pair, as an index: every two-element record has the consumer first.
CONSUMER, PROVIDER = 0, 1
SIDES = ("consumer", "provider")


@dataclass(slots=True)
class Member:
    """One agent of a pair: identity, its connection here, and the IP it is connected from."""

    uri: str
    connection: ActorRef
    ip: str


@dataclass(slots=True)
class Heard:
    """When each side was last heard, on the loop's clock. Written by the data path.

    Shared by both allocations and their record: whether a pair is idle is a question about both.
    """

    at: list[float]

    @property
    def last(self) -> float:
        """The later of the two."""
        return max(self.at)


@dataclass(slots=True)
class PairRecord:
    """What does not change while two allocations live.

    Attributes:
        stream_id: of the stream they belong to.
        pair: its StreamPair; the allocations live as long as it.
        members, ids: consumer first. Ids are never logged or shown: who knows them can try to
            claim an allocation.
        heard: see `Heard`.
    """

    stream_id: int
    pair: ActorRef
    members: tuple[Member, Member]
    ids: tuple[int, int]
    heard: Heard


@dataclass(slots=True)
class Granted:
    """Two live allocations: their record, and forward endpoints (``ip:port``), consumer first."""

    record: PairRecord
    endpoints: tuple[str, str]


@dataclass(slots=True)
class Grant(Request[Granted]):
    """Allocate two ids for a stream. Answered when both take datagrams.

    Refused with a text: `down` (no socket), `full`, `unreachable` (no address for an agent).
    """

    stream_id: int
    pair: ActorRef
    members: tuple[Member, Member]


@dataclass(slots=True)
class Restore(Request[None]):
    """To a registry that was restarted: this was granted, see that both allocations live.

    From the stream pair, which has the record as long as the stream. Alone, a restarted registry
    hears of them from the allocations; this one matters when these died with it.
    """

    record: PairRecord


@dataclass(slots=True)
class Addresses:
    """Where both agents send from, as far as known; consumer first."""

    at: list[Address | None] = field(default_factory=lambda: [None, None])


@dataclass(slots=True)
class Announce(Request[Addresses]):
    """An allocation tells the registry that it is up, and hears the addresses on record.

    What the allocation knows itself goes into the record first.
    """

    record: PairRecord
    side: int
    allocation: ActorRef
    known: Addresses


@dataclass(slots=True)
class Bound:
    """An agent's address was learnt or changed; kept for the next incarnation."""

    allocation_id: int
    address: Address


@dataclass(slots=True)
class Release:
    """To an allocation: its stream ended."""

    why: str


@dataclass(slots=True)
class ForwardEnded:
    """To a stream pair: its allocations are gone."""

    why: str
