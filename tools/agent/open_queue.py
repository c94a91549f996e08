"""Streams that local connections ask for: while there is no relay they wait, but not for long.

A relay that restarts is back in a moment, and nobody shall notice. One that is down is not waited
for: whoever connects is told at once, as if the service itself were not there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from actors.runtime import Actor, Deferred, Refusal
from actors.transport.claim import ClaimQueue, OpenTowards
from actors.transport.stream import Stream

#: Local connections waiting for a relay or for stream credit; one more is refused.
MAX_WAITING = 1024


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
        #: Why nobody waits for a relay; empty: there is one, or it was lost a moment ago.
        self._down = ""

    def __len__(self) -> int:
        return len(self._claims)

    def open(self, message: OpenTowards) -> Refusal | Deferred | None:
        """The answer to `OpenTowards`."""
        return Refusal(self._down) if self._down else self._claims.open(message)

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
