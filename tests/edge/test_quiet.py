"""Connected agents that do nothing cost the store nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.edge.connection import agent_connection, registration
from actors.runtime import Actor
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import Relay, relay

SERVICES = ("web", "db", "ssh")


def _actor(running: Relay, path: str) -> Actor:
    cell = running.system.find(path)
    assert cell is not None
    assert cell.actor is not None
    return cell.actor


def _writes(running: Relay) -> int:
    writes = _actor(running, "/control/store").describe()["writes"]
    assert isinstance(writes, int)
    return writes


def _asked(running: Relay) -> int:
    cell = running.system.find("/control/registry")
    assert cell is not None
    return cell.handled


def test_idle_agents_write_nothing(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "ANNOUNCE_REFRESH", 0.02)

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            for leaf in (pki.provider, pki.consumer):
                await running.agent(pki, leaf).connect(running.address, *SERVICES)
            before, asked = _writes(running), _asked(running)
            await eventually(lambda: _asked(running) > asked + 40, what="agents looked again")
            # Nothing but a heartbeat of the relay may have come between.
            assert _writes(running) - before <= 1

    run(main())


def test_an_agent_that_the_registry_does_not_have_is_heard_of_again(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the notice of the registry's death was lost."""
    monkeypatch.setattr(registration, "ANNOUNCE_REFRESH", 0.1)

    async def main() -> None:
        async with relay(pki, tmp_path) as running:
            await running.agent(pki, pki.provider).connect(running.address, *SERVICES)
            actor = _actor(running, running.only("/edge/agents"))
            assert isinstance(actor, agent_connection.AgentConnection)
            actor.demonitor(actor._registration._registry_monitor)
            running.kill("/control/registry")

            def known() -> bool:
                cell = running.system.find("/control/registry")
                actor = cell.actor if cell is not None else None
                return actor is not None and actor.describe().get("service_names") == len(SERVICES)

            await eventually(lambda: not known())
            await eventually(known)

    run(main())
