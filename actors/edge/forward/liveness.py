"""The data streams of a forwarded stream: kept open, read and thrown away, ended together.

The agents' bytes travel as datagrams; each agent keeps its stream to the relay open and closes it
when it is done. When either ends, by whatever means, both are finished, and nothing more is
wanted from either, so that the agents get their stream credit back.

Source: protocol sheet ORP 3.5 steps 3 and 4; 6.5 A10.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime import Guard
from actors.transport.stream import CloseReason, Stream
from wire.orp.close_codes import ResetCode


def discard(
    stream: Stream,
    early: int,
    guard: Guard,
    kind: str,
    over: Callable[[], None],
    lost: Callable[[], None],
) -> None:
    """Throw away what arrives on `stream`, and start it.

    Args:
        early: bytes that were delivered before and not consumed.
        kind: of the callbacks, for `guard`.
        over: the agent finished or reset its side, or wants no more.
        lost: its connection is gone.
    """

    def thrown_away(chunk: bytes) -> None:
        stream.consume(len(chunk))

    def coded(_: int) -> None:
        over()

    def gone(_: CloseReason) -> None:
        lost()

    stream.consume(early)
    stream.on_data = guard(kind, thrown_away)
    stream.on_eof = guard(kind, over)
    stream.on_reset = stream.on_stop_sending = guard(kind, coded)
    stream.on_lost = guard(kind, gone)
    stream.start()


def finish(stream: Stream) -> None:
    """FIN, and no more bytes wanted."""
    stream.forget_callbacks()
    stream.write_eof()
    stream.stop_sending(ResetCode.NONE)
