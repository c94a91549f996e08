"""Messages between the actors of an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime import Request
from actors.transport.claim import StreamClaim


@dataclass(slots=True)
class OpenService(Request[None]):
    """To the link: put a stream into `claim` for a local connection, once a relay is connected."""

    claim: StreamClaim


@dataclass(slots=True)
class WatchReady:
    """To the link: call `on_ready` when STREAM_READY for this id arrives.

    A callback, not a message back: the bridge is waiting inside its opening and serves no
    mailbox. It must be guarded by its owner and harmless when late.
    """

    stream_id: int
    on_ready: Callable[[], object]
