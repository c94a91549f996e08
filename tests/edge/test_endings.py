"""Agents that come and go leave nothing at the relay that only the garbage collector would find."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from actors.transport.quic import QuicEndpoint
from actors.transport.tcp import TcpEndpoint
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import RawAgent, Relay, identity, relay
from tests.transport.test_endings import cyclic_garbage, no_collector


async def _come_and_go(running: Relay, endpoint: Any, address: Any, uri: str, way: str) -> None:
    agent = RawAgent(endpoint, uri)
    if way == "says nothing":
        await agent.dial(address)
    else:
        await agent.connect(address, "svc")
    agents = running.system.find("/edge/agents")
    assert agents is not None
    await eventually(lambda: agents.children)
    if way == "killed":
        running.kill(running.only("/edge/agents"))
    elif way == "aborts":
        agent.connection.abort()
    else:
        agent.connection.close(0)
    await eventually(lambda: not agents.children)


@pytest.mark.parametrize("way", ["closes", "aborts", "says nothing", "killed"])
@pytest.mark.parametrize("transport", ["quic", "tcp"])
def test_agents_leave_nothing_behind(
    pki: PkiFixture, tmp_path: Path, transport: str, way: str
) -> None:
    async def main() -> None:
        async with relay(pki, tmp_path, tcp=True) as running:
            edge, uri = running.edge, pki.provider.identity
            kind: Any = TcpEndpoint if transport == "tcp" else QuicEndpoint
            endpoint = kind(alpn=("orp/1",), identity=identity(pki, pki.provider))
            running.endpoints.append(endpoint)
            tcp = edge.tcp_endpoints[0].address
            address = tcp if transport == "tcp" else running.address
            await _come_and_go(running, endpoint, address, uri, way)
            with no_collector():
                for _ in range(3):
                    await _come_and_go(running, endpoint, address, uri, way)
                listening: list[Any] = [*edge.endpoints, *edge.tcp_endpoints]
                await eventually(lambda: not any(e.statistics().connections for e in listening))
                await eventually(lambda: not len(edge.endpoints[0]._routes), timeout=10)
                if transport == "quic":
                    await eventually(lambda: not len(endpoint._routes), timeout=10)
                for _ in range(3):
                    await asyncio.sleep(0)
                left = cyclic_garbage()
            assert not [name for name in left if name.startswith(("actors.edge", "wire"))], left
            assert not [name for name in left if "onnection" in name], left

    gc.collect()
    run(main(), timeout=40)
