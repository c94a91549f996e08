"""Two relays that share a registry, in one loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from actors.edge.relays.settings import RelaySettings
from actors.edge.settings import EdgeSettings
from actors.pki.dev_pki import LeafFiles, ensure_dev_pki
from tests.conftest import PkiFixture
from tests.edge.rig import ALLOW_ALL, Relay, relay


def relay_leaf(pki: PkiFixture, relay_id: str) -> LeafFiles:
    """The certificate of a further relay of the test PKI."""
    return ensure_dev_pki(pki.dev.directory, relay_id=relay_id).relay


def free_port() -> int:
    """A UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def relay_settings(relay_id: str, **changes: object) -> RelaySettings:
    """Everybody is welcome, and asked often."""
    base = RelaySettings(relay_id=relay_id, accept=frozenset({"*"}), refresh=0.2, dial_timeout=2.0)
    return replace(base, **changes)  # type: ignore[arg-type]  # fields of the settings


@asynccontextmanager
async def relays(
    pki: PkiFixture,
    tmp_path: Path,
    *names: str,
    rules: str = ALLOW_ALL,
    settings: EdgeSettings | None = None,
    **changes: object,
) -> AsyncIterator[list[Relay]]:
    """One relay for each name."""
    async with AsyncExitStack() as stack:
        running = []
        for name in names:
            own = replace(
                settings or EdgeSettings(region="local"), relays=relay_settings(name, **changes)
            )
            running.append(
                await stack.enter_async_context(
                    relay(
                        pki,
                        tmp_path,
                        rules=rules,
                        settings=own,
                        leaf=relay_leaf(pki, name),
                        relay_id=name,
                        port=free_port(),
                    )
                )
            )
        yield running
