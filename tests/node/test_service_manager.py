"""What systemd would receive."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from actors.node.service_manager import ServiceManager


def test_ready_stopping_and_watchdog_reach_the_socket(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
        assert manager.present
        assert manager.watchdog_seconds == 1.5
        manager.ready("serving")
        manager.alive()
        manager.stopping()
        received = [receiver.recv(4096).decode() for _ in range(3)]
    assert received == ["READY=1\nSTATUS=serving", "WATCHDOG=1", "STOPPING=1"]


def test_without_a_service_manager_nothing_happens() -> None:
    manager = ServiceManager({})
    manager.ready("serving")
    assert not manager.present
    assert manager.failures == 0


def test_a_vanished_socket_is_counted_not_raised(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.ready()
    assert manager.failures == 1


def test_a_watchdog_meant_for_another_process_is_ignored() -> None:
    environ = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert ServiceManager(environ).watchdog_seconds == 0.0
