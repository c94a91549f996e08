"""Names to addresses, so that no lookup makes anybody else wait.

An IP literal is an address already and never leaves the loop. A name is asked of the system
(`getaddrinfo`: hosts file, search domains, mDNS, whatever is configured), in a thread of its own
that ends with the answer; who asks for a name that is being looked up joins that lookup. Callers
set deadlines: whoever gives up leaves, and the thread goes on until the system does. At most
`MAX_LOOKUPS` names at a time; a further one fails at once. The reasons: docs/decisions/0085.

Source: RFC 8305 section 4 (interleaving); getaddrinfo(3).
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import threading
from typing import Any, Final

from actors.transport.addresses import Target, literal

#: Names looked up at a time, each by a thread; a further one fails with EAGAIN.
MAX_LOOKUPS: Final = 64
#: Addresses of one name that are used; the others are ignored.
MAX_ADDRESSES: Final = 16


async def resolve(host: str, port: int) -> list[Target]:
    """The addresses of a host in the order to try them: the system's, with the families in turn.

    Waits as long as the system does: set a deadline.

    Raises:
        OSError: there are none; `gaierror` with the system's reason.
    """
    target = literal(host, port)
    if target is not None:
        return [target]
    found = await _Lookup.of(host).wait()
    return _interleaved([_target(family, address, port) for family, address in found])


def _target(family: int, address: Any, port: int) -> Target:
    if family == socket.AF_INET6:
        return Target(family, (address[0].partition("%")[0], port, 0, address[3]))
    return Target(family, (address[0], port))


def _interleaved(targets: list[Target]) -> list[Target]:
    """The first family first, then in turn; no address twice."""
    families: dict[int, list[Target]] = {}
    for target in dict.fromkeys(targets):
        families.setdefault(target.family, []).append(target)
    rounds = itertools.zip_longest(*families.values())
    return [target for one in rounds for target in one if target is not None][:MAX_ADDRESSES]


#: What the system answered: family and socket address.
_Answer = list[tuple[int, Any]]


class _Lookup:
    """One question to the system, in its own thread, and whoever waits for the answer."""

    #: Those under way, by name. Bound: MAX_LOOKUPS.
    _all: dict[str, _Lookup] = {}  # noqa: RUF012  # the process has one resolver, and one limit
    _lock = threading.Lock()

    def __init__(self, host: str) -> None:
        self._host = host
        self._waiters: dict[asyncio.Future[_Answer], asyncio.AbstractEventLoop] = {}

    @classmethod
    def of(cls, host: str) -> _Lookup:
        """The lookup of this name: the one under way, or a new one."""
        with cls._lock:
            lookup = cls._all.get(host)
            if lookup is not None:
                return lookup
            if len(cls._all) >= MAX_LOOKUPS:
                raise OSError(errno.EAGAIN, f"{host}: {MAX_LOOKUPS} names are being looked up")
            lookup = cls._all[host] = cls(host)
        # A daemon thread: a name server that does not answer must not keep the process alive.
        thread = threading.Thread(target=lookup._run, name=f"lookup {host}"[:64], daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives us no more
            lookup._end(OSError(errno.EAGAIN, f"{host}: {error}"))
            raise OSError(errno.EAGAIN, f"{host}: {error}") from None
        return lookup

    async def wait(self) -> _Answer:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        with self._lock:
            late = self._all.get(self._host) is not self
            self._waiters[future] = loop
        if late:  # it ended between `of` and here
            self._tell()
        try:
            return await future
        finally:
            with self._lock:
                self._waiters.pop(future, None)

    def _run(self) -> None:
        try:
            infos = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            self._end(type(error)(error.errno, f"{self._host}: {error.strerror}"))
        except ValueError as error:  # no such name can be: too long a label, a zero byte
            self._end(OSError(errno.EINVAL, f"{self._host}: no host name: {error}"))
        else:
            usable = (socket.AF_INET, socket.AF_INET6)
            self._end([(int(info[0]), info[4]) for info in infos if info[0] in usable])

    def _end(self, outcome: _Answer | OSError) -> None:
        self._outcome = outcome
        with self._lock:
            self._all.pop(self._host, None)
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, {}
        for future, loop in waiters.items():
            try:
                loop.call_soon_threadsafe(_settle, future, self._outcome)
            except RuntimeError:
                pass  # that loop is closed: nobody waits


def _settle(future: asyncio.Future[_Answer], outcome: _Answer | OSError) -> None:
    if future.done():
        return
    if isinstance(outcome, OSError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
