"""The actor tree of an agent.

::

    /                one_for_one
    ├─ bridges       dynamic: one bridge per local connection
    ├─ link          RelayLink
    └─ listeners     one ServiceListener per consumed service
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.runtime import Backoff, ChildSpec, DynamicSupervisor, Intensity, Supervisor, escape_id
from tools.agent.link import RelayLink
from tools.agent.resumable import StreamTable
from tools.agent.service_listener import ServiceListener
from tools.agent.settings import AgentSettings

#: Local connections at a time.
MAX_BRIDGES = 10_000


def agent_children(settings: AgentSettings, base: str = "") -> list[ChildSpec]:
    """The children of an agent's supervisor; `base` is that supervisor's path, "" for the root."""
    budget = Intensity(restarts=30, period=30.0)
    # Streams outlive the link: its next incarnation finds them here.
    table = StreamTable()
    listeners = [
        ChildSpec(
            escape_id(f"{mapping.service}:{mapping.port}"),
            lambda mapping=mapping: ServiceListener(  # type: ignore[misc]
                settings, mapping, f"{base}/link", f"{base}/bridges", table
            ),
            backoff=Backoff(base=0.2, cap=5.0),
        )
        for mapping in settings.consume
    ]
    return [
        ChildSpec("bridges", lambda: DynamicSupervisor(max_children=MAX_BRIDGES)),
        ChildSpec("link", lambda: RelayLink(settings, f"{base}/bridges", table)),
        ChildSpec("listeners", lambda: Supervisor(listeners, intensity=budget)),
    ]


def agent_root(settings: AgentSettings, extra: Sequence[ChildSpec] = ()) -> Supervisor:
    """The root supervisor of an agent process."""
    return Supervisor(
        [*agent_children(settings), *extra], intensity=Intensity(restarts=30, period=30.0)
    )
