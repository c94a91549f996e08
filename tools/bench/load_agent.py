"""A lean agent process for load: raw ORP over the native engine, no local sockets.

Run as `python -m tools.bench.load_agent` with one JSON line on stdin; answers with JSON lines. The
provider serves every stream by its first byte: U counts what comes until EOF and answers one byte,
D sends as many bytes as the next eight say, E echoes. The consumer does what it is told (`_run`).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from actors.transport.connection import Connection
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.stream import Stream
from actors.transport.tls import TlsIdentity
from tools.bench.json_lines import hear, say
from tools.bench.sole_endpoint import SoleEndpoint
from wire.orp.agent_session import AgentSession
from wire.orp.events import SessionReady
from wire.orp.frame import FrameReader
from wire.orp.messages import ALPN, OpenStream, Register, StreamAccept, StreamReady

SERVICE = "bench"
#: What D sends, again and again.
CHUNK = random.Random(1).randbytes(64 * 1024)  # a pattern
MAX_FRAME = 4096


@dataclass(slots=True)
class Stalled:
    """A download that nobody reads for a while."""

    stream: Stream
    size: int
    held: list[bytes] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)
    ended: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class LoadAgent:
    """One connected agent."""

    def __init__(self, make_endpoint: Callable[[], QuicEndpoint]) -> None:
        self.make_endpoint = make_endpoint
        self.endpoint = make_endpoint()
        self.connection: Connection
        self.ready = asyncio.Event()
        self._decided: dict[int, Callable[[], object]] = {}
        self.stalled: list[Stalled] = []

    async def connect(self, address: tuple[str, int], uri: str, services: list[str]) -> None:
        """Handshake, HELLO, REGISTER."""
        self.connection = await self.endpoint.connect(address)
        loop = asyncio.get_running_loop()
        self._session = AgentSession(uri, [Register(name) for name in services], loop.time())
        ctrl = self.connection.open_stream()
        assert ctrl is not None
        self._ctrl = ctrl
        ctrl.on_data = self._from_ctrl
        ctrl.start()
        self._flush()
        self.connection.on_stream = self._incoming
        self.connection.start()
        async with asyncio.timeout(10):
            await self.ready.wait()

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if data:
            self._ctrl.write(data)

    def _from_ctrl(self, chunk: bytes) -> None:
        self._ctrl.consume(len(chunk))
        for event in self._session.receive(chunk, asyncio.get_running_loop().time()):
            if isinstance(event, SessionReady):
                self.ready.set()
            elif isinstance(event, StreamReady):
                decided = self._decided.pop(event.stream_id, None)
                if decided is not None:
                    decided()
        self._flush()

    # The provider.

    def _incoming(self, stream: Stream) -> None:
        reader = FrameReader(MAX_FRAME)

        def first(chunk: bytes) -> None:
            reader.feed(chunk)
            if reader.next_frame() is None:
                stream.consume(len(chunk))
                return
            rest = bytes(reader.take_rest())
            stream.consume(len(chunk) - len(rest))
            stream.write(StreamAccept().encode())
            stream.on_data = lambda data: _serve(stream, data)
            if rest:
                _serve(stream, rest)

        stream.on_data = first
        stream.start()

    # The consumer.

    async def open(self, service: str = SERVICE) -> Stream:
        """A spliced stream."""
        stream = self.connection.open_stream()
        while stream is None:
            await asyncio.sleep(0.001)
            stream = self.connection.open_stream()
        stream_id = secrets.randbits(63) + 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decided[stream_id] = lambda: _settle(done)
        stream.start()
        stream.write(OpenStream(service, "", stream_id).encode())
        async with asyncio.timeout(20):
            await done
        return stream


def _serve(stream: Stream, data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    stream.consume(len(data))
    if kind == b"E":

        def echo(chunk: bytes) -> None:
            stream.consume(len(chunk))
            stream.write(chunk)

        stream.on_data = echo
        stream.on_eof = stream.write_eof
        if rest:
            stream.write(rest)
    elif kind == b"U":
        stream.on_data = lambda chunk: stream.consume(len(chunk))
        stream.on_eof = lambda: (stream.write(b"!"), stream.write_eof())
    else:
        stream.on_data = lambda chunk: stream.consume(len(chunk))
        _pour(stream, int.from_bytes(rest[:8], "big"))


def _pour(stream: Stream, total: int) -> None:
    """Write so many bytes as fast as the stream takes them, then FIN."""
    left = total

    def push(_: int = 0) -> None:
        nonlocal left
        while left > 0 and stream.room > 0 and not stream.write_closed:
            piece = CHUNK if left >= len(CHUNK) else CHUNK[:left]
            stream.write(piece)
            left -= len(piece)
        if left <= 0:
            stream.write_eof()

    stream.on_drain = push
    push()


def _settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


async def _transfer(agent: LoadAgent, direction: str, size: int) -> float:
    """One stream; seconds it took."""
    stream = await agent.open()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream.on_data = lambda chunk: stream.consume(len(chunk))
    stream.on_eof = lambda: _settle(ended)
    stream.on_lost = lambda reason: _settle(ended, OSError(str(reason)))
    stream.on_reset = lambda code: _settle(ended, OSError(f"reset {code}"))
    began = time.perf_counter()
    if direction == "upload":
        stream.write(b"U")
        _pour(stream, size)
    else:
        stream.write(b"D" + size.to_bytes(8, "big"))
        stream.write_eof()
    await ended
    return time.perf_counter() - began


async def _round_trips(agent: LoadAgent, count: int) -> list[float]:
    """Seconds of 64-byte exchanges on one stream."""
    stream = await agent.open()
    loop = asyncio.get_running_loop()
    stream.write(b"E")
    times = []
    for _ in range(count):
        got = 0
        back: asyncio.Future[None] = loop.create_future()

        def data(chunk: bytes, back: asyncio.Future[None] = back) -> None:
            nonlocal got
            stream.consume(len(chunk))
            got += len(chunk)
            if got >= 64 and not back.done():
                back.set_result(None)

        stream.on_data = data
        began = time.perf_counter()
        stream.write(bytes(64))
        async with asyncio.timeout(10):
            await back
        times.append(time.perf_counter() - began)
    stream.write_eof()
    return times


async def _stall(agent: LoadAgent, size: int) -> None:
    """A download that is not read."""
    stalled = Stalled(await agent.open(), size)
    stream = stalled.stream
    stream.on_data = stalled.held.append
    stream.on_eof = lambda: _settle(stalled.ended)
    stream.on_lost = lambda reason: _settle(stalled.ended, OSError(str(reason)))
    stream.on_reset = lambda code: _settle(stalled.ended, OSError(f"reset {code}"))
    stream.write(b"D" + size.to_bytes(8, "big"))
    agent.stalled.append(stalled)


async def _read_on(agent: LoadAgent) -> dict[str, Any]:
    """Read what was stalled, to the end; whether everything is as it was sent."""
    stalled, agent.stalled = agent.stalled, []
    for one in stalled:

        def take(chunk: bytes, one: Stalled = one) -> None:
            one.digest.update(chunk)
            one.stream.consume(len(chunk))

        held, one.held = one.held, []
        one.stream.on_data = take
        for chunk in held:
            take(chunk)
    async with asyncio.timeout(300):
        await asyncio.gather(*(one.ended for one in stalled))
    for one in stalled:
        one.stream.write_eof()
    return {"equal": all(one.digest.digest() == _expected(one.size) for one in stalled)}


def _expected(size: int) -> bytes:
    digest = hashlib.sha256()
    for _ in range(size // len(CHUNK)):
        digest.update(CHUNK)
    digest.update(CHUNK[: size % len(CHUNK)])
    return digest.digest()


async def _busy(agent: LoadAgent, streams: int, seconds: float) -> int:
    """Downloads for so long; bytes that came."""
    total = 0
    opened = [await agent.open() for _ in range(streams)]
    for stream in opened:

        def take(chunk: bytes, stream: Stream = stream) -> None:
            nonlocal total
            total += len(chunk)
            stream.consume(len(chunk))

        stream.on_data = take
        stream.write(b"D" + (1 << 50).to_bytes(8, "big"))
    await asyncio.sleep(0.5)
    before = total
    await asyncio.sleep(seconds)
    count = total - before
    for stream in opened:
        stream.stop_sending(0)
        stream.write_eof()
    return count


async def _visit(agent: LoadAgent, services: list[str]) -> list[str]:
    """A byte to each service and back; those that did not answer."""
    silent = []
    for service in services:
        back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            stream = await agent.open(service)

            def answered(
                chunk: bytes, stream: Stream = stream, back: asyncio.Future[None] = back
            ) -> None:
                stream.consume(len(chunk))
                _settle(back)

            stream.on_data = answered
            stream.write(b"E!")
            async with asyncio.timeout(10):
                await back
            stream.write_eof()
        except TimeoutError:
            silent.append(service)
    return silent


async def _run(agent: LoadAgent, command: dict[str, Any]) -> dict[str, Any]:
    kind = command["do"]
    if kind == "stall":
        for _ in range(command["streams"]):
            await _stall(agent, command["bytes"])
        return {}
    if kind == "read on":
        return await _read_on(agent)
    if kind == "busy":
        return {"bytes": await _busy(agent, command["streams"], command["seconds"])}
    if kind == "visit":
        return {"silent": await _visit(agent, command["services"])}
    if kind == "transfer":
        directions = (
            ["upload", "download"] if command["direction"] == "both" else [command["direction"]]
        )
        count = command["streams"]
        size = command["bytes"] // count
        began = time.perf_counter()
        took = await asyncio.gather(
            *(_transfer(agent, directions[n % len(directions)], size) for n in range(count))
        )
        return {"seconds": time.perf_counter() - began, "bytes": size * count, "took": took}
    if kind == "latency":
        return {"took": await _round_trips(agent, command["count"])}
    if kind == "opens":
        began = time.perf_counter()
        for _ in range(command["count"] // 50):
            await asyncio.gather(*(_transfer(agent, "download", 1) for _ in range(50)))
        return {"seconds": time.perf_counter() - began, "count": command["count"] // 50 * 50}
    if kind == "handshakes":
        began = time.perf_counter()
        for _ in range(command["count"]):
            sole = isinstance(agent.endpoint, SoleEndpoint)
            endpoint = agent.make_endpoint() if sole else agent.endpoint
            connection = await endpoint.connect(tuple(command["address"]))
            connection.close(0, "")
            if sole:
                endpoint.abort()
        return {"seconds": time.perf_counter() - began, "count": command["count"]}
    raise ValueError(f"unknown command {kind!r}")


async def main() -> None:
    """Read the set-up, then commands, one JSON line each."""
    logger.disable("actors")  # a line per handshake is load, too
    setup = await hear()
    identity = TlsIdentity.load(*(Path(setup[name]) for name in ("certificate", "key", "ca")))
    agent = LoadAgent(
        partial(
            SoleEndpoint if setup["without_id"] else QuicEndpoint,
            alpn=ALPN,
            identity=identity,
            settings=QuicSettings(max_datagram=setup["datagram"], idle_timeout=60.0),
        )
    )
    await agent.connect(tuple(setup["address"]), identity.uri, setup["services"])
    say({})
    while command := await hear():
        before = time.process_time()
        answer = await _run(agent, command)
        answer["cpu"] = time.process_time() - before
        say(answer)
    agent.endpoint.abort()


if __name__ == "__main__":
    asyncio.run(main())
