"""The address of the served controller, kept over restarts of its server.

Apart from the server so that a daemon that serves nothing does not load gRPC.

Source: protocol sheet ORP 4.5.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from actors.transport.tcp.acceptor import listen_tcp

#: Seconds the calls of an aborted server may take to end.
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
        """Stop a server at once; the task is kept here until its calls have ended."""
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

    def probe(self) -> None:
        """Find out whether we may listen there.

        Raises:
            OSError: the address is in use, or not ours, or its name has no address.
        """
        listen_tcp(self.host, self.port, 0).close()
