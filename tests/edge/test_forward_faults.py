"""What the death of each actor of the forward plane costs: packets of the gap, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.edge.forward.route_table import RouteTable
from actors.transport.udp import Address
from tests.conftest import PkiFixture, eventually, run
from tests.edge.forward_rig import ForwardRelay, ForwardStream, forward_relay


async def _arrives_at_provider(stream: ForwardStream, text: str) -> None:
    """The consumer alone sends until one arrives: nothing the provider does helps."""
    payload = text.encode()

    def arrived() -> bool:
        stream.from_consumer(payload)
        return payload in stream.provider.received

    await eventually(arrived)


async def _restarted(up: ForwardRelay, path: str, incarnation: int) -> None:
    def later() -> bool:
        cell = up.running.system.find(path)
        return cell is not None and cell.incarnation > incarnation and not cell.released

    await eventually(later)


async def _kill(up: ForwardRelay, path: str) -> None:
    cell = up.running.system.find(path)
    assert cell is not None, path
    incarnation = cell.incarnation
    up.running.kill(path)
    await _restarted(up, path, incarnation)


def test_a_killed_allocation_comes_back_with_its_id_and_address(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream, other = await up.open(1), await up.open(2)
            for one in (stream, other):
                one.register()
                await one.exchange("before")
            # The provider's, by which the consumer reaches it. The provider stays silent.
            for number in range(5):
                await _kill(up, up.allocations()[1])
                await _arrives_at_provider(stream, f"after kill {number}")
            await stream.exchange("both ways")
            await other.exchange("never touched")
            assert up.running.streams() == 2
            described = up.says("/edge/forward/registry", "counters")
            assert isinstance(described, dict)
            assert described["restarted"] == 5  # it was told
            assert len(up.place.table.routes) == 4

    run(main())


def test_a_failing_route_costs_its_own_allocation_only(
    pki: PkiFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = b"poison"
    genuine = RouteTable.send

    def send(table: RouteTable, buffer: memoryview, segment_size: int, destination: Address) -> int:
        if poison in bytes(buffer):
            raise RuntimeError("a bug in the data path")
        return genuine(table, buffer, segment_size, destination)

    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream, other = await up.open(1), await up.open(2)
            for one in (stream, other):
                one.register()
                await one.exchange("before")
            monkeypatch.setattr(RouteTable, "send", send)
            plane = up.running.system.find("/edge/forward/plane")
            assert plane is not None
            incarnation = plane.incarnation
            # In one wake-up of the socket: the bad one, and good ones for both behind it.
            stream.from_consumer(poison)
            other.from_consumer(b"same wake-up")
            await eventually(lambda: b"same wake-up" in other.provider.received)
            await _arrives_at_provider(stream, "restarted")
            await stream.exchange("both ways")
            assert poison not in stream.provider.received
            described = up.says("/edge/forward/registry", "counters")
            assert isinstance(described, dict)
            assert described["restarted"] == 1
            assert up.running.system.find("/edge/forward/plane") is plane
            assert plane.incarnation == incarnation

    run(main())


def test_killing_both_and_the_registry_together_loses_no_stream(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            stream.register()
            await stream.exchange("before")
            await _kill(up, "/edge/forward/registry")
            await stream.exchange("registry gone")
            await eventually(lambda: up.says("/edge/forward/registry", "pairs") == 1)
            await _kill(up, up.allocations()[1])
            await _arrives_at_provider(stream, "the new record has the addresses")
            for path in ["/edge/forward/registry", *up.allocations()]:
                up.running.kill(path)
            await stream.exchange("all three at once")
            again = await up.open(2)
            again.register()
            await again.exchange("new grants work")
            stream.mine.stream.write_eof()
            again.mine.stream.write_eof()
            await eventually(lambda: up.allocations() == [])
            assert up.place.table.routes == {}

    run(main())


@pytest.mark.parametrize("path", ["/edge/forward/plane", "/edge/forward/allocations"])
def test_socket_and_supervisor_come_back_and_streams_go_on(
    pki: PkiFixture, tmp_path: Path, path: str
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            stream.register()
            await stream.exchange("before")
            address = up.place.table.address
            for number in range(3):
                await _kill(up, path)
                await _arrives_at_provider(stream, f"after kill {number}")
            assert up.place.table.address == address
            await stream.exchange("both ways")
            stream.theirs.stream.write_eof()
            await eventually(lambda: up.allocations() == [])

    run(main())


def test_the_death_of_the_whole_plane_costs_no_stream(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream, other = await up.open(1), await up.open(2)
            for one in (stream, other):
                one.register()
                await one.exchange("before")
            for number in range(3):
                await _kill(up, "/edge/forward")
                # The same ids; where the agents are is learnt from what both send.
                await stream.exchange(f"after kill {number}")
                await other.exchange(f"after kill {number}")
            assert len(up.place.table.routes) == 4
            assert len(up.allocations()) == 4
            for one in (stream, other):
                one.theirs.stream.write_eof()
            await eventually(lambda: up.allocations() == [])
            assert up.place.table.routes == {}
            assert up.says("/edge/forward/registry", "pairs") == 0

    run(main())


def test_a_stream_that_opens_while_the_plane_restarts_waits_for_it(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            await up.open(1)
            for number, name in enumerate(["allocations", "registry", "plane", "allocations"], 2):
                path = f"/edge/forward/{name}"
                await _kill(up, path)
                up.running.kill(path)  # the second restart takes a pause
                stream = await up.open(number)
                stream.register()
                await stream.exchange(name)

    run(main())


def test_a_killed_stream_pair_ends_its_allocations(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream, other = await up.open(1), await up.open(2)
            for one in (stream, other):
                one.register()
            cell = up.running.system.find("/edge/streams")
            assert cell is not None
            assert cell.children
            up.running.kill(next(iter(cell.children.values())).path)
            await eventually(lambda: stream.mine.reset_code is not None)
            await eventually(lambda: len(up.allocations()) == 2)
            await other.exchange("unharmed")

    run(main())


def test_a_lost_agent_ends_its_allocations(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with forward_relay(pki, tmp_path) as up:
            stream = await up.open(1)
            up.consumer.connection.close(0)
            await eventually(lambda: up.allocations() == [])
            await eventually(lambda: stream.theirs.reset_code is not None)

    run(main())
