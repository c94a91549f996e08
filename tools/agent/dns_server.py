"""The agent's DNS server: tells local programs the virtual addresses of services.

Source: protocol sheet ORP 3.15.
"""

from __future__ import annotations

import socket

from actors.runtime import Actor
from tools.agent.dns_answers import DnsAnswers
from tools.agent.ends import WatchedSocket

#: Datagrams per wake-up, and the largest question that is looked at (RFC 6891 section 6.2.5).
BATCH = 64
MAX_QUERY_BYTES = 4096


class DnsServer(Actor):
    """See the module docstring.

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
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.bind((host, self._bound[0] if self._bound else port))
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._bound[:] = [int(sock.getsockname()[1])]
        self.own(WatchedSocket(self, sock), "socket")
        self.system.loop.add_reader(sock, self.guard("dns", self._readable))
        self.log.info("DNS on {}:{}", host, self._bound[0])

    def describe(self) -> dict[str, object]:
        """Address and counters."""
        port = self._bound[0] if self._bound else 0
        return {
            "address": f"{self._address[0]}:{port}",
            "answered": self._answered,
            "dropped": self._dropped,
        }

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                query, client = self._sock.recvfrom(MAX_QUERY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an earlier answer could not be delivered
            answer = self._answers.answer(query)
            if answer is None:
                self._dropped += 1
                continue
            try:
                self._sock.sendto(answer, client)
                self._answered += 1
            except OSError:
                self._dropped += 1
