"""What operators ask of the door over the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from actors.doors.door import DoorCommand
from actors.doors.row_filter import has_text
from actors.peer.context import PeerContext
from wire.admin.arguments import Arguments
from wire.admin.errors import Declined
from wire.admin.messages import Row


class PeerCommands:
    """Peers listed, and closed.

    Args:
        base: place of the connections.
    """

    def __init__(self, door: PeerContext, base: str) -> None:
        self._door = door
        self._base = base

    def commands(self) -> Mapping[str, DoorCommand]:
        """By name."""
        return {"peer_list": self.list_peers, "peer_close": self.close_peer}

    async def list_peers(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """args: filter, part of any text. A row a peer, as `Peer.row`."""
        needle = args.text("filter", "", most=200)
        args.finish()
        peers = sorted(self._door.registry.peers.values(), key=lambda one: one.id)
        all_rows: list[Row] = [dict(one.row()) for one in peers]
        rows = [row for row in all_rows if has_text(row, needle)]
        return rows, {"peers": len(rows), "url": self._door.url}

    async def close_peer(self, args: Arguments, initiator: str) -> tuple[list[Row], Row]:
        """args: which, an ID as `peer_list` writes it. Result: how many were closed.

        Raises:
            Declined: it is not here.
        """
        which = args.text("which", most=200)
        args.finish()
        found = [one for one in self._door.registry.peers.values() if one.text == which]
        if not found:
            raise Declined(f"no peer {which}: ctl peer list knows those that are here")
        for peer in found:
            logger.warning("peer {} closed by {}", peer.text, initiator)
            peer.end("closed_by_operator")
        return [], {"closed": len(found)}
