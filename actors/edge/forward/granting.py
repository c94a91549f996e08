"""Two allocations for one stream, as its pair asks for them.

Source: protocol sheet ORP 3.5, 2.5.
"""

from __future__ import annotations

import asyncio

from actors.edge.forward.context import ForwardContext
from actors.edge.forward.messages import Grant, Granted, Member, PairRecord, Restore
from actors.edge.messages import RemoteAddress, SendGranted
from actors.runtime import (
    ActorRef,
    AskFailed,
    ChildRefused,
)
from wire.orp import reject
from wire.orp.messages import AllocGranted, StreamReject

#: How long a stream waits for its forward plane to come back, and how often it looks.
RESTORE_SECONDS = 20.0
RESTORE_PAUSE = 0.02


async def allocate(
    place: ForwardContext,
    stream_id: int,
    pair: ActorRef,
    consumer: tuple[str, ActorRef],
    provider: tuple[str, ActorRef],
) -> Granted | StreamReject:
    """Ask where both agents are, then for allocations bound to these places.

    Args:
        pair: the allocations live as long as this actor.
        consumer, provider: agent URI and connection.

    Returns:
        The grant, or what the consumer is to be told.
    """
    members = []
    deadline = place.settings.grant_deadline
    for uri, connection in (consumer, provider):
        try:
            host, _ = await connection.ask(RemoteAddress(), timeout=deadline)
        except AskFailed:
            return reject.FORWARD_PROVIDER_UNAVAILABLE
        members.append(Member(uri, connection, host))
    grant = Grant(stream_id, pair, (members[0], members[1]))
    try:
        return await place.registry().ask_again(grant, timeout=deadline)
    except (AskFailed, ChildRefused):
        return reject.FORWARD_UNAVAILABLE


def tell_granted(stream_id: int, granted: Granted, connections: tuple[ActorRef, ActorRef]) -> None:
    """ALLOC_GRANTED to both agents, the consumer first (sheet 3.5 step 2)."""
    for side, connection in enumerate(connections):
        ids = granted.record.ids
        across = granted.record.members[1 - side].uri
        message = AllocGranted(stream_id, ids[side], ids[1 - side], granted.endpoints[side], across)
        connection.try_tell(SendGranted(message))


async def restore(place: ForwardContext, record: PairRecord) -> bool:
    """After the end of the allocation registry: tell the next one. False when there is none."""
    deadline = asyncio.get_running_loop().time() + RESTORE_SECONDS
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        try:
            await place.registry().ask_again(Restore(record), timeout=left)
        except (AskFailed, ChildRefused):
            await asyncio.sleep(RESTORE_PAUSE)  # the whole subtree is being restarted
        else:
            return True
    return False
