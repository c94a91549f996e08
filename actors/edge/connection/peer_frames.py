"""Where the ctrl frames agents send each other go: here, or over a link to another relay.

Stateless beside the door's tables; every connection and link has one.

Source: protocol sheet ORP 3.6, 3.9; 6.4 X6.
"""

from __future__ import annotations

from actors.edge.context import EdgeContext
from actors.edge.messages import Checkpointed, CopyFrame, Migrated
from actors.edge.relays.signalling import Signalling
from actors.runtime import ActorRef
from wire.orp.events import PeerFrame
from wire.orp.messages import (
    CandidateAnswer,
    CandidateOffer,
    MigrateToP2P,
    StreamCheckpoint,
)


class PeerFrames:
    def __init__(self, door: EdgeContext) -> None:
        self._door = door

    def allowed(self, event: PeerFrame) -> bool:
        """False for addresses of agents whose policy keeps them apart (sheet 6.2 R25).

        Addresses travel for a live stream or not at all: for one that ended nobody knows what the
        policy said, and agents would meet for nothing.
        """
        if not isinstance(event.message, CandidateOffer | CandidateAnswer):
            return True
        may = self._door.pairs.may_migrate(event.message.stream_id)
        if not may:
            self._door.counters["candidates_stray" if may is None else "candidates_forbidden"] += 1
        return bool(may)

    def migrate(self, message: MigrateToP2P, uri: str) -> bool:
        """An agent says that its stream goes peer to peer. False: it is not believed."""
        if not self._door.pairs.migrate(message.stream_id, uri):
            self._door.counters["migrate_refused"] += 1
            return False
        self._door.meters.counters["stream_migrated_p2p_total"] += 1
        pair = self._door.pairs.live(message.stream_id)
        if pair is not None:
            pair.try_tell(Migrated())
        return True

    def notice(self, event: PeerFrame, uri: str) -> None:
        """A live pair is told how far its agent's application is."""
        message = event.message
        if isinstance(message, StreamCheckpoint):
            pair = self._door.pairs.live(message.stream_id)
            if pair is not None:
                pair.try_tell(Checkpointed(uri, message.peer_ack_position, message.ended))

    def across(self, event: PeerFrame, uri: str, now: float) -> bool:
        """Copy a frame of `uri` to the relay where the other agent is. False: it is not elsewhere.

        A checkpoint for which there is no way now is said when there is one.
        """
        stream_id, relays = event.message.stream_id, self._door.relays
        row = self._door.pairs.row(stream_id, now)
        if row is None or not row.has(uri):
            return False
        relay_id = self._door.pairs.relays(stream_id).get(row.other(uri))
        if relay_id is None:
            return False
        checkpoint = isinstance(event.message, StreamCheckpoint)
        if checkpoint:
            self._door.pairs.keep_checkpoint(event)
        if not relays.tell(relay_id, CopyFrame(event)) and not (
            checkpoint and relays.reach(relay_id)
        ):
            self._door.counters["relay_frame_dropped"] += 1
        return True

    def repeat(self, relay_id: str, signalling: Signalling) -> None:
        """There is a new way to this relay: say what may have been lost with an older one."""
        for event in self._door.pending_checkpoints(relay_id):
            if not signalling.send(event):
                return

    def former_peer(self, event: PeerFrame, uri: str, now: float) -> ActorRef | None:
        """The other agent of a pair that ended a moment ago: it waits for the last checkpoint."""
        if not isinstance(event.message, StreamCheckpoint):
            return None
        row = self._door.pairs.row(event.message.stream_id, now)
        if row is None or not row.has(uri):
            return None
        return self._door.connections.get(row.other(uri))

    def from_relay(self, event: PeerFrame, relay_id: str, now: float) -> None:
        """From an agent at that relay, for one of ours: of a stream that goes over there."""
        stream_id = event.message.stream_id
        row = self._door.pairs.row(stream_id, now)
        relays = self._door.pairs.relays(stream_id)
        sender = next((uri for uri, one in relays.items() if one == relay_id), None)
        if row is None or sender is None:
            self._door.counters["relay_frame_stray"] += 1
            return
        if isinstance(event.message, MigrateToP2P):
            self.migrate(event.message, sender)
            return
        if not self.allowed(event):
            return
        self.notice(event, sender)
        target = self._door.connections.get(row.other(sender))
        if target is None or not target.try_tell(CopyFrame(event)):
            self._door.counters["peer_frame_dropped"] += 1
