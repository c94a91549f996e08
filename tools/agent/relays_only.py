"""Dial relays, and only relays: every agent has a certificate of the same authority and name.

Source: protocol sheet ORP 1.1, 1.3; 6.2 R27.
"""

from __future__ import annotations

from collections.abc import Collection

from actors.transport.connection import Connection, DialFailed
from actors.transport.stream import CloseReason
from tools.agent.dialling import Dialler
from wire.orp.close_codes import CloseCode
from wire.orp.identity import relay_problem


class RelaysOnly:
    """An endpoint whose connections lead to relays. A `Dialler`.

    Args:
        endpoint: dials.
        ids: of the relays that may answer; empty: any relay.
    """

    def __init__(self, endpoint: Dialler, ids: Collection[str]) -> None:
        self._endpoint = endpoint
        self._ids = ids

    async def connect(
        self, address: tuple[str, int], *, server_name: str, timeout: float
    ) -> Connection:
        """Dial, and let go of whoever answers that is not one of the relays.

        Raises:
            DialFailed: also when whoever answers is not such a relay.
        """
        connection = await self._endpoint.connect(address, server_name=server_name, timeout=timeout)
        problem = relay_problem(connection.peer.uri, self._ids)
        if problem:
            connection.close(CloseCode.ILLEGAL_FRAME, "not the relay expected")
            raise DialFailed(CloseReason("local", CloseCode.ILLEGAL_FRAME, True, problem))
        return connection
