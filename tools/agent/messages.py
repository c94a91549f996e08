"""Messages between the actors of an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime import Request
from tools.agent.resumable import ResumableStream
from wire.orp.messages import AllocGranted


class ReadCertificates(Request[str]):
    """To the link: read them again. The answer: why they are not used; empty when they are."""

    __slots__ = ()


class Drain:
    """To the link and the listeners: the process ends; what is open goes on, accept no more."""

    __slots__ = ()


@dataclass(slots=True)
class Promote:
    """To the link: this stream of ours is spliced, and may leave the relay."""

    stream: ResumableStream


@dataclass(slots=True)
class WatchMode(Request[None]):
    """To the link: call `decided` when ctrl tells how this stream travels.

    With None for STREAM_READY (through the relay's stream), with the grant for ALLOC_GRANTED
    (through the forward plane); and with the agent across, where the relay says it. A callback,
    not a message back: the bridge is waiting inside its opening and serves no mailbox. It must be
    guarded by its owner and harmless when late.
    """

    stream_id: int
    decided: Callable[[AllocGranted | None, str], object]
