"""`trunkline agent ... --check`: what would keep an agent from its work, without a start.

Certificates are judged as the start judges them, names of relays and targets are looked up, and
local addresses are bound and let go. Nobody is dialled: `trunkline doctor --relay` does that.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from actors.observe.expiry import says
from actors.runtime import StartRefused, naming
from actors.transport.addresses import to_bind
from actors.transport.dialling import resolve
from actors.transport.tls import TlsMaterialError
from config.endpoint import Endpoint
from tools.agent.certificates import dates, load_agent_identity
from tools.agent.settings import AgentSettings

#: For all names together.
LOOKUP_SECONDS: Final = 5.0


@dataclass(slots=True)
class Checked:
    """What was found.

    Attributes:
        uri: who this agent is; empty when that cannot be told.
        problems: sentences; with any of them it would not start, or would reach nobody.
        warnings: sentences about what will go wrong later.
    """

    uri: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


async def look(settings: AgentSettings) -> Checked:
    """Look at everything."""
    found = Checked()
    try:
        found.uri = load_agent_identity(settings).uri
    except (TlsMaterialError, OSError) as error:
        found.problems.append(str(error))
    else:
        now = datetime.now(UTC)
        found.warnings += filter(None, (says(one, now) for one in dates(settings)))
    found.problems += [problem async for problem in _names(settings)]
    found.problems += _listeners(settings)
    return found


async def _names(settings: AgentSettings) -> AsyncIterator[str]:
    named = [("--relay", *address) for address in settings.relays]
    named += [("--relay-tcp", *address) for address in settings.relays_tcp]
    named += [(f"target of {one.service}", one.host, one.port) for one in settings.provide]
    answers = await asyncio.gather(
        *(asyncio.wait_for(resolve(host, port), LOOKUP_SECONDS) for _, host, port in named),
        return_exceptions=True,
    )
    for (what, host, port), answer in zip(named, answers, strict=True):
        where = f"{what} {Endpoint(host, port)}"
        if isinstance(answer, TimeoutError):
            yield f"{where}: no answer of this host's DNS in {LOOKUP_SECONDS:g} s"
        elif isinstance(answer, OSError):
            yield f"{where}: {answer.strerror or answer}: check the name, and this host's DNS"
        elif isinstance(answer, BaseException):
            raise answer


def _listeners(settings: AgentSettings) -> Iterator[str]:
    places = [
        (f"--listen of {one.service}", (one.host, one.port), socket.SOCK_STREAM)
        for one in settings.consume
    ]
    for what, address, kind in (
        ("--tproxy-listen", settings.transparent_listen, socket.SOCK_STREAM),
        ("--dns-listen", settings.dns_listen if settings.dns_suffix else None, socket.SOCK_DGRAM),
        ("--p2p-listen", settings.p2p_listen, socket.SOCK_DGRAM),
    ):
        if address is not None:
            places.append((what, address, kind))
    for what, (host, port), kind in places:
        try:
            with naming(f"{what} {Endpoint(host, port)}"):
                _bindable(host, port, kind)
        except StartRefused as refused:
            yield str(refused)


def _bindable(host: str, port: int, kind: socket.SocketKind) -> None:
    """One in use is no mistake: the agent that these settings are of may be running."""
    family, address = to_bind(host, port)
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
