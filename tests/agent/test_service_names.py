"""Names as people give them: they work, or are refused before anything runs, with the reason."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.runtime import ActorSystem, Event
from tests.agent.rig import says
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay
from tools.agent.main import cli
from tools.agent.settings import AgentSettings, Mapping
from tools.agent.tree import agent_root

ODD = ("two words", "a/b/../c", "имя сервиса", "100%~=:,x", "x" * 255, "é" * 127, "..", "q?#&'\"")


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_a_service_may_be_called(pki: PkiFixture, tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with relay(pki, tmp_path) as running:
            systems: list[ActorSystem] = []
            try:
                for leaf, provide, consume in (
                    (pki.provider, (Mapping(name, "127.0.0.1", port),), ()),
                    (pki.consumer, (), (Mapping(name, "127.0.0.1", 0),)),
                ):
                    settings = AgentSettings(
                        certificate=str(leaf.certificate),
                        key=str(leaf.key),
                        ca=str(pki.ca),
                        relays=(running.address,),
                        provide=provide,
                        consume=consume,
                    )
                    system = ActorSystem("agent")
                    await system.start(lambda settings=settings: agent_root(settings))  # type: ignore[misc]
                    systems.append(system)
                    await eventually(lambda system=system: says(system, "/link", "ready") is True)  # type: ignore[misc]
                assert says(systems[0], "/link", "registered") == [name]
                listener = systems[1].find("/listeners")
                assert listener is not None
                assert listener.children
                place = next(iter(listener.children.values())).path
                host, _, at = str(says(systems[1], place, "address")).rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(at))
                writer.write(b"hello\n")
                assert await asyncio.wait_for(reader.readline(), 10) == b"hello\n"
                writer.close()
                await writer.wait_closed()
            finally:
                for system in reversed(systems):
                    await system.stop(timeout=5.0)
        server.close()
        await server.wait_closed()

    run(main(), timeout=40)


def refusal(pki: PkiFixture, *arguments: str) -> str:
    files = ("--cert", str(pki.provider.certificate), "--key", str(pki.provider.key))
    result = CliRunner().invoke(cli, [*arguments, *files, "--ca", str(pki.ca)])
    assert result.exit_code == 2
    return result.output


@pytest.mark.parametrize(
    "name, reason",
    [
        ("", "is empty"),
        ("x" * 256, "has 256 bytes, at most 255"),
        ("é" * 128, "has 256 bytes, at most 255"),
        ("two\nlines", "cannot be printed"),
        ("bell\a", "cannot be printed"),
    ],
)
def test_what_a_service_may_not_be_called(pki: PkiFixture, name: str, reason: str) -> None:
    for arguments in (
        ("provide", "--service", name, "--target", "127.0.0.1:80"),
        ("consume", "--service", name, "--listen", "127.0.0.1:0"),
        ("run", "--provide", f"{name}=127.0.0.1:80"),
    ):
        said = " ".join(refusal(pki, *arguments).split())
        assert reason in said


@pytest.mark.parametrize(
    "names, reason",
    [
        (("two words",), "is no label"),
        (("имя",), "is no label"),
        (("a..b",), "is no label"),
        (("x" * 64,), "has 64 characters"),
        ((".".join(["x" * 61] * 4),), "at most 253"),
        (("web", "Web"), "more than case"),
    ],
)
def test_what_nobody_can_ask_for_is_not_intercepted(
    pki: PkiFixture, names: tuple[str, ...], reason: str
) -> None:
    services = [part for name in names for part in ("--service", name)]
    said = " ".join(refusal(pki, "consume", "--intercept", "tproxy", *services).split())
    assert reason in said


def test_a_local_side_that_resets_before_it_is_accepted_is_no_failure(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = AgentSettings(
            certificate=str(pki.consumer.certificate),
            key=str(pki.consumer.key),
            ca=str(pki.ca),
            relays=(("127.0.0.1", 9),),
            consume=(Mapping("web", "127.0.0.1", 0),),
        )
        system = ActorSystem("agent")
        ends: list[Event] = []
        system.events.subscribe(ends.append)
        await system.start(lambda: agent_root(settings))
        listener = system.find("/listeners")
        assert listener is not None
        assert listener.children
        place = next(iter(listener.children.values())).path
        host, _, port = str(says(system, place, "address")).rpartition(":")
        for _ in range(20):
            with socket.create_connection((host, int(port))) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await eventually(lambda: says(system, place, "accepted") == 20)
        bridges = system.find("/bridges")
        assert bridges is not None
        await eventually(lambda: not bridges.children)
        exits = [e.fields["kind"] for e in ends if e.kind == "exited" and "/out-web" in e.path]
        assert exits == ["shutdown"] * 20
        await system.stop(timeout=5.0)

    run(main(), timeout=30)
