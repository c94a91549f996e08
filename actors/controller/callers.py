"""What one caller may have under way and begin, so that one relay's flood is not everybody's.

A caller beyond its share of the RPCs under way is refused (RESOURCE_EXHAUSTED, counted). One that
calls too often waits here, in one of its own places: HTTP/2 then stops it, and a relay whose ten
thousand agents return at once is slower and hears no error.

Callers are told apart by identity, without TLS by connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict

from actors.controller.limits import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    MAX_RPCS,
    MAX_RPCS_PER_CALLER,
)
from actors.controller.request_checks import exhausted
from actors.transport.quota import MAX_RATED, Quota, Ticket


class Callers:
    """What one caller may have under way and begin, so that one relay's flood is not everybody's.

    Attributes:
        refused: by the bound that was reached.
        delayed: calls that had to wait for their turn.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.delayed = 0
        self._rpcs = Quota("rpcs", MAX_RPCS, MAX_RPCS_PER_CALLER, self.refused)
        #: When a caller's calls so far are paid for, in loop time. Bound: MAX_RATED.
        self._paid: OrderedDict[str, float] = OrderedDict()

    def place(self, caller: str) -> Ticket:
        """A place for one RPC; raises `Refused` when the caller has too many."""
        ticket = self._rpcs.take(caller, caller)
        if ticket is None:
            raise exhausted("too many calls of this caller are under way")
        return ticket

    async def turn(self, caller: str) -> None:
        """Wait until the caller's rate allows another call."""
        now = asyncio.get_running_loop().time()
        paid = max(now, self._paid.pop(caller, now)) + 1.0 / CALLS_PER_SECOND
        while len(self._paid) >= MAX_RATED:
            self._paid.popitem(last=False)
        self._paid[caller] = paid
        early = paid - now - CALLS_AT_ONCE / CALLS_PER_SECOND
        if early > 0:
            self.delayed += 1
            await asyncio.sleep(early)
