"""Process children: real processes, supervised like any actor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomultiprocess.core
import pytest

from actors.admin.mounts import ControlFailed, MountTable
from actors.node.process import ProcessChild, ProcessSpec, _Process
from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    Event,
    Intensity,
    Restart,
    Supervisor,
    inspection,
)
from tests.conftest import eventually, run

TARGETS = "tests.node.process_targets"
QUICK = Backoff(base=0.02, cap=0.05)


@pytest.fixture(scope="module", autouse=True)
def _bookkeeper() -> None:
    """The library's manager process serves all tests: it is nobody's leak."""
    aiomultiprocess.core.get_manager()


class Parent:
    """A system with one process child at /child."""

    def __init__(self) -> None:
        self.system = ActorSystem("parent")
        self.mounts = MountTable()
        self.events: list[Event] = []
        self.system.events.subscribe(self.events.append)

    def pid(self) -> int:
        cell = self.system.find("/child")
        if cell is None:
            return 0
        described = inspection.details(cell)["describe"]
        assert isinstance(described, dict)
        return int(described["pid"]) if described.get("phase") == "running" else 0

    def exits(self) -> list[str]:
        return [
            str(event.fields["reason"])
            for event in self.events
            if event.kind == "exited" and event.path == "/child"
        ]

    async def running(self, other_than: int = 0) -> int:
        await eventually(lambda: self.pid() not in (0, other_than), timeout=20)
        return self.pid()


@asynccontextmanager
async def parent(
    target: str, *args: object, restart: Restart = Restart.PERMANENT, shutdown: float = 5.0
) -> AsyncIterator[Parent]:
    made = Parent()
    spec = ProcessSpec("child", f"{TARGETS}:{target}", args, log_level="ERROR")
    child = ChildSpec(
        "child",
        lambda: ProcessChild(spec, made.mounts),
        restart=restart,
        shutdown=shutdown,
        backoff=QUICK,
    )
    budget = Intensity(restarts=200, period=10.0)
    await made.system.start(lambda: Supervisor([child], intensity=budget))
    try:
        yield made
    finally:
        await made.system.stop(timeout=20.0)


def alive(pid: int) -> bool:
    """True for a process that runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "how, reason",
    [
        ("zero", "normal"),
        ("three", "crash(exit code 3)"),
        ("SIGKILL", "crash(signal SIGKILL)"),
        ("SIGSEGV", "crash(signal SIGSEGV)"),
    ],
)
def test_the_exit_code_or_signal_is_the_exit_reason(how: str, reason: str) -> None:
    async def main() -> None:
        async with parent("ends", how, restart=Restart.TEMPORARY) as made:
            await eventually(lambda: made.exits(), timeout=20)
            assert made.exits() == [reason]

    run(main(), timeout=40)


def test_a_tree_that_does_not_come_up_is_an_exit_code() -> None:
    async def main() -> None:
        async with parent("broken", restart=Restart.TEMPORARY) as made:
            await eventually(lambda: made.exits(), timeout=20)
            assert made.exits()[0].startswith("crash(exit code ")

    run(main(), timeout=40)


def test_a_killed_process_is_replaced_and_a_killed_actor_takes_its_process_along() -> None:
    async def main() -> None:
        async with parent("sleeper") as made:
            first = await made.running()
            os.kill(first, signal.SIGKILL)
            second = await made.running(other_than=first)
            ref = made.system.ref("/child")
            assert ref is not None
            made.system.kill(ref, initiator="test")
            third = await made.running(other_than=second)
            assert third != first
            await eventually(lambda: not alive(second))
            assert made.exits() == ["crash(signal SIGKILL)", "killed"]
        await eventually(lambda: not alive(third))

    run(main(), timeout=60)


def test_a_process_that_ignores_sigterm_is_killed_at_its_deadline() -> None:
    async def main() -> None:
        async with parent("stubborn", shutdown=0.5) as made:
            pid = await made.running()
            while "/stubborn" not in await _paths(made):  # then it ignores the signal
                await asyncio.sleep(0.02)
            began = time.monotonic()
        await eventually(lambda: not alive(pid))
        assert time.monotonic() - began >= 0.4

    run(main(), timeout=60)


async def _paths(made: Parent) -> set[object]:
    """The places inside the process; none while it is starting."""
    mount = made.mounts.at("/child")
    assert mount is not None
    try:
        return {row["path"] async for part in mount.call("tree", {}) for row in part}
    except ControlFailed:
        return set()


def test_its_tree_is_part_of_the_tree_and_goes_with_it() -> None:
    async def main() -> None:
        async with parent("sleeper", restart=Restart.TEMPORARY) as made:
            pid = await made.running()
            async with asyncio.timeout(20):
                while "/app/sleeper" not in await _paths(made):
                    await asyncio.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: made.mounts.at("/child") is None)

    run(main(), timeout=60)


@pytest.mark.timeout(120)
def test_many_starts_and_kills_leave_nothing_behind() -> None:
    cycles = 50

    async def main() -> None:
        async with parent("sleeper") as made:
            pids: list[int] = []
            before = (0, 0)
            for number in range(cycles):
                pid = await made.running(other_than=pids[-1] if pids else 0)
                pids.append(pid)
                if number == 5:
                    before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
                os.kill(pid, signal.SIGKILL)
            last = await made.running(other_than=pids[-1])
            await eventually(lambda: not any(map(alive, pids)))
            after = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
            assert after[0] <= before[0] + 2
            assert after[1] <= before[1] + 2
            assert len(set(pids)) == cycles
        await eventually(lambda: not alive(last))

    run(main(), timeout=110)


def test_a_process_that_is_killed_when_the_loop_ends_is_reaped() -> None:
    """Nothing of the loop runs any more when the kernel says that it ended."""

    async def main() -> None:
        process = _Process(ProcessSpec("sleeper", f"{TARGETS}:sleeper"))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await asyncio.to_thread(process.start, theirs)
            process.abort()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())  # and not a turn more
    finally:
        loop.close()
    # That its descriptors are closed is what `no_leaks` sees to.


PARENT = """
import asyncio, sys
from tests.node.test_process_child import parent
async def main():
    async with parent("sleeper") as made:
        print(await made.running(), flush=True)
        await asyncio.sleep(60)
if __name__ == "__main__":
    asyncio.run(main())
"""


def _children(pid: int) -> set[int]:
    """Of every thread of a process; empty where the system does not tell."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for text in lists for child in text.read_text().split()}


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent_main.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline())
        family = _children(process.pid) or {pid}  # the library's manager process as well
        assert pid in family
        assert all(alive(member) for member in family)
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 15
        while any(alive(member) for member in family):
            assert time.monotonic() < deadline, "a child outlives its parent"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
