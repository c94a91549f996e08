"""What this agent's services are provided from, and the way there.

A service may have several targets (one on 127.0.0.1, one on ::1): the first that answers is taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable

from actors.transport.addresses import address_text
from actors.transport.dialling import connect_tcp, first_to_connect
from actors.transport.refusal_log import RefusalLog
from tools.agent.settings import Mapping

#: Connections to one service's targets being made; one more is refused at once. A target that
#: swallows them must not hold all of the agent's streams while they wait for their deadline.
MAX_DIALS = 128


class TargetFailed(Exception):
    """No target of the service took the connection; the text says which, and why not."""


class Targets:
    """What the services of one agent are provided from.

    Attributes:
        refusals: by service, of streams that no target took: one line in a while.
    """

    def __init__(self, provide: Iterable[Mapping]) -> None:
        self._targets: dict[str, list[Mapping]] = {}
        for mapping in provide:
            self._targets.setdefault(mapping.service, []).append(mapping)
        self._dialling: Counter[str] = Counter()
        self.refusals = {
            service: RefusalLog(service, what="streams refused") for service in self._targets
        }

    @property
    def services(self) -> list[str]:
        """Their names, in the order they were given."""
        return list(self._targets)

    def __contains__(self, service: str) -> bool:
        return service in self._targets

    async def connect(self, service: str, *, timeout: float) -> socket.socket:
        """A connection to the service; the caller closes it.

        Raises:
            TargetFailed: nobody takes it, it was not taken in `timeout` seconds, or too many are
                waiting already.
        """
        targets = self._targets[service]
        if self._dialling[service] >= MAX_DIALS:
            raise TargetFailed("too many connections wait for the target")
        failures: dict[Mapping, str] = {}

        async def attempt(target: Mapping) -> socket.socket:
            try:
                return await connect_tcp(target.host, target.port)
            except OSError as error:
                failures[target] = _words(error)
                raise

        self._dialling[service] += 1
        try:
            async with asyncio.timeout(timeout):
                return await first_to_connect(targets, attempt, socket.socket.close)
        except OSError:  # TimeoutError among them
            pass
        finally:
            self._dialling[service] -= 1
        raise TargetFailed(
            "; ".join(
                failures.get(target, "target {} does not answer").format(
                    address_text(target.host, target.port)
                )
                for target in targets
            )
        )


def _words(error: OSError) -> str:
    """With a place for the address."""
    if isinstance(error, ConnectionRefusedError):
        return "target refused {}"
    if isinstance(error, TimeoutError):
        return "target {} does not answer"
    why = error.strerror or str(error) or type(error).__name__
    return f"target {{}}: {why.replace('{', '(').replace('}', ')')}"
