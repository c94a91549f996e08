"""Messages between the actors of an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime import Request
from actors.transport.stream import Stream


@dataclass(slots=True)
class OpenService(Request[Stream]):
    """To the link: open a stream for a local connection, as soon as a relay is connected."""


@dataclass(slots=True)
class WatchReady:
    """To the link: call `on_ready` when STREAM_READY for this id arrives.

    A callback, not a message back: the bridge is waiting inside its opening and serves no
    mailbox. It must be guarded by its owner and harmless when late.
    """

    stream_id: int
    on_ready: Callable[[], object]
