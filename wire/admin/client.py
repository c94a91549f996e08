"""The client's side of the control protocol, without I/O: ids, windows, whose answer is whose.

The caller moves bytes: what `request`, `cancel` and `credit` return goes to the socket, what the
socket delivers goes into `receive`, which returns what it means. Used by the command-line tools
and by the daemon's links to its child processes.

Rules:
1. Nothing is sent before the greeting was seen and its version is ours.
2. An answer to an id that is not in flight is dropped: it crossed a `cancel`.
3. `Finished` or `Failed` ends an id; it is never used again.
"""

from __future__ import annotations

from collections.abc import Mapping

from wire.admin.errors import BadLine
from wire.admin.limits import MAX_LINE_BYTES, VERSION
from wire.admin.lines import LineReader
from wire.admin.messages import (
    Answer,
    Failed,
    Finished,
    Greeting,
    Part,
    Request,
    decode_answer,
    encode_request,
)
from wire.errors import LocalError


class ClientSession:
    """One connection as the client sees it."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        # An answer may be a little longer than its limit of rows suggests: the envelope.
        self._lines = LineReader(max_line_bytes + 1024)
        self._next_id = 1
        self._in_flight: set[int] = set()
        self.greeting: Greeting | None = None

    @property
    def in_flight(self) -> int:
        """Requests without final answer."""
        return len(self._in_flight)

    def request(self, op: str, args: Mapping[str, object], window: int = 0) -> tuple[int, bytes]:
        """Begin a request: its id, and the line to send.

        Raises:
            LocalError: before the greeting.
        """
        if self.greeting is None:
            raise LocalError("a request before the server's greeting")
        request = self._take_id()
        self._in_flight.add(request)
        return request, encode_request(Request(request, op, args, window))

    def cancel(self, request: int) -> bytes:
        """Forget a request: the line that tells the server, empty when it is over already."""
        if request not in self._in_flight:
            return b""
        self._in_flight.discard(request)
        return encode_request(Request(self._take_id(), "cancel", {"request": request}))

    def credit(self, request: int, parts: int) -> bytes:
        """Allow more parts of a windowed request: the line to send, empty when it is over."""
        if request not in self._in_flight:
            return b""
        args = {"request": request, "parts": parts}
        return encode_request(Request(self._take_id(), "credit", args))

    def receive(self, data: bytes | bytearray | memoryview) -> list[Answer]:
        """Take bytes from the server; returns the answers to requests still in flight.

        A `Failed` with id 0 (the server speaks about the connection) is returned too.

        Raises:
            LineTooLong, BadLine: the server does not speak this protocol; close.
        """
        answers: list[Answer] = []
        for line in self._lines.receive(data):
            answer = decode_answer(line)
            if isinstance(answer, Greeting):
                self._greeted(answer)
                answers.append(answer)
            elif isinstance(answer, Failed) and answer.id == 0:
                answers.append(answer)
            elif self.greeting is None:
                raise BadLine("an answer before the greeting")
            elif answer.id in self._in_flight:
                if isinstance(answer, (Finished, Failed)):
                    self._in_flight.discard(answer.id)
                answers.append(answer)
        return answers

    def _greeted(self, greeting: Greeting) -> None:
        if self.greeting is not None:
            raise BadLine("a second greeting")
        if greeting.version != VERSION:
            raise BadLine(f"control protocol version {greeting.version}, this is {VERSION}")
        self.greeting = greeting

    def _take_id(self) -> int:
        request = self._next_id
        self._next_id += 1
        return request


__all__ = ["ClientSession", "Failed", "Finished", "Greeting", "Part"]
