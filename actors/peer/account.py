"""What is counted and told of one client, however its time here ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.doors.stream_account import StreamAccount
from actors.observe.records import StreamRecord

if TYPE_CHECKING:
    from actors.peer.context import PeerContext
    from actors.peer.peer import Peer


class PeerAccount(StreamAccount):
    """The end of a client; see `StreamAccount`.

    Attributes:
        outcome: why it ended, one of few words.
    """

    __slots__ = ("_door", "_peer")

    def __init__(self, door: PeerContext, peer: Peer) -> None:
        super().__init__(door.clock, door.clock())
        self._door = door
        self._peer = peer

    def ended(self, why: str) -> None:
        """The first reason counts."""
        if not self.detail:
            self.outcome = self.detail = why

    def tell(self, seconds: float) -> None:
        door, peer = self._door, self._peer
        door.ended[self.outcome] += 1
        door.access_log(
            StreamRecord(
                time.time(),
                "",
                door.relay,
                "",
                peer.text,
                "",
                "peer",
                peer.link.transport,
                self.outcome,
                self.detail,
                "peer",
                round(seconds, 6),
                peer.bytes_in,
                peer.bytes_out,
                0,
            )
        )
