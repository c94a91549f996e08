"""Floods a UDP address with valid client Initials, each of a connection of its own.

Run as `python -m tools.bench.initial_flood` with one JSON line on stdin: address, sources (how many
local addresses, 127.0.0.2 and up, share the sending) and kinds (different Initials, made first).
Then `start` floods until `stop`, which answers how many were sent. A client never answers: every
Initial is a handshake that the relay may begin and must give up.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from actors.pki.certificates import agent_identity, create_ca, create_leaf
from actors.transport.quic.engines import select
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity
from tools.bench.json_lines import say

_BATCH = 64


def initials(count: int, address: tuple[str, int]) -> list[bytes]:
    """First datagrams of so many clients."""
    now = datetime.now(UTC)
    ca = create_ca(now)
    uri = agent_identity("nobody", UUID(int=1))
    leaf = create_leaf(ca, uri, lifetime=timedelta(days=1), now=now)
    identity = TlsIdentity((leaf.certificate,), (ca.certificate,), leaf.key)
    make = select("auto").make
    result = []
    for _ in range(count):
        engine = make(QuicSettings(), identity, ("orp/1",), client=True, server_name="localhost")
        began = time.monotonic()
        engine.connect(address, began)
        result.append(engine.transmit(began)[0][0])
    return result


class Flood:
    """Sends until told to stop."""

    def __init__(self, address: tuple[str, int], sources: int, kinds: int) -> None:
        self._address = address
        self._datagrams = initials(kinds, address)
        self._sockets = []
        for number in range(sources):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((f"127.0.{number // 250}.{2 + number % 250}", 0))
            sock.setblocking(False)
            self._sockets.append(sock)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent = 0

    def start(self, address: tuple[str, int] | None) -> None:
        """Begin, at another address if given."""
        self._address = address or self._address
        self.sent = 0
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="flood")
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        at = 0
        while not self._over.is_set():
            for sock in self._sockets:
                for _ in range(_BATCH):
                    try:
                        sock.sendto(self._datagrams[at], self._address)
                    except OSError:
                        break  # the queue is full: that is what the machine can
                    at = (at + 1) % len(self._datagrams)
                    self.sent += 1
                if self._over.is_set():
                    return


def main() -> None:
    """Read the set-up, then commands, one JSON line each."""
    setup = orjson.loads(sys.stdin.readline())
    flood = Flood(tuple(setup["address"]), setup["sources"], setup["kinds"])
    say({})
    for line in sys.stdin:
        command = orjson.loads(line)
        if command["do"] == "start":
            address = command.get("address")
            flood.start(None if address is None else tuple(address))
        else:
            flood.stop()
        say({"sent": flood.sent})


if __name__ == "__main__":
    main()
