"""What runs in the demo's processes: called by name inside them (actors/node/worker.py)."""

from __future__ import annotations

from collections.abc import Sequence

from actors.runtime import Backoff, ChildSpec
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.tree import agent_children
from tools.demo.web import WebService


def agent(
    certificate: str,
    key: str,
    ca: str,
    relays: Sequence[tuple[str, int]],
    provide: Sequence[tuple[str, str, int]],
    consume: Sequence[tuple[str, str, int]],
) -> list[ChildSpec]:
    """An agent; services are (name, host, port)."""
    settings = AgentSettings(
        certificate=certificate,
        key=key,
        ca=ca,
        relays=tuple(relays),
        provide=tuple(Mapping(*entry) for entry in provide),
        consume=tuple(Mapping(*entry) for entry in consume),
    )
    return agent_children(settings)


def web(host: str, port: int, control_socket: str) -> list[ChildSpec]:
    """The web service behind the provider agent."""
    backoff = Backoff(base=0.2, cap=5.0)
    return [ChildSpec("web", lambda: WebService(host, port, control_socket), backoff=backoff)]
