"""What operators see of an agent that is a process of its own: control socket and metrics.

::

    /
    ├─ observe       http, when `metrics_listen` is set
    └─ ops           the control socket, when `control_socket` is set
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from actors.admin.mounts import MountTable
from actors.admin.service import control_service, ops_spec
from actors.node.daemon import ReloadOutcome
from actors.observe.expiry import show_first_end
from actors.observe.meters import Meters
from actors.observe.system_meters import watch_system
from actors.observe.tree import ObserveSettings, observe_spec
from actors.runtime import ActorSystem, ChildSpec, inspection
from tools.agent.certificates import dates
from tools.agent.settings import AgentSettings
from wire.admin.arguments import Arguments
from wire.admin.errors import Declined
from wire.admin.messages import Row

#: What the link says about itself that is shown as a gauge, and how it is called.
_GAUGES: Final = {
    "ready": "agent_connected",
    "streams": "agent_streams",
    "parked": "agent_streams_parked",
    "waiting": "agent_streams_waiting",
}
_TOTALS: Final = {
    "connections": "agent_connections_total",
    "resumed": "agent_streams_resumed_total",
    "resume_expired": "agent_streams_lost_total",
}


def operator_children(
    system: ActorSystem,
    settings: AgentSettings,
    reload: Callable[[], Awaitable[ReloadOutcome]],
) -> Sequence[ChildSpec]:
    """The subtrees, as far as settings want them."""
    children: list[ChildSpec] = []
    if settings.metrics_listen is not None:
        meters = Meters()
        watch_system(meters, system)
        show_first_end(meters, lambda: dates(settings))
        for key, name in _GAUGES.items():
            meters.gauge(name, lambda key=key: _figure(system, key))  # type: ignore[misc]
        for key, name in _TOTALS.items():
            meters.totals[name] = lambda key=key: _figure(system, key)  # type: ignore[misc]

        async def missing() -> dict[str, str]:
            return {} if _figure(system, "ready") else {"/link": "no relay"}

        where = ObserveSettings(listen=settings.metrics_listen)
        children.append(observe_spec(meters, missing, where, bound=[]))
    if settings.control_socket:

        async def command(args: Arguments, initiator: str) -> tuple[list[Row], Row]:
            """`trunkline ctl reload`. No args. Result: what is in force."""
            args.finish()
            logger.warning("reload asked for by {}", initiator)
            outcome = await reload()
            if not outcome.done:
                raise Declined(outcome.text)
            return [], {"reloaded": outcome.text}

        service = control_service(system, MountTable(), {"reload": command})
        path = Path(settings.control_socket)
        children.append(ops_spec(service, path, setting="control_socket"))
    return children


def _figure(system: ActorSystem, key: str) -> int:
    cell = system.find("/link")
    described = None if cell is None else inspection.details(cell)["describe"]
    value = described.get(key) if isinstance(described, Mapping) else None
    return value if isinstance(value, int) else 0
