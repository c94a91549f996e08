"""Tell systemd what the daemon is doing (sd_notify(3)); does nothing anywhere else.

The protocol is one datagram of KEY=VALUE lines to the Unix socket named in $NOTIFY_SOCKET. The
watchdog interval comes from $WATCHDOG_USEC; half of it is the period to ping in.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """The notification socket of the service manager, if there is one.

    Args:
        environ: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked up.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # abstract socket
        self.failures = 0
        self.watchdog_seconds = _watchdog_seconds(environ)

    @property
    def present(self) -> bool:
        """True when a service manager listens."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """The daemon serves."""
        self._notify("READY=1", f"STATUS={status}")

    def reloading(self, monotonic_usec: int) -> None:
        """A reload began; `ready()` ends it."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}")

    def stopping(self, status: str = "") -> None:
        """The daemon drains and will end."""
        self._notify("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Ping the service manager's watchdog."""
        self._notify("WATCHDOG=1")

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line for line in lines if not line.endswith("="))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError:
            # Status only: the daemon must not suffer from a full or vanished socket.
            self.failures += 1


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Seconds between two pings; 0 when the service manager does not watch this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() else 0.0
