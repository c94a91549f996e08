"""The actor of one client."""

from __future__ import annotations

from dataclasses import dataclass

from actors.peer.account import PeerAccount
from actors.peer.context import PeerContext
from actors.peer.link import Client
from actors.peer.peer import Peer
from actors.runtime import Actor, handles, shutdown
from wire.peer.health import HealthCheck
from wire.peer.messages import CLOSE, HEALTH_CHECK


@dataclass(frozen=True, slots=True)
class Tick:
    """It is time to ask the client whether it lives."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client is to go elsewhere."""

    why: str


class PeerConnection(Actor):
    """The actor of one client: owns its link and its place among the peers.

    Args:
        source: what it counts for.
    """

    def __init__(self, door: PeerContext, client: Client, peer_id: bytes, source: str) -> None:
        self._door = door
        self._client = client
        self._id = peer_id
        self._source = source
        self._in_place = False

    def init(self) -> None:
        """Answer first, then be seen by others."""
        door, client, settings = self._door, self._client, self._door.settings
        self.own(client, "link")
        over = self.guard("end", self._over)
        quic = client.transport == "quic"
        interval = settings.quic_health_interval if quic else settings.health_interval
        health = HealthCheck(
            self.now(),
            interval=interval,
            timeout=settings.health_timeout,
            attempts=settings.health_attempts,
            look=settings.health_interval + settings.health_timeout,
        )
        self._peer = peer = Peer(door, self._id, client, health, over, self.ref.path)
        self._account = self.own(PeerAccount(door, peer), "account")
        self.own(self, "place")
        client.send(door.answer)
        self._in_place = True
        door.sources[self._source] += 1
        door.connections[client.transport] += 1
        old = door.registry.add(peer)
        if old is not None:
            old.end("replaced")
        client.begin(self.guard("messages", peer.received), over)
        self._arm()

    def abort(self) -> None:
        """The actor's resource: its place among the peers."""
        if self._in_place:
            self._in_place = False
            door = self._door
            door.connections[self._client.transport] -= 1
            door.sources[self._source] -= 1
            if not door.sources[self._source]:
                del door.sources[self._source]
            door.registry.remove(self._peer)

    def describe(self) -> dict[str, object]:
        """Who it is, and what it sent and got."""
        return dict(self._peer.row())

    def _arm(self) -> None:
        self.start_timer(max(0.0, self._peer.health.due - self.now()), Tick(), "health")

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        ask, gone = self._peer.health.tick(self.now())
        if gone:
            self._over("health_timeout")
            return
        if ask:
            self._client.send(HEALTH_CHECK)
        self._arm()

    @handles(Leave)
    def _leave(self, leave: Leave) -> None:
        self._client.send(CLOSE)
        self._over(leave.why)

    def _over(self, why: str) -> None:
        self._account.ended(why)
        self._client.close()
        self.stop(shutdown(why))
