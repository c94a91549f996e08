"""The agent's DNS server: tells local programs the virtual addresses of services.

Source: protocol sheet ORP 3.15.
"""

from __future__ import annotations

from actors.runtime import Actor
from actors.transport.addresses import address_text
from actors.transport.udp import Address, UdpSocket, bind_udp
from tools.agent.dns_answers import DnsAnswers

#: The largest question that is looked at (RFC 6891 section 6.2.5).
MAX_QUERY_BYTES = 4096


class DnsServer(Actor):
    """The agent's DNS server: tells local programs the virtual addresses of services.

    Args:
        address: to bind, UDP.
        bound: shared by the incarnations: the port of the first.
    """

    def __init__(self, answers: DnsAnswers, address: tuple[str, int], bound: list[int]) -> None:
        self._answers = answers
        self._address = address
        self._bound = bound
        self._answered = 0
        self._dropped = 0

    def init(self) -> None:
        """Bind. A restarted server binds the same address."""
        host, port = self._address
        sock = bind_udp(host, self._bound[0] if self._bound else port)
        self._sock = self.own(UdpSocket(sock, self._asked, guard=self.guard), "socket")
        self._bound[:] = [self._sock.address[1]]
        self.log.info("DNS on {}", address_text(host, self._bound[0]))

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        port = self._bound[0] if self._bound else 0
        return {
            "address": address_text(self._address[0], port),
            "answered": self._answered,
            "dropped": self._dropped,
        }

    def _asked(self, buffer: memoryview, size: int, client: Address) -> None:
        """Questions of one program; answered from the address it asked."""
        for start in range(0, len(buffer), size):
            query = bytes(buffer[start : start + size])
            answer = self._answers.answer(query) if len(query) <= MAX_QUERY_BYTES else None
            if answer is not None and self._sock.send(answer, client):
                self._answered += 1
            else:
                self._dropped += 1
