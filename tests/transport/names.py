"""A system resolver that answers as a test says, and hangs where it says so."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Names:
    """What `getaddrinfo` says; other names are asked of the real one."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        #: How often each name was asked for.
        self.asked: dict[str, int] = {}
        self._real = socket.getaddrinfo
        self._release = threading.Event()

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        """The stand-in. Names below `.dead` hang."""
        name = str(host)
        self.asked[name] = self.asked.get(name, 0) + 1
        if name.endswith(".dead"):
            self._release.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if name not in self.known:
            return self._real(host, port, *args, **options)
        found = []
        for address in self.known[name]:
            found += self._real(address, port, *args, **options)
        return found

    def answer_all(self) -> None:
        """Nothing hangs any more; wait for the threads."""
        self._release.set()
        deadline = time.monotonic() + 5
        while any(one.name.startswith("lookup ") for one in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.001)


@contextmanager
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """A `Names` in the place of the system's resolver."""
    stand_in = Names()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", stand_in.getaddrinfo)
        try:
            yield stand_in
        finally:
            stand_in.answer_all()
