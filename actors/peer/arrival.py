"""From a client's first message to the actor that has it; the same over every transport."""

from __future__ import annotations

from itertools import count
from typing import Final

from actors.peer.connection import PeerConnection
from actors.peer.context import PeerContext
from actors.peer.link import Client
from actors.runtime import ChildRefused, ChildSpec, Restart
from actors.transport.gate import source_of
from wire.peer.errors import BadMessage, BadToken
from wire.peer.messages import Auth, decode_first, peer_id

#: Who asks in the name of NetBird's health page; its token is never good.
_PROBE: Final = peer_id("healthcheck-agent")
_serial = count(1)


def admit(door: PeerContext, client: Client, message: bytes) -> bool:
    """A client's first message. True: an actor has it; False: it is to be closed, and counted."""
    auth: Auth | None = None
    try:
        auth = decode_first(message)
        door.check(auth.token)
    except (BadMessage, BadToken) as bad:
        door.auth_failures[bad.label] += 1
        if auth is None or auth.peer != _PROBE:
            door.refusals.note(_HINTS.get(bad.label, bad.label), client.source)
        return False
    source = source_of(client.source.rpartition(":")[0].strip("[]"))
    if (
        door.draining
        or len(door.registry.peers) >= door.settings.max_peers
        or door.sources[source] >= door.settings.max_peers_per_source
    ):
        door.events["refused_draining" if door.draining else "refused_full"] += 1
        return False
    name = f"{client.transport}-{next(_serial)}"
    try:
        door.system.start_child(
            door.place(),
            ChildSpec(
                name,
                lambda: PeerConnection(door, client, auth.peer, source),
                restart=Restart.TEMPORARY,
            ),
        )
    except ChildRefused:
        door.events["refused_busy"] += 1
        return False
    return True


_HINTS: Final = {
    "bad_signature": "tokens signed with another secret; is it that of the management server?",
    "expired": "expired tokens; do the clocks agree?",
    "legacy_hello": "clients older than 0.29.1",
}
