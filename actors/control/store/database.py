"""One SQLite connection and the one thread that uses it.

The thread takes whatever requests are queued, at most `GROUP_COMMIT`, runs them in one transaction,
commits, and only then hands the outcomes to the loop. So a busy moment costs one commit, an
answered request is durable, and a request that fails undoes only itself: it is one statement, or
it gets a savepoint. A single statement alone needs no transaction around it.

Knows nothing of actors and tables. The owner bounds how many requests are queued.

Source: protocol sheet ORP 4.3; https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from actors.control.limits import BUSY_TIMEOUT_SECONDS, GROUP_COMMIT, KEPT_LOG_BYTES
from actors.control.store.schema import migrate
from actors.files.ownership import open_private

#: Steps of SQLite's machine between two looks at whether the thread should end.
PROGRESS_STEPS = 1_000_000
#: Longest time the thread waits for the interpreter lock before it insists, for the process.
SWITCH_SECONDS = 0.001
#: A database that lives as long as its connection.
IN_MEMORY = ":memory:"


class Operation(Protocol):
    """One request to the database."""

    @property
    def writes(self) -> bool:
        """True when it changes anything."""
        ...

    @property
    def single(self) -> bool:
        """True when it is one statement, which undoes itself when it fails."""
        ...

    def run(self, connection: sqlite3.Connection) -> object:
        """Do it, inside a transaction; raises what it likes."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the request with this token: `error`, or else `value`."""

    token: int
    value: object
    error: Exception | None


def open_database(path: str) -> sqlite3.Connection:
    """Open or create the file (mode 0600) and migrate it. Blocking.

    Raises:
        SchemaError: the database is not one this program can use.
        OSError, sqlite3.Error: the file cannot be opened, is locked, is not a database, or is not
            ours alone (`FileRefused`).
    """
    if path != IN_MEMORY:
        os.close(open_private(Path(path), narrow=True))
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # With WAL, NORMAL keeps the file consistent over a power loss and every commit over a
        # crash of the process; the last commits before a power loss may be missing.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {KEPT_LOG_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


class Database:
    """The thread and its queue, seen from the loop. A resource: `abort()` ends it.

    Args:
        path: the file, or `IN_MEMORY`.
        deliver: called in the loop with the outcomes of one transaction, not after `abort`.
    """

    def __init__(self, path: str, deliver: Callable[[Sequence[Outcome]], object]) -> None:
        self._path = path
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[int, Operation] | None] = SimpleQueue()
        self._ended = False
        self._aborted = False
        #: Transactions, and those of them that changed anything.
        self.commits = self.writes = 0
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        # A busy event loop gives the lock away for microseconds at a time and always gets it back
        # first; only a thread that has waited for a whole interval can insist. See decision 0022.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        # A daemon thread: a transaction stuck in a dead disk must not keep the process alive.
        self._thread = threading.Thread(target=self._main, name="control-store", daemon=True)
        self._thread.start()

    def submit(self, token: int, operation: Operation) -> None:
        """Queue one request; its outcome carries `token`."""
        self._queue.put((token, operation))

    def close(self) -> None:
        """Finish what is queued, then end; `closed` tells when. No `submit` after this."""
        self._queue.put(None)

    def abort(self) -> None:
        """End now: what is not committed is undone, nothing is delivered any more."""
        if self._aborted:
            return
        self._aborted = True
        self.opened.cancel()
        self._queue.put(None)

    # The thread.

    def _post(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody is left who wants to know

    def _main(self) -> None:
        try:
            connection = open_database(self._path)
        except Exception as exc:  # noqa: BLE001  # a pump entry: the owner's start fails with it
            self._post(self._failed_to_open, exc)
            self._post(self._end)
            return
        with closing(connection):
            # Unlike interrupt(), this also ends a statement that begins while `abort` is called.
            connection.set_progress_handler(lambda: self._aborted, PROGRESS_STEPS)
            self._post(self._ready)
            while not self._aborted:
                work = self._next_work()
                if work:
                    outcomes = self._transaction(connection, work)
                    self._post(self._hand_over, outcomes)
                if len(work) < GROUP_COMMIT and self._ended:
                    break
        self._post(self._end)

    def _next_work(self) -> list[tuple[int, Operation]]:
        """Everything queued, at most `GROUP_COMMIT`; waits for the first."""
        work: list[tuple[int, Operation]] = []
        item = self._queue.get()
        while True:
            if item is None:
                self._ended = True
                return work
            work.append(item)
            if len(work) == GROUP_COMMIT:
                return work
            try:
                item = self._queue.get_nowait()
            except Empty:
                return work

    def _transaction(
        self, connection: sqlite3.Connection, work: Sequence[tuple[int, Operation]]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        alone = len(work) == 1 and work[0][1].single
        writes = any(operation.writes for _, operation in work)
        try:
            if not alone:
                connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            for token, operation in work:
                if self._aborted:
                    raise sqlite3.OperationalError("aborted")
                outcomes.append(self._run(connection, token, operation, alone=alone))
            if not alone:
                connection.execute("COMMIT")
        except sqlite3.Error as exc:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [Outcome(token, None, exc) for token, _ in work]
        self.commits += 1
        self.writes += writes
        return outcomes

    @staticmethod
    def _run(
        connection: sqlite3.Connection, token: int, operation: Operation, *, alone: bool
    ) -> Outcome:
        """One request. Raises only when the whole transaction is gone."""
        if operation.writes and not operation.single:
            connection.execute("SAVEPOINT request")
        try:
            value = operation.run(connection)
        except Exception as exc:  # a pump entry: whoever asked, or the owner, gets it
            if not alone and not connection.in_transaction:
                raise sqlite3.OperationalError(f"transaction lost: {exc}") from exc
            if operation.writes and not operation.single:
                connection.execute("ROLLBACK TO request")
                connection.execute("RELEASE request")
            return Outcome(token, None, exc)
        if operation.writes and not operation.single:
            connection.execute("RELEASE request")
        return Outcome(token, value, None)

    # Back in the loop.

    def _ready(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _failed_to_open(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)

    def _hand_over(self, outcomes: Sequence[Outcome]) -> None:
        if not self._aborted:
            self._deliver(outcomes)

    def _end(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
