"""Streams that local connections ask for: while there is no relay they wait, but not for long.

A relay that restarts is back in a moment, and nobody shall notice. One that is down is not waited
for: whoever connects is told at once, as if the service itself were not there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from actors.runtime import DEFERRED, Actor, Deferred, Refusal
from actors.transport.claim import ClaimQueue, OpenTowards
from actors.transport.stream import Stream

#: Local connections waiting for a relay or for stream credit; one more is refused.
MAX_WAITING = 1024
#: Seconds between two lines about a relay that allows no more streams.
SAY_SECONDS = 10.0


class PatienceOver:
    """There has been no relay for a while."""

    __slots__ = ()


class OpenQueue:
    """The link's; it handles `PatienceOver` with `over`.

    Args:
        owner: the link.
        open_stream: a stream now; None while there is no relay, or it allows none.
    """

    def __init__(self, owner: Actor, open_stream: Callable[[], Stream | None]) -> None:
        # Weakly: it holds us, and would wait for the garbage collector with its connection.
        self._owner: Actor = weakref.proxy(owner)
        self._claims = ClaimQueue(
            owner,
            open_stream,
            bound=MAX_WAITING,
            crowded="too many connections wait for the relay",
        )
        self._waiting = False
        self._said = -SAY_SECONDS
        #: Why nobody waits for a relay; empty: there is one, or it was lost a moment ago.
        self._down = ""

    def __len__(self) -> int:
        return len(self._claims)

    def open(self, message: OpenTowards) -> Refusal | Deferred | None:
        """The answer to `OpenTowards`."""
        if self._down:
            return Refusal(self._down)
        answer = self._claims.open(message)
        if answer is DEFERRED and not self._waiting:
            self._full()
        return answer

    def _full(self) -> None:
        """There is a relay, and it allows no more streams."""
        now = self._owner.now()
        if now >= self._said + SAY_SECONDS:
            self._said = now
            self._owner.log.warning(
                "{} local connections wait: the relay allows this agent no more streams at a time "
                "(edge.max_streams_per_agent there)",
                len(self._claims),
            )

    def serve(self) -> None:
        """The relay allows more streams: as many as wait."""
        self._claims.serve()

    def relay_lost(self, patience: float) -> None:
        """From now on so many seconds are waited; a wait that began goes on."""
        if not self._waiting and not self._down:
            self._waiting = True
            self._owner.start_timer(patience, PatienceOver(), "patience")

    def over(self, why: str) -> None:
        """They passed."""
        self._down = f"no relay: {why or 'none answers'}"
        self._claims.refuse(self._down)

    def relay_found(self) -> None:
        """There is one again."""
        self._waiting, self._down = False, ""
        self._owner.cancel_timer("patience")
        self._claims.serve()
