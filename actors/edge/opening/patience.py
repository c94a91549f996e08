"""When a provider is asked again whose connection ended while a stream was opened towards it.

The consumer's bytes were not passed on yet, so nothing is done twice but the asking. Another
provider of the service is asked at once; the same one when it comes back in time.

Source: protocol sheet ORP 3.3; 6.5 A10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from actors.edge.opening.open_request import ProviderLost, Rejected
from actors.runtime import Actor
from wire.orp import reject

T = TypeVar("T")

#: Pause until a provider is looked for again, seconds: the first, then twice as long each time.
LOOK_AGAIN: Final = 0.05
LOOK_AGAIN_CAP: Final = 0.5
#: What is said of a service whose provider is away.
_AWAY: Final = (reject.SERVICE_NOT_FOUND, reject.NO_LOCAL_PROVIDER)


async def with_patience(owner: Actor, attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Make an attempt to reach a provider; again when its connection ended, for so many seconds.

    One that was lost when it had heard of the stream is asked once more, not more often: whatever
    the stream does to providers, it does to two of them.

    Raises:
        Rejected: as the attempt does, or nobody came back in time.
    """
    deadline: float | None = None
    pause, asked = LOOK_AGAIN, False
    while True:
        try:
            return await attempt()
        except ProviderLost as lost:
            if asked and lost.asked:
                raise
            asked = asked or lost.asked
            answer = lost.answer
        except Rejected as rejected:
            if deadline is None or rejected.answer not in _AWAY:
                raise
            answer = rejected.answer
        if deadline is None:
            deadline = owner.now() + seconds
        elif owner.now() > deadline:
            raise Rejected(answer)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LOOK_AGAIN_CAP)
