"""The data streams of a forwarded stream: kept open, read and thrown away, ended together.

The agents' bytes travel as datagrams; each agent keeps its stream to the relay open and closes it
when it is done. When either ends, by whatever means, both are finished, and nothing more is
wanted from either, so that the agents get their stream credit back.

Source: protocol sheet ORP 3.5 steps 3 and 4; 6.5 A10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from actors.transport.stream import CloseReason, Stream
from wire.orp.close_codes import ResetCode


class Guard(Protocol):
    """`Actor.guard` with its kind given."""

    def __call__(self, function: Callable[..., object], /) -> Callable[..., object]:
        """Wrap a callback."""


def drain(
    stream: Stream,
    early: int,
    guard: Guard,
    over: Callable[[], None],
    lost: Callable[[], None],
) -> None:
    """Throw away what arrives on `stream`, and start it.

    Args:
        early: bytes that were delivered before and not consumed.
        over: the agent finished or reset its side, or wants no more.
        lost: its connection is gone.
    """

    def discard(chunk: bytes) -> None:
        stream.consume(len(chunk))

    def coded(_: int) -> None:
        over()

    def gone(_: CloseReason) -> None:
        lost()

    stream.consume(early)
    stream.on_data = guard(discard)
    stream.on_eof = guard(over)
    stream.on_reset = stream.on_stop_sending = guard(coded)
    stream.on_lost = guard(gone)
    stream.start()


def finish(stream: Stream) -> None:
    """FIN, and no more bytes wanted."""
    stream.forget_callbacks()
    stream.write_eof()
    stream.stop_sending(ResetCode.NONE)
