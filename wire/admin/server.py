"""The server's side of the control protocol, without I/O: requests, answers, windows, limits.

The caller moves bytes: what the socket delivers goes into `receive`, which returns what there is to
do; what `data_to_send` returns goes to the socket, after every call. Used by the control socket and
by the link of a child process.

Rules:
1. The greeting is the first line.
2. A request in flight ends with exactly one `finish` or `fail`, or is withdrawn by its client: then
   it was answered here, and what is said of it later is dropped.
3. `cancel` and `credit` are answered here. A request with a window gets parts while it lasts.
4. A line that is no request is answered, and the connection goes on; one that is too long ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wire.admin.arguments import Arguments
from wire.admin.errors import AnswerTooLarge, BadArguments, BadLine, ErrorCode, LineTooLong
from wire.admin.limits import MAX_IN_FLIGHT, MAX_LINE_BYTES, MAX_PART_ROWS, MAX_WINDOW
from wire.admin.lines import LineReader
from wire.admin.messages import (
    Greeting,
    Request,
    Row,
    decode_request,
    encode_failed,
    encode_finished,
    encode_greeting,
    encode_part,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Serve this request: with parts, then `finish` or `fail`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The client cancelled this request: stop serving it."""

    id: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The client allows this request more parts."""

    id: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The client does not speak this protocol: send what is left, and close."""

    reason: str


ServerEvent: TypeAlias = Asked | Withdrawn | Granted | Broken


class ServerSession:
    """One connection as the server sees it.

    Args:
        operations: the names that may be asked for, beside `cancel` and `credit`.
        in_flight: requests served at a time; one more is answered with `busy`.

    Attributes:
        served, refused: requests that were begun, and error answers.
    """

    def __init__(
        self, greeting: Greeting, operations: Collection[str], *, in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        self._operations = operations
        self._most = in_flight
        self._lines = LineReader()
        # Bound: what one call causes, because the owner takes it after every call.
        self._unsent = bytearray(encode_greeting(greeting))
        #: Operation and parts left of each request; None: no window. Bound: `in_flight`.
        self._requests: dict[int, tuple[str, int | None]] = {}
        self.served = 0
        self.refused = 0

    @property
    def in_flight(self) -> dict[int, str]:
        """Requests being served: id and operation."""
        return {number: op for number, (op, _) in self._requests.items()}

    def receive(self, data: bytes | bytearray | memoryview) -> list[ServerEvent]:
        """Take bytes from the client; returns what there is to do, in order."""
        try:
            lines = self._lines.receive(data)
        except LineTooLong as error:
            self._refuse(0, error.word, str(error))
            return [Broken(str(error))]
        events: list[ServerEvent] = []
        for line in lines:
            try:
                request = decode_request(line)
            except BadLine as error:
                self._refuse(error.request, error.word, str(error))
                continue
            try:
                steers = request.op in ("cancel", "credit")
                event = self._steer(request) if steers else self._begin(request)
            except BadArguments as error:
                self._refuse(request.id, error.word, str(error))
                continue
            if event is not None:
                events.append(event)
        return events

    def parts(self, request: int, rows: Sequence[Row]) -> Iterator[bytes]:
        """The lines of some rows, for `part`, made one after the other.

        Raises:
            AnswerTooLarge: one row alone is longer than a line may be.
        """
        for start in range(0, len(rows), MAX_PART_ROWS):
            yield from self._halved(request, rows[start : start + MAX_PART_ROWS])

    def may_send(self, request: int) -> bool:
        """False while the client allows the request no more parts."""
        return self._requests.get(request, ("", None))[1] != 0

    def part(self, request: int, line: bytes) -> None:
        """Queue a line of `parts`, and use up the window; dropped when the request is over."""
        entry = self._requests.get(request)
        if entry is None:
            return
        op, left = entry
        if left is not None:
            self._requests[request] = op, max(0, left - 1)
        self._unsent += line

    def finish(self, request: int, result: Mapping[str, object]) -> None:
        """The request is done. A result that is too long is answered with an error."""
        line = encode_finished(request, result)
        if len(line) > MAX_LINE_BYTES:
            self.fail(request, ErrorCode.TOO_LARGE, f"the result has {len(line)} bytes")
        elif self._requests.pop(request, None) is not None:
            self._unsent += line

    def fail(self, request: int, code: ErrorCode | str, text: str) -> None:
        """The request was not done."""
        if self._requests.pop(request, None) is not None:
            self._refuse(request, code, text)

    def drop(self, request: int) -> None:
        """Nobody waits for the answer any more."""
        self._requests.pop(request, None)

    def data_to_send(self) -> bytes:
        """The bytes to write now, in order."""
        data = bytes(self._unsent)
        self._unsent.clear()
        return data

    def _halved(self, request: int, rows: Sequence[Row]) -> Iterator[bytes]:
        line = encode_part(request, rows)
        if len(line) <= MAX_LINE_BYTES:
            yield line
            return
        if len(rows) == 1:
            raise AnswerTooLarge(f"one row of {len(line)} bytes")
        middle = len(rows) // 2
        yield from self._halved(request, rows[:middle])
        yield from self._halved(request, rows[middle:])

    def _begin(self, request: Request) -> ServerEvent | None:
        if request.op not in self._operations:
            known = ", ".join(sorted(self._operations))
            text = f"unknown operation {request.op!r}; known are: {known}"
            self._refuse(request.id, ErrorCode.BAD_REQUEST, text)
        elif request.id in self._requests:
            text = f"request {request.id} is in flight already"
            self._refuse(request.id, ErrorCode.BAD_REQUEST, text)
        elif len(self._requests) >= self._most:
            text = f"{self._most} requests are in flight already"
            self._refuse(request.id, ErrorCode.BUSY, text)
        else:
            self._requests[request.id] = request.op, request.window or None
            self.served += 1
            return Asked(request)
        return None

    def _steer(self, request: Request) -> ServerEvent | None:
        """`cancel` and `credit`; raises `BadArguments`."""
        args = Arguments(request.args)
        target = args.integer("request", least=1, most=2**53)
        entry = self._requests.get(target)
        if request.op == "credit":
            parts = args.integer("parts", least=1, most=MAX_WINDOW)
            args.finish()
            if entry is None or entry[1] is None:
                return None
            self._requests[target] = entry[0], min(entry[1] + parts, MAX_WINDOW)
            return Granted(target)
        args.finish()
        if entry is not None:
            self.finish(target, {"cancelled": True})
        self._unsent += encode_finished(request.id, {"cancelled": entry is not None})
        return None if entry is None else Withdrawn(target)

    def _refuse(self, request: int, code: ErrorCode | str, text: str) -> None:
        self.refused += 1
        self._unsent += encode_failed(request, code, text)
