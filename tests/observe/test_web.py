"""The pages for operators, with strangers who want to hold them."""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from actors.node.logging import install, uninstall
from actors.observe import web
from actors.observe.meters import Meters
from actors.observe.tree import ObserveSettings, observe_spec
from actors.observe.web import Readiness
from actors.runtime import ActorSystem, Supervisor
from tests.conftest import eventually, run
from tests.transport.test_acceptor import knock, sources


async def ready() -> dict[str, str]:
    return {}


@asynccontextmanager
async def serving(ready: Readiness = ready) -> AsyncIterator[tuple[ActorSystem, tuple[str, int]]]:
    system = ActorSystem("test")
    bound: list[int] = []
    settings = ObserveSettings(listen=("127.0.0.1", 0))
    spec = observe_spec(Meters(), ready, settings, bound=bound)
    await system.start(lambda: Supervisor([spec]))
    try:
        yield system, ("127.0.0.1", bound[0])
    finally:
        await system.stop(timeout=5.0)


async def ask(address: tuple[str, int], rest: bytes = b"") -> bytes:
    """The whole answer; the server ends the connection."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def test_one_request_a_connection() -> None:
    async def main() -> None:
        async with serving() as (_, address):
            answer = await ask(address)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"Connection: close" in answer

    run(main())


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nHo"], ids=["silent", "half"])
def test_a_crowd_that_asks_nothing_keeps_nobody_out(said: bytes) -> None:
    async def main() -> None:
        async with serving() as (system, address):
            crowd = [knock(address, "127.0.0.2", said) for _ in range(40)]
            assert (await ask(address)).startswith(b"HTTP/1.1 200")
            await eventually(lambda: _connections(system) == web.LIMITS.most_per_source)
            crowd += [knock(address, one, said) for one in sources(100)]
            assert (await ask(address)).startswith(b"HTTP/1.1 200")
            assert _connections(system) <= web.LIMITS.most
            for one in crowd:
                one.close()

    run(main())


def _connections(system: ActorSystem) -> int:
    cell = system.find("/observe/http")
    assert cell is not None
    shown = cell.actor.describe()["connections"]  # type: ignore[union-attr]
    assert isinstance(shown, int)
    return shown


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"GET /\x00 HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: no\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
    ids=["tls", "version", "header", "long"],
)
def test_nonsense_is_answered_and_fills_no_log(said: bytes) -> None:
    log = io.StringIO()
    install("INFO", "human", log)

    async def main() -> None:
        async with serving() as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(said)
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
            writer.close()
            assert (await ask(address)).startswith(b"HTTP/1.1 200")

    try:
        run(main())
    finally:
        uninstall()
    assert "Error handling" not in log.getvalue()
    assert "Traceback" not in log.getvalue()


def test_half_a_request_and_answers_that_take_too_long_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "LIMITS", replace(web.LIMITS, deadline=0.3))
    monkeypatch.setattr(web, "LIFETIME_SECONDS", 0.6)
    asked = asyncio.Event()

    async def stuck() -> dict[str, str]:
        asked.set()
        await asyncio.sleep(60)
        return {}

    async def main() -> None:
        async with serving(stuck) as (system, address):
            knockers = [
                knock(address, "127.0.0.1", b"GET /metr"),
                knock(address, "127.0.0.1", b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"),
            ]
            await asked.wait()
            await eventually(lambda: _connections(system) == 0)
            for one in knockers:
                one.setblocking(False)
                async with asyncio.timeout(5):
                    assert await asyncio.get_running_loop().sock_recv(one, 1000) == b""
                one.close()

    run(main())


def test_connections_leave_nothing_behind() -> None:
    async def main() -> None:
        async with serving() as (system, address):
            await ask(address)
            gc.collect()
            gc.disable()
            for _ in range(5):
                await ask(address)
                knock(address, "127.0.0.1", b"GET /").close()
                await eventually(lambda: _connections(system) == 0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = {
                type(one).__qualname__
                for one in gc.garbage
                if type(one).__module__.startswith(("actors", "aiohttp"))
                or isinstance(one, bytearray)
            }
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            assert not left

    run(main())
