"""What this agent's services are provided from, and the way there.

A service may have several targets (one on 127.0.0.1, one on ::1): the first that answers is taken.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Iterable

from actors.transport.dialling import connect_tcp, first_to_connect
from tools.agent.settings import Mapping

#: Connections to one service's targets being made; one more is refused at once. A target that
#: swallows them must not hold all of the agent's streams while they wait for their deadline.
MAX_DIALS = 128


class Targets:
    def __init__(self, provide: Iterable[Mapping]) -> None:
        self._targets: dict[str, list[Mapping]] = {}
        for mapping in provide:
            self._targets.setdefault(mapping.service, []).append(mapping)
        self._dialling: Counter[str] = Counter()

    @property
    def services(self) -> list[str]:
        """Their names, in the order they were given."""
        return list(self._targets)

    def __contains__(self, service: str) -> bool:
        return service in self._targets

    async def connect(self, service: str, *, timeout: float) -> socket.socket:
        """A connection to the service; the caller closes it.

        Raises:
            OSError: nobody takes it, it was not taken in `timeout` seconds (TimeoutError), or too
                many are waiting already.
        """
        if self._dialling[service] >= MAX_DIALS:
            raise OSError(errno.EAGAIN, "too many connections wait for the target")
        self._dialling[service] += 1
        try:
            async with asyncio.timeout(timeout):
                return await first_to_connect(self._targets[service], _connect, socket.socket.close)
        finally:
            self._dialling[service] -= 1


async def _connect(target: Mapping) -> socket.socket:
    return await connect_tcp(target.host, target.port)
