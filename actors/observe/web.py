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

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from actors.observe.exposition import prometheus_text, snapshot
from actors.observe.meters import Meters
from actors.runtime import Actor, ExitReason, naming
from actors.transport.addresses import literal
from actors.transport.dialling import resolve
from actors.transport.gate import HEARD
from actors.transport.tcp.acceptor import AcceptLimits, listen_tcp
from actors.transport.tcp.protocol_listener import ProtocolListener

#: What is missing for new streams; empty: nothing.
Readiness = Callable[[], Awaitable[dict[str, str]]]

#: Seconds a request may take that is under way when the actor stops.
STOP_SECONDS = 1.0
#: Connections, and those of one source; seconds to a complete request, and to the whole answer.
LIMITS = AcceptLimits(64, 16, deadline=5.0, yields=HEARD)
LIFETIME_SECONDS = 30.0
#: Prometheus text format.
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer(Actor):
    """The actor that answers operators' HTTP requests: metrics, health, readiness.

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
        self._listener: ProtocolListener | None = None
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
        application.on_response_prepare.append(self._prepared)
        self._runner = runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_SECONDS,
            lingering_time=0,  # nobody has a body to send
            handler_cancellation=True,  # who left gets no answer
        )
        await runner.setup()
        assert runner.server is not None
        self._listener = listener = self.own(
            ProtocolListener(
                runner.server,
                LIMITS,
                name="metrics",
                lifetime=LIFETIME_SECONDS,
                log=self.log.warning,
            ),
            "listener",
        )
        for host in await self._hosts():
            with naming("metrics.listen"):
                sock = listen_tcp(host, self._bound[0] if self._bound else self._port)
            listener.attach(sock, self.guard)
            self._bound[:] = [int(sock.getsockname()[1])]
        self.log.info("metrics on {}:{}", self._host, self._bound[0])

    async def _hosts(self) -> list[str]:
        """What to bind: the address as it is written, or every one of a name."""
        if self._host in ("", "*") or literal(self._host, self._port) is not None:
            return [self._host]
        return [str(one.address[0]) for one in await resolve(self._host, self._port)]

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        """One request a connection: nobody keeps one for later."""
        response.headers["Connection"] = "close"
        response.force_close()
        if self._listener is not None:
            self._listener.asked(request.transport)

    async def terminate(self, reason: ExitReason) -> None:
        """Close the listener and what is connected."""
        if self._runner is not None:
            await self._runner.cleanup()

    def describe(self) -> dict[str, object]:
        """Where, and how often it was asked."""
        port = self._bound[0] if self._bound else 0
        listener = self._listener
        return {
            "address": f"{self._host}:{port}",
            "served": self._served,
            "connections": 0 if listener is None else len(listener),
            "turned_away": {} if listener is None else dict(listener.counters),
        }

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
