"""The life of an agent's process: signals, certificates read again, the drain.

SIGHUP reads the certificates again: those that a relay would refuse are not used, the log says why,
and the old ones stay. SIGTERM and SIGINT stop accepting, on both sides, and let the streams that
are open finish until the deadline; a second one ends at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from loguru import logger

from actors.node.daemon import Daemon, ExitCode, Hooks, ReloadOutcome
from actors.observe.expiry import LookAgain
from actors.runtime import ActorSystem, RuntimeFault
from tools.agent.messages import Drain, ReadCertificates
from tools.agent.operators import operator_children
from tools.agent.settings import AgentSettings
from tools.agent.tree import agent_root

#: Period in which a drain looks for streams that are left, seconds.
_LOOK_SECONDS: Final = 0.05
#: The link reads certificates within; it may be dialling.
_READ_SECONDS: Final = 10.0


async def run_agent(settings: AgentSettings, drain_seconds: float) -> ExitCode:
    """Until a signal, or the end of the tree."""
    daemon = Daemon(
        "agent",
        lambda system: agent_root(
            settings, operator_children(system, settings, lambda: daemon.reload())
        ),
        drain_seconds=lambda: drain_seconds,
        hooks=Hooks(drain=drain, reload=read_certificates),
    )
    return await daemon.run()


async def read_certificates(system: ActorSystem) -> ReloadOutcome:
    """Use the certificates that are there now, if they are good."""
    link = system.ref("/link")
    try:
        if link is None:
            return ReloadOutcome(False, "the link is restarting and reads them by itself")
        refusal = await link.ask(ReadCertificates(), timeout=_READ_SECONDS)
    except RuntimeFault as error:
        return ReloadOutcome(False, str(error))
    if refusal:
        return ReloadOutcome(False, refusal)
    expiry = system.ref("/expiry")
    if expiry is not None:
        expiry.try_tell(LookAgain())
    logger.info("certificates read again, for connections from now on")
    return ReloadOutcome(True, "certificates read again")


async def drain(system: ActorSystem) -> None:
    """Accept nothing, and wait for the streams; cancelled at the deadline."""
    listeners = system.find("/listeners")
    children = list((listeners.children or {}).values()) if listeners is not None else []
    for ref in (system.ref("/link"), *(child.ref for child in children)):
        if ref is not None:
            ref.try_tell(Drain())
    left = _streams(system)
    logger.info("draining: {} streams are open", left)
    try:
        while left:
            await asyncio.sleep(_LOOK_SECONDS)
            left = _streams(system)
    finally:
        if left:
            logger.warning("{} streams did not end in time and are cut", left)


def _streams(system: ActorSystem) -> int:
    bridges = system.find("/bridges")
    return len(bridges.children or ()) if bridges is not None else 0
