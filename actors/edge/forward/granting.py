"""Two allocations for one stream, as its pair asks for them.

Source: protocol sheet ORP 3.5, 2.5.
"""

from __future__ import annotations

from actors.edge.forward.messages import Grant, Granted, Member
from actors.edge.forward.place import ForwardPlace
from actors.edge.messages import RemoteAddress, SendGranted
from actors.runtime import (
    ActorDown,
    ActorRef,
    AskTimeout,
    ChildRefused,
    MailboxFull,
    ReplyError,
)
from wire.orp import reject
from wire.orp.messages import AllocGranted, StreamReject


async def allocate(
    place: ForwardPlace,
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
        except (ReplyError, ActorDown, AskTimeout, MailboxFull):
            return reject.FORWARD_PROVIDER_UNAVAILABLE
        members.append(Member(uri, connection, host))
    grant = Grant(stream_id, pair, (members[0], members[1]))
    try:
        return await place.registry().ask_again(grant, timeout=deadline)
    except (ReplyError, ActorDown, AskTimeout, MailboxFull, ChildRefused):
        return reject.FORWARD_UNAVAILABLE


def tell_granted(stream_id: int, granted: Granted, connections: tuple[ActorRef, ActorRef]) -> None:
    """ALLOC_GRANTED to both agents, the consumer first (sheet 3.5 step 2)."""
    for side, connection in enumerate(connections):
        message = AllocGranted(
            stream_id, granted.ids[side], granted.ids[1 - side], granted.endpoints[side]
        )
        connection.try_tell(SendGranted(message))
