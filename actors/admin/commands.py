"""Operations of the control protocol that other rooms bring along.

A room that may not know this one gives plain functions: arguments and author in, rows and result
out; what it raises as an `AdminError` is the answer. The composition root hands them over.

Source: docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from actors.admin.session import Exchange, Operation
from wire.admin.arguments import Arguments
from wire.admin.messages import Row

#: Arguments and who asks; rows to stream, and the final answer.
Command = Callable[[Arguments, str], Awaitable[tuple[Sequence[Row], Row]]]

#: Seconds a command may take.
COMMAND_SECONDS = 15.0


def command_operation(command: Command) -> Operation:
    """The operation that serves `command`."""

    async def handler(exchange: Exchange) -> Row:
        rows, result = await command(exchange.args, exchange.peer.initiator)
        await exchange.part(rows)
        return result

    return Operation(handler, COMMAND_SECONDS)
