"""Dropping a share of Initials in the kernel: `flood_guard` applied to an endpoint's socket."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from actors.transport.quic.flood_guard import INTERVAL, FloodGuard
from actors.transport.udp import UdpSocket

#: First byte of an Initial: long header, fixed bit, type 0 (RFC 9000 section 17.2.2).
INITIAL_MASK: Final = 0xF0
INITIAL_BITS: Final = 0xC0


class Shedding:
    """Keeps the filter of the listening socket at the share that the guard wants.

    While the share is below 1 it looks by the clock as well, as nothing may arrive any more.
    """

    def __init__(self, flood: FloodGuard, counters: Counter[str]) -> None:
        self._flood = flood
        self._counters = counters
        self._socket: UdpSocket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, opened: UdpSocket) -> None:
        """This is the listening socket now, and without filter."""
        self._socket = opened
        self._loop = asyncio.get_running_loop()
        if self._flood.share < 1:
            self.apply()

    def detach(self) -> None:
        """There is no listening socket."""
        self._socket = None

    def abort(self) -> None:
        """Look no more; idempotent."""
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, now: float) -> None:
        """Datagrams arrived: the share may have to change."""
        if self._flood.look(now):
            self.apply()

    def apply(self) -> None:
        """Have the kernel drop the rest of the Initials."""
        opened, share = self._socket, self._flood.share
        if opened is None or not opened.shed(INITIAL_MASK, INITIAL_BITS, share):
            return
        self._counters["flood_share_changed"] += 1
        self._wait()

    def _wait(self) -> None:
        if self._flood.share < 1 and self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._due)

    def _due(self) -> None:
        self._timer = None
        self.look(time.monotonic())
        self._wait()
