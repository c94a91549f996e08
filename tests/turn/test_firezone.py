"""`trunkline compat firezone-relay` against a portal of the test."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import run
from tests.system.daemon import ROOT
from tests.turn.rig import Client, code
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.integrity import long_term_key
from wire.turn.credentials import stamp_password

#: What the relay says to its portal in this test: any token would do.
WORD = "token-of-the-test"


class Portal:
    """Takes relays in, as told.

    Attributes:
        status: answered to the upgrade instead, unless 0.
    """

    def __init__(self) -> None:
        self.status = 0
        self.joins: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.socket: web.WebSocketResponse | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.status:
            return web.Response(status=self.status)
        assert request.headers["x-authorization"] == f"Bearer {WORD}"
        self.socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            frame = json.loads(message.data)
            reply = {"status": "ok", "response": {}}
            body = {"topic": frame["topic"], "event": "phx_reply", "ref": frame["ref"]}
            await socket.send_str(json.dumps({**body, "payload": reply}))
            if frame["event"] == "phx_join":
                init: dict[str, object] = {
                    "topic": "relay",
                    "event": "init",
                    "payload": {},
                    "ref": None,
                }
                await socket.send_str(json.dumps(init))
                self.joins.put_nowait((request.path_qs, frame["payload"]))
        return socket


@asynccontextmanager
async def _portal() -> AsyncIterator[tuple[Portal, int]]:
    portal = Portal()
    application = web.Application()
    application.router.add_get("/relay/websocket", portal.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    try:
        yield portal, runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _relay(portal: int) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **os.environ, "FIREZONE_API_URL": f"ws://127.0.0.1:{portal}", "FIREZONE_TOKEN": WORD,
        "FIREZONE_NAME": "relay one", "PUBLIC_IP4_ADDR": "127.0.0.1", "BIND_IP4_ADDR": "127.0.0.1",
        "LISTEN_PORT": "0", "HEALTH_CHECK_ADDR": "127.0.0.1:0",
    }  # fmt: skip
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.entry", "compat", "firezone-relay", "--allow-peer",
        "127.0.0.0/8", cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def _line(program: asyncio.subprocess.Process, pattern: str) -> re.Match[str]:
    assert program.stderr is not None
    async with asyncio.timeout(30):
        while True:
            line = (await program.stderr.readline()).decode()
            assert line, "it ended"
            assert WORD not in line
            match = re.search(pattern, line)
            if match is not None:
                return match


@pytest.mark.timeout(90)
def test_a_relay_joins_serves_and_survives_its_portal() -> None:
    async def main() -> None:
        async with _portal() as (portal, port), _relay(port) as program:
            udp = int((await _line(program, r"TURN on 127\.0\.0\.1:(\d+)")).group(1))
            async with asyncio.timeout(30):
                path, payload = await portal.joins.get()
            assert "name=relay+one" in path
            assert "ipv4=127.0.0.1&port=0" in path
            secret = payload["stamp_secret"]
            assert re.fullmatch("[0-9a-f]{64}", secret)
            until = int(time.time()) + 60
            client = Client(("127.0.0.1", udp), f"{until}:salt")
            client.realm = "firezone"
            client.key = long_term_key(
                client.user, "firezone", stamp_password(secret, until, "salt")
            )
            relayed = await client.allocate()
            assert await client.bind(0x4000, relayed) == 0
            # The portal goes: allocations stay, and it is joined again with the same secret.
            assert portal.socket is not None
            await portal.socket.close(code=1001)
            assert code(await client.ask(stun.REFRESH, a.lifetime(600))) == 0
            async with asyncio.timeout(30):
                _, again = await portal.joins.get()
            assert again["stamp_secret"] == secret
            client.close()
            program.terminate()
            async with asyncio.timeout(20):
                assert await program.wait() == 0

    run(main(), timeout=80)


@pytest.mark.timeout(90)
def test_a_token_that_is_not_known_is_fatal() -> None:
    async def main() -> None:
        async with _portal() as (portal, port):
            portal.status = 401
            async with _relay(port) as program:
                await _line(program, "does not know this token")
                async with asyncio.timeout(20):
                    assert await program.wait() == 1

    run(main(), timeout=80)


def test_health_pages() -> None:
    from actors.runtime import ActorSystem, ChildSpec, Supervisor
    from actors.turn.health import HealthServer

    async def main() -> None:
        joined, port = [False], list[int]()
        system = ActorSystem()
        spec = ChildSpec("health", lambda: HealthServer(("127.0.0.1", 0), lambda: joined[0], port))
        await system.start(lambda: Supervisor([spec]))
        async with aiohttp.ClientSession() as client:

            async def status(path: str) -> int:
                async with client.get(f"http://127.0.0.1:{port[0]}{path}") as answer:
                    return answer.status

            assert [await status(one) for one in ("/healthz", "/readyz", "/x")] == [200, 503, 404]
            joined[0] = True
            assert await status("/readyz") == 200
        await system.stop(timeout=5)

    run(main())
