"""A client of the control socket for command-line tools and the inspector.

Speaks wire/admin over a Unix socket and knows nothing of actors. One connection carries several
requests at a time; losing it fails them all with `Disconnected`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from wire.admin.client import ClientSession
from wire.admin.errors import AdminError
from wire.admin.messages import Finished, Greeting, Part, Row

#: Parts of one streamed answer that may be unread; the server then waits.
WINDOW = 16
READ_BYTES = 256 * 1024


class CannotConnect(Exception):
    """Nobody answers on the control socket."""


class Disconnected(Exception):
    """The daemon went away."""


class ControlError(Exception):
    """The daemon answered with an error; `code` is the protocol's word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Call:
    """One request: iterate its parts or rows, then read `result`.

    Bound: the server sends at most `WINDOW` parts that were not read.
    """

    def __init__(self, client: ControlClient, request: int) -> None:
        self._client = client
        self._id = request
        self._parts: deque[list[Row]] = deque()
        self._wake = asyncio.Event()
        self._final: Row | Exception | None = None

    async def parts(self) -> AsyncIterator[list[Row]]:
        """The parts in order. Raises `ControlError` or `Disconnected`."""
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._client.write(self._client.session.credit(self._id, 1))
                yield part
            if isinstance(self._final, Exception):
                raise self._final
            if self._final is not None:
                return
            self._wake.clear()
            await self._wake.wait()

    async def rows(self) -> AsyncIterator[Row]:
        """The rows in order."""
        async for part in self.parts():
            for row in part:
                yield row

    async def result(self) -> Row:
        """The final answer; parts nobody read are skipped."""
        async for _ in self.parts():
            pass
        assert isinstance(self._final, dict)
        return self._final

    def cancel(self) -> None:
        """End it early; harmless when it is over."""
        self._client.write(self._client.session.cancel(self._id))
        self._client.forget(self._id)
        if self._final is None:
            self.end(ControlError("cancelled", "the request was cancelled"))

    def arrived(self, rows: list[Row]) -> None:
        """A part came."""
        self._parts.append(rows)
        self._wake.set()

    def end(self, final: Row | Exception) -> None:
        """The final answer came."""
        self._final = final
        self._wake.set()


class ControlClient:
    """An open control connection. Use `await ControlClient.connect(path)`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.session = ClientSession()
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, Call] = {}
        self._greeted = asyncio.Event()
        self._lost: Exception | None = None
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path, *, timeout: float = 5.0) -> ControlClient:
        """Connect and wait for the greeting.

        Raises:
            CannotConnect: no socket, nobody there, or no greeting of a version we know.
        """
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(str(path))
        except TimeoutError:
            raise CannotConnect(f"{path}: no answer") from None
        except OSError as error:
            raise CannotConnect(f"{path}: {error.strerror or error}") from None
        client = cls(reader, writer)
        try:
            async with asyncio.timeout(timeout):
                await client._greeted.wait()
        except TimeoutError:
            await client.close()
            raise CannotConnect(f"{path}: no greeting") from None
        except BaseException:
            await client.close()
            raise
        if client._lost is not None:
            await client.close()
            raise CannotConnect(f"{path}: {client._lost}")
        return client

    @property
    def greeting(self) -> Greeting | None:
        """What the daemon said about itself."""
        return self.session.greeting

    @property
    def lost(self) -> Exception | None:
        """Why the connection is gone; None while it is not."""
        return self._lost

    def call(self, op: str, **args: object) -> Call:
        """Begin a request; `args` are the operation's. Raises `Disconnected`."""
        if self._lost is not None:
            raise Disconnected(str(self._lost))
        request, line = self.session.request(op, args, WINDOW)
        call = self._calls[request] = Call(self, request)
        self.write(line)
        return call

    async def request(self, op: str, *, timeout: float = 10.0, **args: object) -> Row:
        """One request with a plain answer.

        Raises:
            ControlError: the daemon refused.
            Disconnected: it went away.
            TimeoutError: no answer in time; the request is cancelled.
        """
        call = self.call(op, **args)
        try:
            async with asyncio.timeout(timeout):
                return await call.result()
        finally:
            call.cancel()

    async def rows(self, op: str, *, timeout: float = 60.0, **args: object) -> list[Row]:
        """All rows of a streamed answer. Raises as `request`."""
        call = self.call(op, **args)
        try:
            async with asyncio.timeout(timeout):
                return [row async for row in call.rows()]
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connection; calls in flight fail. Idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})
        self._lose(Disconnected("closed"))
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # it broke before: it is closed all the same

    # For `Call`.

    def write(self, data: bytes) -> None:
        """Send a line."""
        if data and self._lost is None:
            self._writer.write(data)

    def forget(self, request: int) -> None:
        """A call that nobody waits for any more."""
        self._calls.pop(request, None)

    # Inside.

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(READ_BYTES):
                for answer in self.session.receive(data):
                    if isinstance(answer, Greeting):
                        self._greeted.set()
                    elif isinstance(answer, Part):
                        self._calls[answer.id].arrived(list(answer.rows))
                    elif isinstance(answer, Finished):
                        self._calls.pop(answer.id).end(dict(answer.result))
                    elif answer.id == 0:
                        self._lose(Disconnected(answer.message))
                    else:
                        self._calls.pop(answer.id).end(ControlError(answer.code, answer.message))
        except (OSError, AdminError) as error:
            self._lose(Disconnected(str(error)))
        else:
            self._lose(Disconnected("the daemon closed the connection"))

    def _lose(self, why: Exception) -> None:
        if self._lost is None:
            self._lost = why
        self._greeted.set()
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.end(self._lost)


__all__ = ["Call", "CannotConnect", "ControlClient", "ControlError", "Disconnected"]
