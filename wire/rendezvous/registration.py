"""The service's side: what it says to a relay, and what the relay answers.

Source: protocol sheet rendezvous 1.3, 1.6, 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.rendezvous.limits import MAX_ANSWER
from wire.rendezvous.line import NEW, BadLine, Protocol, id_of, word_of
from wire.rendezvous.options import ERROR, OK, Options


@dataclass(frozen=True, slots=True)
class Registered:
    """The relay gave a port.

    Attributes:
        port: as the relay wrote it; the reference may be made to write any word.
        id: of a pool, for further members; empty for others.
    """

    port: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class UserWaits:
    """Event: somebody waits for a connection that names this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The relay says no.

    Attributes:
        reason: its words.
    """

    reason: str


Answer: TypeAlias = Registered | UserWaits | Denied


def joining(protocol: Protocol, known: str, options: Options) -> bytes:
    """The lines of a further connection of a pool, or of the answer to an event.

    Args:
        options: of the registration; who asks for something there proves here who it is.
    """
    proof = Options(token=options.token)
    head = proof.line() if proof.wanted else b""
    return head + f"{protocol.value}\n{known}\n".encode()


class Registration:
    """The registering connection of a service, until its data phase begins.

    Args:
        protocol: how users are to come.
        options: what a relay of ours is asked beside.

    Attributes:
        rest: what came behind the answer: the data phase of `multiplex` and of a pool's member.
    """

    def __init__(self, protocol: Protocol, options: Options) -> None:
        self._protocol = protocol
        self._options = options
        self._held = bytearray()
        self._asked = options.wanted
        self._port = ""
        self._over = False

    def greeting(self) -> bytes:
        """What to send at once."""
        head = self._options.line() if self._options.wanted else b""
        second = b"" if self._protocol is Protocol.MULTIPLEX else f"{NEW}\n".encode()
        return head + f"{self._protocol.value}\n".encode() + second

    @property
    def rest(self) -> bytes:
        return bytes(self._held)

    def receive(self, data: bytes) -> list[Answer]:
        """Bytes of the relay.

        Raises:
            BadLine: it does not speak this protocol.
        """
        self._held += data
        answers: list[Answer] = []
        while not self._over:
            end = self._held.find(b"\n")
            if end < 0 and len(self._held) < MAX_ANSWER:
                break
            if not 0 <= end < MAX_ANSWER:
                raise BadLine("line_too_long")
            line = bytes(self._held[:end])
            del self._held[: end + 1]
            answers += self._line(line)
        return answers

    def _line(self, line: bytes) -> list[Answer]:
        if self._asked or not self._port:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith(ERROR):
                self._over = True
                return [Denied(text.removeprefix(ERROR))]
            if self._asked:
                if text != OK:
                    raise BadLine("not_ok")
                self._asked = False
                return []
            self._port = word_of(line)
            if self._protocol is Protocol.POOL:
                return []
            self._over = self._protocol is Protocol.MULTIPLEX
            return [Registered(self._port)]
        known = id_of(line)
        if known is None:
            raise BadLine("not_an_id")
        if self._protocol is Protocol.EVENT:
            return [UserWaits(known)]
        self._over = True
        return [Registered(self._port, known)]
