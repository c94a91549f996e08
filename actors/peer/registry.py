"""Who is connected, and who wants to know of whom.

Nothing here waits or does I/O: a newcomer takes a place by changing a table, and news are handed to
those who asked for this very peer.

Source: protocol sheet peer 3, 9 W1, W4, W9.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

from actors.peer.peer import Peer
from wire.peer.messages import MessageType

#: A peer that sent no Transport message for so long is idle, seconds.
IDLE_AFTER: Final = 30.0


class Registry:
    """Who is connected, and who wants to know of whom.

    Args:
        most: subscriptions of one peer.
        events: `subscription_limit`, `identity_flap`.

    Attributes:
        peers: by ID; the newest connection of an ID has it.
        replaced: how often one took the place of another.
        subscriptions: IDs that are watched, by all together.
    """

    def __init__(self, most: int, events: MutableMapping[str, int]) -> None:
        self.peers: dict[bytes, Peer] = {}
        self.replaced = 0
        self.subscriptions = 0
        self._most = most
        self._events = events
        #: By the ID that is watched. Who awaits it is told once that it is here; who watches it is
        #: told each time that it left.
        self._awaited: dict[bytes, dict[Peer, None]] = {}
        self._watched: dict[bytes, dict[Peer, None]] = {}

    def add(self, peer: Peer) -> Peer | None:
        """It is here from now on. Returns whom it replaces, and who is to be ended."""
        old = self.peers.get(peer.id)
        self.peers[peer.id] = peer
        if old is not None:
            self.replaced += 1
        self.came(peer.id)
        return old

    def remove(self, peer: Peer) -> bool:
        """It is gone, with what it wanted to know; true when nobody has its place."""
        self.unsubscribe(peer, list(peer.watched))
        for one in list(peer.awaited):
            _forget(self._awaited, one, peer)
        peer.awaited.clear()
        if self.peers.get(peer.id) is not peer:
            return False
        del self.peers[peer.id]
        self.left(peer.id)
        return True

    def came(self, peer_id: bytes) -> None:
        """Tell those who await it."""
        for one in self._awaited.pop(peer_id, ()):
            one.awaited.discard(peer_id)
            one.tell(MessageType.PEERS_ONLINE, peer_id)

    def left(self, peer_id: bytes) -> None:
        """Tell those who watch it."""
        for one in self._watched.get(peer_id, ()):
            one.tell(MessageType.PEERS_WENT_OFFLINE, peer_id)

    def subscribe(self, peer: Peer, wanted: list[bytes]) -> list[bytes]:
        """It wants to know of these from now on. Returns those that are here now."""
        for one in wanted:
            if one not in peer.watched:
                if len(peer.watched) >= self._most:
                    self._events["subscription_limit"] += 1
                    break
                peer.watched.add(one)
                self.subscriptions += 1
                self._watched.setdefault(one, {})[peer] = None
            peer.awaited.add(one)
            self._awaited.setdefault(one, {})[peer] = None
        return [one for one in wanted if one in self.peers]

    def unsubscribe(self, peer: Peer, wanted: list[bytes]) -> None:
        """It does not want to know of these any more."""
        for one in wanted:
            if one in peer.watched:
                peer.watched.remove(one)
                self.subscriptions -= 1
                _forget(self._watched, one, peer)
            if one in peer.awaited:
                peer.awaited.remove(one)
                _forget(self._awaited, one, peer)

    def watchers(self, peer_id: bytes) -> int:
        """How many want to know of it."""
        return len(self._watched.get(peer_id, ()))

    def active(self, now: float) -> int:
        """Peers that sent something a short time ago."""
        return sum(now - peer.last_sent < IDLE_AFTER for peer in self.peers.values())


def _forget(table: dict[bytes, dict[Peer, None]], peer_id: bytes, peer: Peer) -> None:
    of = table.get(peer_id)
    if of is not None:
        of.pop(peer, None)
        if not of:
            del table[peer_id]
