"""The demo's web service: shows the path its own bytes took.

It asks the daemon's control socket for the provider agent's bridge whose local socket is the peer
of the HTTP request; the stream id found there names the stream pair in the relay and the bridge of
the consumer agent. `/stream` counts for as long as one looks, `/big?bytes=N` sends N bytes and
their SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from actors.runtime import Actor
from actors.transport.gate import HEARD
from actors.transport.tcp.acceptor import AcceptLimits, listen_tcp
from actors.transport.tcp.protocol_listener import ProtocolListener
from tools.control_client import CannotConnect, ControlClient, ControlError, Disconnected
from wire.admin.messages import Row

#: Most bytes `/big` sends.
MAX_BIG_BYTES = 1 << 30
CHUNK = 64 * 1024
#: Connections, all of them of the provider agent; seconds to the first complete request.
LIMITS = AcceptLimits(256, 256, deadline=10.0, yields=HEARD)
#: Seconds to find the path.
LOOKUP_SECONDS = 5.0


@dataclass(slots=True)
class Hop:
    """One actor on the way: where it is, and what it says about itself."""

    role: str
    path: str
    details: Row


class WebService(Actor):
    def __init__(self, host: str, port: int, control_socket: str) -> None:
        self._host = host
        self._port = port
        self._control_socket = Path(control_socket)
        self._served = 0

    async def init(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/", self._counted(self._index))
        app.router.add_get("/stream", self._counted(self._stream))
        app.router.add_get("/big", self._counted(self._big))
        app.on_response_prepare.append(self._answering)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None
        self._listener = self.own(
            ProtocolListener(runner.server, LIMITS, name="demo", log=self.log.warning), "listener"
        )
        sock = listen_tcp(self._host, self._port)
        self._listener.attach(sock, self.guard)

    async def _answering(self, request: web.Request, _: web.StreamResponse) -> None:
        self._listener.asked(request.transport)

    def describe(self) -> dict[str, object]:
        """Where it listens."""
        return {"address": f"{self._host}:{self._port}", "requests": self._served}

    def _counted(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def counted(request: web.Request) -> web.StreamResponse:
            self._served += 1
            try:
                return await handler(request)
            except ConnectionResetError:  # who asked left in the middle of the answer
                return web.Response()

        return counted

    async def _index(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                hops = await self._path_of(request)
            note = "" if hops else "the path could not be found (not through the relay?)"
        except (CannotConnect, ControlError, Disconnected, TimeoutError) as error:
            hops, note = [], f"the daemon's control socket did not tell: {error}"
        lines = ["Trunkline demo: these bytes came to you through the relay.", ""]
        for index, hop in enumerate(hops, 1):
            lines.append(f"{index}. {hop.role}: {hop.path}")
            lines += [f"     {key}: {value}" for key, value in hop.details.items()]
        if note:
            lines.append(note)
        lines += ["", "More: /stream (a live counter, curl -N), /big?bytes=1000000", ""]
        text = "\n".join(lines)
        if "text/html" in request.headers.get("Accept", ""):
            body = f"<!doctype html><title>Trunkline demo</title><pre>{html.escape(text)}</pre>"
            return web.Response(text=body, content_type="text/html")
        return web.Response(text=text)

    async def _path_of(self, request: web.Request) -> list[Hop]:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        if not peer:
            return []
        local = f"{peer[0]}:{peer[1]}"
        client = await ControlClient.connect(self._control_socket)
        try:
            provider = await self._find(client, "/node", "Provider", "local_address", local)
            if provider is None:
                return []
            stream_id = str(provider[1]["stream_id"])
            pairs = [
                pair
                for place in await self._relays(client)
                if (pair := await self._find(client, place, "Pair", "stream_id", stream_id))
            ]
            consumer = await self._find(client, "/node", "Consumer", "stream_id", stream_id)
        finally:
            await client.close()
        hops = []
        for role, found, keys in (
            ("consumer agent", consumer, ("local_peer", "local_address", "bytes_from_socket",
                                          "bytes_to_socket")),
            *(("relay", pair, ("stream_id", "service", "consumer", "provider",
                             "bytes_from_consumer", "bytes_from_provider")) for pair in pairs),
            ("provider agent", provider, ("peer", "local_address", "local_peer",
                                          "bytes_from_socket", "bytes_to_socket")),
        ):  # fmt: skip
            if found is not None:
                hops.append(Hop(role, found[0], {key: found[1].get(key) for key in keys}))
        return hops

    @staticmethod
    async def _relays(client: ControlClient) -> list[str]:
        """Where stream pairs are: in this daemon, or in the relays it runs, the ingress first."""
        places = [str(row["path"]) for row in await client.rows("tree", path="/")]
        return sorted(place for place in places if place.endswith("/edge/streams"))

    @staticmethod
    async def _find(
        client: ControlClient, below: str, class_word: str, key: str, value: str
    ) -> tuple[str, Row] | None:
        """The actor of a class whose description has `key` equal to `value`."""
        for row in await client.rows("tree", path=below):
            if class_word not in str(row.get("class", "")):
                continue
            try:
                details = await client.request("describe", path=str(row["path"]))
            except ControlError:
                continue  # it ended meanwhile
            described = details.get("describe")
            if isinstance(described, dict) and described.get(key) == value:
                return str(row["path"]), described
        return None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        count = 0
        while True:
            count += 1
            await response.write(f"{count}\n".encode())
            await asyncio.sleep(0.5)

    async def _big(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("bytes", "1000000")
        if not text.isdigit() or int(text) > MAX_BIG_BYTES:
            raise web.HTTPBadRequest(text=f"bytes must be a number up to {MAX_BIG_BYTES}\n")
        size = int(text)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = size + 65
        await response.prepare(request)
        digest = hashlib.sha256()
        source = random.Random(size)
        left = size
        while left:
            chunk = source.randbytes(min(CHUNK, left))
            digest.update(chunk)
            await response.write(chunk)
            left -= len(chunk)
        await response.write(digest.hexdigest().encode() + b"\n")
        return response
