"""Shared test rig: a leak check around every test, `run` for coroutines, a development PKI.

Every test fails that leaves asyncio tasks, threads or file descriptors behind, or in which a task
died with nobody looking at it. A test that must leave something behind says why with
`@pytest.mark.allow_leaks("reason")`.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import signal
import threading
import time
from asyncio import runners
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings

from actors.pki.certificates import agent_identity, create_ca, create_leaf
from actors.pki.dev_pki import DevPki, LeafFiles, ensure_dev_pki
from actors.pki.files import pair_paths, write_pair

T = TypeVar("T")

# A runner in the background ignores SIGINT, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are shared and slow at times: no deadline per example.
# The examples of a usual run are the same every time, so that it fails only for a change; new
# ones are looked for by `make soak`.
settings.register_profile("quick", deadline=None, print_blob=True, derandomize=True)
settings.register_profile(
    "soak",
    deadline=None,
    print_blob=True,
    max_examples=5000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")

FD_DIRECTORY = Path("/proc/self/fd")
#: Threads and descriptors may need a moment after their owner was told to stop.
SETTLE_DEADLINE_SECONDS = 2.0


def run(
    main: Coroutine[Any, Any, T],
    *,
    timeout: float = 20.0,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run one coroutine on a loop of its own and return its result.

    The test fails with the stack of every task when `timeout` seconds pass, and when the loop's
    exception handler was called (a callback or an abandoned task failed).
    """
    problems: list[str] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(note)
        task = loop.create_task(main, name="test-main")
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            stacks = _all_stacks(loop)
            task.cancel()
            await asyncio.wait({task}, timeout=5.0)
            pytest.fail(f"still running after {timeout} s\n{stacks}", pytrace=False)
        return task.result()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(guarded())
    gc.collect()
    if problems:
        pytest.fail("the event loop reported: " + "; ".join(problems), pytrace=False)
    return result


async def eventually(
    condition: Callable[[], object], *, timeout: float = 5.0, what: str = "the condition"
) -> None:
    """Wait until a condition holds; the test fails when it does not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout} s")
        await asyncio.sleep(0.005)


def _all_stacks(loop: asyncio.AbstractEventLoop) -> str:
    out = io.StringIO()
    for task in asyncio.all_tasks(loop):
        try:
            task.print_stack(limit=12, file=out)
        except TypeError:  # a coroutine of an extension module has no line numbers
            out.write(f"{task!r}\n")
    return out.getvalue()


class _AsyncioErrors(logging.Handler):
    """Collects what asyncio's default exception handler writes."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _descriptors() -> dict[int, str]:
    """Open descriptors and what they point to, without multiprocessing's session-wide pipe."""
    found: dict[int, str] = {}
    if not FD_DIRECTORY.is_dir():
        return found
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    tracked = getattr(tracker, "_fd", None)
    for entry in os.listdir(FD_DIRECTORY):
        fd = int(entry)
        if fd == tracked:
            continue
        try:
            found[fd] = os.readlink(FD_DIRECTORY / entry)
        except OSError:
            continue  # the descriptor of this very listing
    return found


def _new_descriptors(before: dict[int, str]) -> list[str]:
    now = _descriptors()
    return [f"fd {fd} -> {target}" for fd, target in now.items() if before.get(fd) != target]


def _new_threads(before: set[threading.Thread]) -> list[str]:
    return [t.name for t in threading.enumerate() if t not in before and t.is_alive()]


#: Rooms whose files wait long for processes and deadlines: begun last, one of them would be what
#: everybody waits for.
LONG_ROOMS = ("tests/system/", "tests/doors/", "tests/turn/", "tests/edge/", "tests/chaos/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; everything else stays in its order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_ROOMS))


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap() -> None:
    """Keep what is there already out of the per-test collections, which makes them cheap.

    For every module: imports, reports and caches add up to 0.15 s per collection.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test when it leaves tasks, threads or descriptors, or loses a task's exception."""
    if request.node.get_closest_marker("allow_leaks") is not None:
        yield
        return
    tasks: list[str] = []
    cancel_all = runners._cancel_all_tasks  # type: ignore[attr-defined]  # no public hook exists

    def note_leftover_tasks(loop: asyncio.AbstractEventLoop) -> None:
        # A task that was told to stop has an owner who ended it; one that was not is a leak.
        tasks.extend(repr(t) for t in asyncio.all_tasks(loop) if not t.cancelling())
        cancel_all(loop)

    monkeypatch.setattr(runners, "_cancel_all_tasks", note_leftover_tasks)
    errors = _AsyncioErrors()
    asyncio_logger = logging.getLogger("asyncio")
    asyncio_logger.addHandler(errors)
    threads_before = set(threading.enumerate())
    descriptors_before = _descriptors()
    try:
        yield
        gc.collect()
    finally:
        asyncio_logger.removeHandler(errors)

    deadline = time.monotonic() + SETTLE_DEADLINE_SECONDS
    while True:
        threads = _new_threads(threads_before)
        descriptors = _new_descriptors(descriptors_before)
        if not (threads or descriptors) or time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(0.01)
    found = {
        "tasks": tasks,
        "threads": threads,
        "descriptors": descriptors,
        "errors reported by asyncio": errors.messages,
    }
    report = [f"{kind}: {'; '.join(items)}" for kind, items in found.items() if items]
    if report:
        pytest.fail("the test left something behind\n" + "\n".join(report), pytrace=False)


@dataclass(frozen=True, slots=True)
class PkiFixture:
    """A development PKI and what a stranger would bring along. Read-only for all tests."""

    #: CA, relay acme/r1 and the agents "provider" and "consumer" of tenant acme.
    dev: DevPki
    #: A CA nobody here trusts ...
    foreign_ca_certificate: Path
    #: ... and a leaf of it that claims to be acme's provider.
    foreign_agent: LeafFiles

    @property
    def ca(self) -> Path:
        return self.dev.ca_certificate

    @property
    def relay(self) -> LeafFiles:
        return self.dev.relay

    @property
    def provider(self) -> LeafFiles:
        return self.dev.agents["provider"]

    @property
    def consumer(self) -> LeafFiles:
        return self.dev.agents["consumer"]


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PkiFixture:
    """Certificates for one relay, two agents of tenant acme, and a foreign CA with an impostor."""
    directory = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC)
    dev = ensure_dev_pki(directory / "dev")
    foreign = directory / "foreign"
    foreign.mkdir(mode=0o700)
    ca = create_ca(now)
    write_pair(pair_paths(foreign, "ca"), ca)
    identity = agent_identity("acme", UUID(int=1))
    paths = pair_paths(foreign, "agent")
    write_pair(paths, create_leaf(ca, identity, lifetime=timedelta(days=1), now=now))
    return PkiFixture(
        dev=dev,
        foreign_ca_certificate=pair_paths(foreign, "ca").certificate,
        foreign_agent=LeafFiles(identity, paths.certificate, paths.key),
    )
