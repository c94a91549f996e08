"""Who may wait at the gate: connections whose peer has not shown yet that it belongs here. Sans-IO.

A place is held from the first packet or the accepted socket until the peer is one of ours (`leave`,
or the end of the connection). There are so many places in all, and so many for one source: who
fills its own share is refused and takes nothing from others. When all are taken the one that waits
longest gives way to the newcomer, and first of all one that never said anything: strangers that
only hold places, from however many addresses, cannot keep out those who go on to speak.

Source: docs/decisions/0077.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Final

#: How far a stranger has come; who has come less far gives way first.
SILENT: Final = 0
HEARD: Final = 1
PROVED: Final = 2
#: No stage: see `Gate`.
NOBODY: Final = -1


def source_of(host: str) -> str:
    """What limits per source count by: an IPv4 address, or the /64 of an IPv6 one.

    A host has a whole /64 to send from. What is no address is its own source.
    """
    if ":" not in host:
        return host
    plain = host.partition("%")[0]
    if plain.startswith("::ffff:") and "." in plain:
        return plain[7:]
    try:
        return socket.inet_pton(socket.AF_INET6, plain)[:8].hex()
    except OSError:
        return host


class Place:
    """One stranger's place. `give_way` is set by whoever holds what is behind it.

    Attributes:
        source: what it counts for.
        since: when it was taken, monotonic seconds.
        give_way: ends the connection; called after the place was freed.
    """

    __slots__ = ("_gate", "_stage", "give_way", "since", "source")

    def __init__(self, gate: Gate, source: str, since: float) -> None:
        self.source = source
        self.since = since
        self.give_way: Callable[[], object] = _nothing
        self._gate: Gate | None = gate
        self._stage = SILENT

    def heard(self) -> None:
        """It said something."""
        if self._stage == SILENT:
            self._move(HEARD)

    def proved(self) -> None:
        """It is who it says: what is still missing has a deadline of its own."""
        self._move(PROVED)

    def leave(self) -> None:
        """The place is free; idempotent."""
        gate, self._gate = self._gate, None
        self.give_way = _nothing
        if gate is not None:
            gate.left(self, self._stage)

    @property
    def taken(self) -> bool:
        """False once it was left."""
        return self._gate is not None

    def _move(self, stage: int) -> None:
        if self._gate is not None and stage != self._stage:
            self._gate.moved(self, self._stage, stage)
            self._stage = stage


class Gate:
    """Who may wait at the gate: connections whose peer has not shown yet that it belongs here.

    Args:
        most: places.
        most_per_source: of one source.
        counters: `refused_pending_per_source_limit`, `refused_pending_limit` and `gave_way`.
        yields: who came no further than that gives way; `NOBODY`: newcomers are refused when all
            places are taken.
    """

    def __init__(
        self,
        most: int,
        most_per_source: int,
        counters: MutableMapping[str, int],
        *,
        yields: int = PROVED,
    ) -> None:
        self._most = most
        self._most_per_source = most_per_source
        self._counters = counters
        self._yields = yields
        #: By stage, who waits longest first.
        self._stages: tuple[dict[Place, None], ...] = ({}, {}, {})
        self._sources: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._stages))

    def refusal(self, source: str) -> str:
        """Why nobody from there may enter now; empty: one may."""
        if self._sources[source] >= self._most_per_source:
            return "pending_per_source_limit"
        if len(self) >= self._most and not any(self._stages[: self._yields + 1]):
            return "pending_limit"
        return ""

    def enter(self, source: str, now: float) -> Place | None:
        """Take a place; None: refused, and counted.

        Args:
            source: see `source_of`.
            now: monotonic seconds.
        """
        refusal = self.refusal(source)
        if refusal:
            self._counters[f"refused_{refusal}"] = self._counters.get(f"refused_{refusal}", 0) + 1
            return None
        if len(self) >= self._most:
            self.make_room(1, self._yields)
        place = Place(self, source, now)
        self._stages[SILENT][place] = None
        self._sources[source] += 1
        return place

    def make_room(self, count: int, furthest: int = PROVED) -> int:
        """Have so many give way that came no further than that. Returns how many did."""
        done = 0
        for stage in self._stages[: furthest + 1]:
            while stage and done < count:
                self._dismiss(next(iter(stage)), "gave_way")
                done += 1
        return done

    def dismiss_since(self, before: float) -> float | None:
        """End those who came before then and proved nothing, as `handshake_failed_timeout`.

        Returns:
            When the next of them came; None: there is none.
        """
        oldest: float | None = None
        for stage in self._stages[:PROVED]:
            for place in list(stage):
                if place.since <= before:
                    self._dismiss(place, "handshake_failed_timeout")
                elif oldest is None or place.since < oldest:
                    oldest = place.since
        return oldest

    def clear(self, counter: str) -> None:
        """End all who proved nothing yet."""
        for stage in self._stages[:PROVED]:
            for place in list(stage):
                self._dismiss(place, counter)

    def _dismiss(self, place: Place, counter: str) -> None:
        self._counters[counter] = self._counters.get(counter, 0) + 1
        give_way = place.give_way
        place.leave()
        give_way()

    # Called by places.

    def moved(self, place: Place, before: int, stage: int) -> None:
        """It came further."""
        del self._stages[before][place]
        self._stages[stage][place] = None

    def left(self, place: Place, stage: int) -> None:
        """It is free."""
        del self._stages[stage][place]
        self._sources[place.source] -= 1
        if not self._sources[place.source]:
            del self._sources[place.source]


def _nothing() -> None:
    """Nobody is behind the place any more."""
