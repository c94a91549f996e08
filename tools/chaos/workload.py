"""Byte-verified streams: what users of the relay would notice, measured while actors die.

`Target` is the service behind the provider agent; `Workload` opens connections to the consumer
agent's listener. Each transfer names its sizes and seed in one JSON line, sends seeded bytes,
and expects other seeded bytes and the digest of its own back. Every transfer ends in one of

* complete: both directions equal to the seeds, ended by a clean EOF;
* refused: a visible error before the service saw the connection (the relay said no);
* reset: a visible error later (allowed when its carrier died);
* truncated: a clean EOF before the announced end (never allowed);
* corrupt: other bytes than the seeds give (never allowed);
* stuck: no progress until the deadline (never allowed).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import orjson

from tools.chaos.history import History, Transfer

CHUNK = 64 * 1024
#: Longest header line, bytes.
MAX_HEADER = 512
#: Seconds one transfer may take in all.
DEADLINE = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One transfer: what goes up, what comes down, and how."""

    name: str
    seed: int
    upload: int
    download: int
    idle: float = 0.0
    half_close: bool = False

    def line(self) -> bytes:
        """The header the target reads."""
        return orjson.dumps(asdict(self)) + b"\n"


def seeded(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes that only `seed` determines, in chunks."""
    source = random.Random(seed)
    left = size
    while left > 0:
        n = min(CHUNK, left)
        yield source.randbytes(n)
        left -= n


def digest_of(seed: int, size: int) -> bytes:
    """SHA-256 of `seeded(seed, size)`."""
    digest = hashlib.sha256()
    for chunk in seeded(seed, size):
        digest.update(chunk)
    return digest.digest()


class Target:
    """The service behind the provider agent: answers one transfer per connection."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._server: asyncio.Server | None = None
        self.port = 0
        #: Transfers under way whose header arrived here.
        self.reached: set[str] = set()

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener; running transfers end with their connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.time()
        name = "?"
        try:
            async with asyncio.timeout(DEADLINE):
                header = await reader.readline()
                if not header.endswith(b"\n"):
                    return  # reset or closed before the header was complete: no transfer began
                plan = Plan(**orjson.loads(header))
                name = f"{plan.name}/target"
                self.reached.add(plan.name)
                digest = await self._receive(reader, plan)
                if digest is None:
                    self._record(name, began, "truncated", "EOF before the announced upload")
                    return
                for chunk in seeded(plan.seed + 1, plan.download):
                    writer.write(chunk)
                    await writer.drain()
                writer.write(digest)
                writer.write_eof()
                await writer.drain()
                await reader.read(1)  # until the peer closed: a close now would reset it
                writer.close()  # what is still buffered goes out: a half-closed peer waits for it
                await writer.wait_closed()
        except (ConnectionError, TimeoutError, OSError):
            pass  # the client's side of the same transfer records what it means
        finally:
            # One that closed after its buffer was sent must not be touched again (CPython 3.11).
            if not writer.transport.is_closing():
                writer.transport.abort()

    @staticmethod
    async def _receive(reader: asyncio.StreamReader, plan: Plan) -> bytes | None:
        digest = hashlib.sha256()
        left = plan.upload
        while left > 0:
            chunk = await reader.read(min(CHUNK, left))
            if not chunk:
                return None
            digest.update(chunk)
            left -= len(chunk)
        if plan.half_close and await reader.read(1):
            digest.update(b"more than announced")
        return digest.digest()

    def _record(self, name: str, began: float, outcome: str, detail: str) -> None:
        self._history.transfers.append(Transfer(name, began, time.time(), outcome, detail))


class Workload:
    """Keeps `streams` transfers going through a consumer agent's listener.

    Args:
        address: where the consumer agent listens.
        streams: how many at a time; every fifth is idle for a while, every third half-closes.
        seed: drives sizes and contents.
        largest: most bytes one direction of one transfer carries.
        pause: seconds (times up to two) a user waits between two transfers.
        target: the service behind the provider agent; it tells refused from reset.
    """

    def __init__(
        self,
        address: tuple[str, int],
        history: History,
        *,
        target: Target,
        streams: int = 50,
        seed: int = 1,
        largest: int = 4 << 20,
        pause: float = 0.0,
    ) -> None:
        self._address = address
        self._history = history
        self._streams = streams
        self._random = random.Random(seed)
        self._largest = largest
        self._pause = pause
        self._target = target
        self._serial = 0
        self._stopping = False

    def stop(self) -> None:
        """Begin no new transfers; the running ones finish."""
        self._stopping = True

    async def run(self) -> None:
        """Run until `stop()`, then until the last transfer ended."""
        async with asyncio.TaskGroup() as group:
            for slot in range(self._streams):
                group.create_task(self._slot(slot))

    async def _slot(self, slot: int) -> None:
        while not self._stopping:
            transfer = await self.transfer(self.plan(slot))
            self._history.transfers.append(transfer)
            pause = self._pause if transfer.outcome == "complete" else max(self._pause, 0.05)
            await asyncio.sleep(pause * self._random.uniform(0.5, 2.0))

    def plan(self, slot: int) -> Plan:
        """The next transfer of a slot: sizes are log-uniform from 1 byte to `largest`."""
        self._serial += 1
        size = self._random.random
        return Plan(
            name=f"stream-{slot}.{self._serial}",
            seed=self._random.randrange(1 << 40),
            upload=int(self._largest ** size()),
            download=int(self._largest ** size()),
            idle=self._random.uniform(0.2, 2.0) if slot % 5 == 0 else 0.0,
            half_close=slot % 3 == 0,
        )

    def small_plan(self) -> Plan:
        """A transfer of a new user who sends and wants a few bytes."""
        self._serial += 1
        return Plan(f"new.{self._serial}", self._random.randrange(1 << 40), 64, 64)

    async def transfer(self, plan: Plan) -> Transfer:
        """One transfer, start to end."""
        began = time.time()
        try:
            async with asyncio.timeout(DEADLINE):
                outcome, detail = await self._exchange(plan)
        except TimeoutError:
            sizes = f"{plan.upload} bytes up, {plan.download} down"
            outcome, detail = "stuck", f"no end after {DEADLINE:g} s: {sizes}"
        except OSError as error:
            outcome = "reset" if plan.name in self._target.reached else "refused"
            detail = type(error).__name__
        self._target.reached.discard(plan.name)
        return Transfer(plan.name, began, time.time(), outcome, detail)

    async def _exchange(self, plan: Plan) -> tuple[str, str]:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(plan.line())
            await writer.drain()
            if plan.idle:
                await asyncio.sleep(plan.idle)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(writer, plan))
                answer = group.create_task(self._receive(reader, plan))
            return answer.result()
        except* OSError as errors:
            raise ConnectionResetError(str(errors.exceptions[0])) from None
        finally:
            writer.transport.abort()

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, plan: Plan) -> None:
        for chunk in seeded(plan.seed, plan.upload):
            writer.write(chunk)
            await writer.drain()
        if plan.half_close:
            writer.write_eof()

    @staticmethod
    async def _receive(reader: asyncio.StreamReader, plan: Plan) -> tuple[str, str]:
        want = plan.download + 32
        digest = hashlib.sha256()
        tail = b""
        got = 0
        while chunk := await reader.read(CHUNK):
            got += len(chunk)
            body = min(len(chunk), max(0, plan.download - (got - len(chunk))))
            digest.update(chunk[:body])
            tail += chunk[body:]
            if got > want:
                return "corrupt", f"{got - want} bytes more than announced"
        if got < want:
            return "truncated", f"clean end after {got} of {want} bytes"
        if digest.digest() != digest_of(plan.seed + 1, plan.download):
            return "corrupt", "other bytes came down than were sent"
        if tail != digest_of(plan.seed, plan.upload):
            return "corrupt", "other bytes went up than were sent"
        return "complete", ""
