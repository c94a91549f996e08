"""The address of the served controller, kept over restarts of its server.

Apart from the server so that a daemon that serves nothing does not load gRPC.

Source: protocol sheet ORP 4.5.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

#: Seconds the sockets of an aborted server may take to close.
CLOSE_SECONDS = 5.0


class Port:
    """Where a server listens, over the restarts of its owner.

    Args:
        host, port: 0 takes a free port once, and keeps it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._closing: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def close(self, server: Any) -> None:  # the library ships no types
        """Stop a server at once; the task is kept here until its sockets are closed."""
        self._closing = asyncio.get_running_loop().create_task(server.stop(None))

    async def free(self) -> None:
        """Wait until the server before is gone.

        Raises:
            OSError: it is still there after `CLOSE_SECONDS`.
        """
        if self._closing is not None:
            done, _ = await asyncio.wait({self._closing}, timeout=CLOSE_SECONDS)
            if not done:
                raise OSError(errno.EADDRINUSE, f"{self}: the server before has not ended")
            self._closing = None

    async def probe(self) -> None:
        """Find out whether we may listen there.

        gRPC writes its own lines to stderr and keeps descriptors of a server that could not.

        Raises:
            OSError: the address is in use, or not ours, or its name has no address.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as attempt:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind(address)
        except OSError as error:
            raise type(error)(error.errno, f"{self} (TCP): {error.strerror}") from None
