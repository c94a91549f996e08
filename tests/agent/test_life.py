"""An agent as a daemon: what signals do to its process."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.edge.connection.agent_connection import AgentConnection
from actors.edge.settings import EdgeSettings
from actors.pki.certificates import create_leaf
from actors.pki.dev_pki import LeafFiles
from actors.pki.files import pair_paths, read_pair
from tests.agent.rig import SERVICE
from tests.conftest import PkiFixture, eventually, run
from tests.edge.relay_rig import relay_leaf
from tests.edge.rig import Relay, relay
from tests.transport.test_tcp import odd_leaf


@dataclass
class AgentProcess:
    """`trunkline agent`, and what it said."""

    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode())

    async def says(self, what: str, timeout: float = 15.0) -> str:
        def found() -> list[str]:
            return [line for line in self.said if re.search(what, line)]

        await eventually(found, timeout=timeout, what=f"{what!r} in {self.said}")
        return found()[-1]


@asynccontextmanager
async def agent(
    running: Relay, pki: PkiFixture, leaf: LeafFiles, *arguments: str
) -> AsyncIterator[AgentProcess]:
    host, port = running.address
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.entry", "agent", *arguments),
        *("--relay", f"{host}:{port}", "--ca", str(pki.ca)),
        *("--cert", str(leaf.certificate), "--key", str(leaf.key)),
        stderr=asyncio.subprocess.PIPE,
    )
    one = AgentProcess(process)
    reading = asyncio.create_task(one.read())
    try:
        await one.says("connected to")
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def test_an_agent_says_why_it_is_not_connected(pki: PkiFixture, tmp_path: Path) -> None:
    """Once, at the default level: a relay that is not there, one that serves other tenants."""
    command = (sys.executable, "-m", "tools.entry", "agent", "provide", "--service", SERVICE)

    async def said(port: int, what: str) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            *(*command, "--target", "127.0.0.1:9", "--relay", f"127.0.0.1:{port}"),
            *("--ca", str(pki.ca), "--cert", str(pki.provider.certificate)),
            *("--key", str(pki.provider.key), "--relay-id", "r1"),
            stderr=asyncio.subprocess.PIPE,
        )
        one = AgentProcess(process)
        reading = asyncio.create_task(one.read())
        try:
            await one.says(what)
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 15)
            await reading
        return [line for line in one.said if "WARNING" in line]

    async def main() -> None:
        others = EdgeSettings(tenants=frozenset({"others"}))
        async with relay(pki, tmp_path, settings=others) as running:
            silent = await said(running.address[1], "closed without a word: it does not serve out")
            assert len(silent) == 1
        async with relay(pki, tmp_path, leaf=relay_leaf(pki, "r9"), relay_id="r9") as other:
            await said(other.address[1], "no relay answers: .*r9")

    run(main(), timeout=50)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """What comes, or that the connection ended, however it did."""
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(10), 10)
    return b""


@asynccontextmanager
async def a_stream(
    pki: PkiFixture, tmp_path: Path, drain: str
) -> AsyncIterator[
    tuple[dict[str, AgentProcess], tuple[str, int], asyncio.StreamReader, asyncio.StreamWriter]
]:
    """Two agents, and an echo stream that is open."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    service = ("--service", SERVICE)
    limit = ("--drain-seconds", drain)
    async with (
        relay(pki, tmp_path) as running,
        agent(running, pki, pki.provider, "provide", *service, "--target", target, *limit) as one,
        agent(
            running, pki, pki.consumer, "consume", *service, "--listen", "127.0.0.1:0", *limit
        ) as two,
    ):
        place = re.search(r"on (127\.0\.0\.1):(\d+)", await two.says(f"{SERVICE} on "))
        assert place is not None
        address = place[1], int(place[2])
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
        try:
            yield {"provider": one, "consumer": two}, address, reader, writer
        finally:
            writer.transport.abort()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("who", ["provider", "consumer"])
def test_sigterm_accepts_no_more_and_lets_streams_finish(
    pki: PkiFixture, tmp_path: Path, who: str
) -> None:
    async def main() -> None:
        async with a_stream(pki, tmp_path, "30") as (agents, address, reader, writer):
            ending = agents[who]
            ending.process.send_signal(signal.SIGTERM)
            await ending.says("draining: 1 streams are open")
            writer.write(b"goes on")
            assert await asyncio.wait_for(reader.readexactly(7), 10) == b"goes on"
            if who == "consumer":
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(*address)
            else:
                other_reader, other = await asyncio.open_connection(*address)
                other.write(b"nobody")
                assert await answer(other_reader) == b""
                other.transport.abort()
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert await asyncio.wait_for(ending.process.wait(), 10) == 0
            assert "cut" not in "".join(ending.said)

    run(main(), timeout=55)


def test_what_does_not_end_in_time_is_cut_and_counted(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with a_stream(pki, tmp_path, "0.3") as (agents, _, reader, _writer):
            agents["consumer"].process.send_signal(signal.SIGTERM)
            await agents["consumer"].says("1 streams did not end in time and are cut")
            assert await asyncio.wait_for(agents["consumer"].process.wait(), 10) == 0
            assert await answer(reader) == b""

    run(main(), timeout=40)


def test_a_second_signal_ends_at_once(pki: PkiFixture, tmp_path: Path) -> None:
    async def main() -> None:
        async with a_stream(pki, tmp_path, "300") as (agents, _, _reader, _writer):
            process = agents["provider"].process
            process.send_signal(signal.SIGTERM)
            await agents["provider"].says("draining: 1 streams are open")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0

    run(main(), timeout=40)


def test_sighup_uses_good_certificates_and_says_why_it_does_not_use_others(
    pki: PkiFixture, tmp_path: Path
) -> None:
    async def main() -> None:
        paths = pair_paths(tmp_path, "agent")
        shutil.copy(pki.provider.certificate, paths.certificate)
        shutil.copy(pki.provider.key, paths.key)
        leaf = LeafFiles(pki.provider.identity, paths.certificate, paths.key)
        authority, own = read_pair(pair_paths(pki.dev.directory, "ca")), read_pair(paths)
        assert authority is not None
        assert own is not None
        now = datetime.now(UTC)
        async with relay(pki, tmp_path) as running:

            def serial() -> str:
                cell = running.system.find(running.only("/edge/agents"))
                assert cell is not None
                assert isinstance(cell.actor, AgentConnection)
                return str(cell.actor._connection.peer.fingerprint)

            arguments = ("provide", "--service", SERVICE, "--target", "127.0.0.1:9")
            async with agent(running, pki, leaf, *arguments) as one:
                before = serial()
                good = paths.certificate.read_bytes(), paths.key.read_bytes()
                odd = odd_leaf(pki, tmp_path, "expired")
                relays = pki.relay.certificate, pki.relay.key
                others = pki.consumer.certificate, pki.consumer.key
                for certificate, key, reason in (
                    (odd[0].read_bytes(), odd[1].read_bytes(), "expired at"),
                    (relays[0].read_bytes(), good[1], "not the key of"),
                    (b"garbage", good[1], "not usable PEM"),
                    (relays[0].read_bytes(), relays[1].read_bytes(), "not that of an agent"),
                    (
                        others[0].read_bytes(),
                        others[1].read_bytes(),
                        f"and this is {leaf.identity}",
                    ),
                ):
                    paths.certificate.write_bytes(certificate)
                    paths.key.write_bytes(key)
                    one.process.send_signal(signal.SIGHUP)
                    await one.says(f"old ones stay.*{reason}")
                paths.key.write_bytes(good[1])
                assert serial() == before
                fresh = create_leaf(
                    authority, leaf.identity, lifetime=timedelta(days=2), now=now, key=own.key
                )
                paths.certificate.write_bytes(fresh.certificate_pem())
                one.process.send_signal(signal.SIGHUP)
                await one.says("certificates read again, for connections from now on")
                assert serial() == before  # what is connected stays
                place = running.only("/edge/agents")
                running.kill(place)
                cell = running.system.find("/edge/agents")
                assert cell is not None
                await eventually(lambda: place not in {c.path for c in cell.children.values()})  # type: ignore[union-attr]
                await eventually(lambda: len(cell.children or ()) == 1)
                assert serial() != before
                one.process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(one.process.wait(), 10) == 0

    run(main(), timeout=55)
