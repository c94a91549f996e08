"""The actor that answers operators' HTTP requests: metrics, health, readiness.

============== ======================================================================
/metrics       Prometheus text
/debug/metrics the JSON snapshot of the reference relay
/health        200 as long as the process answers at all
/ready         200 when new streams can be served, else 503; JSON says what is missing
============== ======================================================================

It has no authentication: bind it to loopback, or to a network of operators.

Source: protocol sheet ORP 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from actors.observe.exposition import prometheus_text, snapshot
from actors.observe.meters import Meters
from actors.runtime import Actor, ExitReason

#: What is missing for new streams; empty: nothing.
Readiness = Callable[[], Awaitable[dict[str, str]]]

#: Seconds a request may take that is under way when the actor stops.
STOP_SECONDS = 1.0
#: Prometheus text format.
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class _Listening:
    """The listening socket and its connections, as a resource: gone at once with the actor."""

    def __init__(self, server: asyncio.Server, handlers: web.Server) -> None:
        self._server = server
        self._handlers = handlers

    def abort(self) -> None:
        """Close everything; idempotent."""
        self._server.close()
        for handler in list(self._handlers.connections):
            if handler.transport is not None:
                handler.transport.abort()


class MetricsServer(Actor):
    """See the module docstring.

    Args:
        address: host and port; with port 0 every incarnation binds the port of the first.
    """

    def __init__(
        self, meters: Meters, readiness: Readiness, address: tuple[str, int], bound: list[int]
    ) -> None:
        self._meters = meters
        self._readiness = readiness
        self._host, self._port = address
        self._bound = bound  # shared by the incarnations: the port of the first
        self._runner: web.AppRunner | None = None
        self._served = 0

    async def init(self) -> None:
        """Bind and serve."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/debug/metrics", self._debug_metrics),
                web.get("/health", self._health),
                web.get("/ready", self._ready),
            ]
        )
        self._runner = runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS
        )
        await runner.setup()
        assert runner.server is not None
        port = self._bound[0] if self._bound else self._port
        server = await self.system.loop.create_server(
            runner.server, self._host, port, reuse_address=True
        )
        self.own(_Listening(server, runner.server), "listener")
        self._bound[:] = [int(server.sockets[0].getsockname()[1])]
        self.log.info("metrics on {}:{}", self._host, self._bound[0])

    async def terminate(self, reason: ExitReason) -> None:
        """Close the listener and what is connected."""
        if self._runner is not None:
            await self._runner.cleanup()

    def describe(self) -> dict[str, object]:
        """Where, and how often it was asked."""
        port = self._bound[0] if self._bound else 0
        return {"address": f"{self._host}:{port}", "served": self._served}

    async def _metrics(self, _: web.Request) -> web.Response:
        self._served += 1
        return web.Response(body=prometheus_text(self._meters), headers={"Content-Type": _TEXT})

    async def _debug_metrics(self, _: web.Request) -> web.Response:
        self._served += 1
        return _json(snapshot(self._meters))

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        missing = await self._readiness()
        if missing:
            return _json({"status": "not ready", "missing": missing}, status=503)
        return _json({"status": "ready"})


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
