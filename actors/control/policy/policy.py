"""PolicyActor: decides who may reach what, by the rules of files and of the backend.

The rules in force are one immutable snapshot: the files' rules in file order, then the backend's
by creation time and id. A snapshot is replaced as a whole, and only by one that loaded without
errors: a broken file or an unreachable store leaves the last good one in force, reported in the
log, in `describe()` and to whoever asked for the reload. Before the first snapshot everything is
denied with `no policy snapshot`.

What outlives this actor: the backend's actor holds the last good rules of both sources (rows, and
`keep_file_rules`); a restarted policy actor takes them from there before it looks at its first
message, without reading the files. Decisions asked for meanwhile wait in the mailbox ("keep").

Every decision gives one `AuditRecord`, told to the audit actor. With `enforce=False` everything is
allowed and nothing recorded, and `describe()` says so.

Source: protocol sheet ORP 4.4; 6.2 R22 to R24; docs/chaos.md 16 to 18.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from actors.control.backend import (
    BackendError,
    Connect,
    FileRules,
    PolicyChanged,
    PolicySource,
    RulesAwaited,
)
from actors.control.limits import MAX_OPERATOR_REQUESTS, MAX_RULES, MAX_WAITING
from actors.control.messages import AuditRecord, Decide, Decision
from actors.control.operator_messages import (
    AddRule,
    ListedRule,
    ListRules,
    PolicyLoaded,
    PolicyRefused,
    ReloadPolicy,
    RemoveRule,
    WouldDecide,
)
from actors.control.policy.match import NO_SNAPSHOT, RuleSet
from actors.control.policy.rule import Rule
from actors.control.policy.rules_toml import RulesError, load_rules
from actors.control.store.requests import (
    DeleteRule,
    InsertRule,
    KeepFileRules,
    LoadRules,
    WatchPolicy,
)
from actors.observe.meters import Meters
from actors.runtime import (
    DEFERRED,
    Actor,
    Deferred,
    Event,
    MailboxSpec,
    OwnedTask,
    Refusal,
    Reply,
    handles,
)

#: The reason of decisions when rules are not enforced.
NOT_ENFORCED = "policy not enforced"
#: Seconds decisions wait for the first load before they are answered with a denial.
FIRST_LOAD_SECONDS = 1.0
#: Seconds until a load that failed is tried again, doubling from the first to the second.
RETRY_SECONDS = 0.05
RETRY_CAP_SECONDS = 5.0
#: Rules compiled in the loop; more are compiled in a thread.
INLINE_RULES = 2000


class _Retry:
    """Load again what could not be loaded."""

    __slots__ = ()


class _PatienceOver:
    """The first load took too long for whoever asked meanwhile."""

    __slots__ = ()


class PolicyActor(Actor):
    """Decides who may reach what, by the rules of files and of the backend.

    Args:
        connect: makes the backend.
        files: rule files, in this order.
        enforce: False allows everything.
        audit: path of the audit actor, which may not run yet.
        wall_clock: seconds since the epoch.
        meters: what is counted, for operators.
    """

    # Decisions of a burst of opens must fit while the actor restarts.
    mailbox = MailboxSpec(bound=65_536)

    def __init__(
        self,
        connect: Connect,
        files: Sequence[Path],
        *,
        enforce: bool = True,
        audit: str = "audit",
        wall_clock: Callable[[], float] = time.time,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._connect = connect
        self._files = tuple(files)
        self._enforce = enforce
        self._audit_id = audit
        self._wall_clock = wall_clock
        self._snapshot: RuleSet | None = None
        #: The last good load of the files; None until there was one.
        self._kept: FileRules | None = None
        self._store_rules: tuple[Rule, ...] = ()
        self._loads = 0
        self._problems: tuple[str, ...] = ()
        self._allowed = 0
        self._denied = 0
        self._pause = RETRY_SECONDS
        #: Decisions waiting for the first load. Bound: MAX_WAITING; one more is denied.
        self._parked: deque[tuple[Decide, Reply[Decision]]] = deque()
        self._patient = True
        #: What was not said about the first load so far.
        self._awaited: RulesAwaited | None = None
        #: Work that has to wait for files or the backend, in order. Bound: MAX_OPERATOR_REQUESTS;
        #: one more request is refused. A refresh is queued once.
        self._work: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._refresh_queued = False
        self._worker: OwnedTask | None = None

    def init(self) -> None:
        """Connect to the backend and watch its rules."""
        audit = self.system.ref(self.path.rpartition("/")[0] + "/" + self._audit_id)
        if audit is None:
            raise LookupError(f"{self.path}: there is no sibling {self._audit_id}")
        self._audit = audit
        self._backend = self._connect(self)
        self._backend.tell(WatchPolicy(self.ref))

    def continue_(self) -> None:
        """Load what is in force; decisions asked for meanwhile wait, but not for long."""
        if not self._enforce:
            self.log.warning("policy is not enforced: every stream is allowed")
        self._refresh()
        self.start_timer(FIRST_LOAD_SECONDS, _PatienceOver())

    def describe(self) -> dict[str, object]:
        """What is in force, and what is wrong."""
        snapshot = self._snapshot
        return {
            "enforced": self._enforce,
            "snapshot": snapshot is not None,
            "file_rules": len(self._rules_of_files()),
            "store_rules": len(self._store_rules),
            "loads": self._loads,
            "allowed": self._allowed,
            "denied": self._denied,
            "waiting": len(self._parked),
            "cached": snapshot.cached if snapshot is not None else 0,
            "cache_hits": snapshot.hits if snapshot is not None else 0,
            "problems": list(self._problems[:10]),
        }

    # Decisions.

    @handles(Decide)
    def _decide(self, message: Decide) -> Decision | Deferred:
        if not self._enforce:
            self._allowed += 1
            return Decision(True, NOT_ENFORCED)
        if self._snapshot is None and self._patient and len(self._parked) < MAX_WAITING:
            self._parked.append((message, self.defer()))
            return DEFERRED
        return self._judge(message)

    def _judge(self, message: Decide) -> Decision:
        now_ms = self._wall_ms()
        if self._snapshot is None:
            decision = Decision(False, NO_SNAPSHOT)
        else:
            snapshot, counters = self._snapshot, self._meters.counters
            hits, began = snapshot.hits, time.perf_counter()
            decision = snapshot.decide(
                message.tenant, message.caller, message.target, message.method, now_ms
            )
            self._meters.histogram("policy_eval_duration").observe(time.perf_counter() - began)
            counters["policy_cache_misses" if hits == snapshot.hits else "policy_cache_hits"] += 1
        if decision.allow:
            self._allowed += 1
        else:
            self._denied += 1
        record = AuditRecord(
            at=now_ms,
            tenant=message.tenant,
            caller=message.caller,
            target=message.target,
            method=message.method,
            allow=decision.allow,
            reason=decision.reason,
            stream_id=str(message.stream_id) if message.stream_id else "",
            asker=message.asker,
        )
        if not self._audit.try_tell(record):
            self.system.dead_letters.add(self.path, self._audit.path, record, "queue full")
        return decision

    @handles(_PatienceOver)
    def _patience_over(self, message: _PatienceOver) -> None:
        if self._snapshot is None and self._awaited is not None:
            self._tell_of(self._awaited)
        self._unpark()

    def _unpark(self) -> None:
        """Answer the decisions that waited for the first load."""
        self._patient = False
        while self._parked:
            message, reply = self._parked.popleft()
            reply.send(self._judge(message))

    # Operators.

    @handles(ReloadPolicy)
    def _reload(self, message: ReloadPolicy) -> Refusal | Deferred:
        reply = self.defer()

        async def work() -> None:
            files = self._files if message.files is None else message.files
            try:
                await self._apply(await self._read(files), await self._backend.ask(LoadRules()))
            except (RulesError, BackendError) as exc:
                reply.send(Refusal(PolicyRefused(self._report(exc))))
            else:
                loaded = PolicyLoaded(len(self._rules_of_files()), len(self._store_rules))
                reply.send(loaded)

        return self._queue(work)

    @handles(AddRule)
    def _add(self, message: AddRule) -> Refusal | Deferred:
        problem = message.rule.problem()
        if problem:
            return Refusal(PolicyRefused((problem,)))
        if len(self._store_rules) >= MAX_RULES:
            return Refusal(PolicyRefused((f"the store holds {MAX_RULES} rules already",)))
        reply = self.defer()

        async def work() -> None:
            try:
                rule_id = await self._backend.ask(
                    InsertRule(message.rule.as_stored(int(time.time() * 1000)))
                )
            except BackendError as exc:
                reply.send(Refusal(PolicyRefused((str(exc),))))
            else:
                await self._load_missing()
                reply.send(rule_id)

        return self._queue(work)

    @handles(RemoveRule)
    def _remove(self, message: RemoveRule) -> Refusal | Deferred:
        reply = self.defer()

        async def work() -> None:
            try:
                removed = await self._backend.ask(DeleteRule(message.tenant, message.rule_id))
            except BackendError as exc:
                reply.send(Refusal(PolicyRefused((str(exc),))))
            else:
                await self._load_missing()
                reply.send(removed)

        return self._queue(work)

    @handles(ListRules)
    def _list(self, message: ListRules) -> tuple[ListedRule, ...]:
        listed = [ListedRule(rule, "file") for rule in self._rules_of_files()]
        listed += [ListedRule(rule, "store") for rule in self._store_rules]
        wanted = message.tenant
        return tuple(entry for entry in listed if not wanted or entry.rule.tenant == wanted)

    @handles(WouldDecide)
    def _would_decide(self, message: WouldDecide) -> Decision:
        if not self._enforce:
            return Decision(True, NOT_ENFORCED)
        if self._snapshot is None:
            return Decision(False, NO_SNAPSHOT)
        return self._snapshot.evaluate(
            message.tenant, message.caller, message.target, message.method, self._wall_ms()
        )

    # Loading.

    @handles(PolicyChanged)
    def _changed(self, message: PolicyChanged) -> None:
        self._refresh()

    @handles(_Retry)
    def _retry(self, message: _Retry) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Queue a load; once is enough, however often it is asked for."""
        if not self._refresh_queued:
            self._refresh_queued = True
            self._start(self._refresh_now)

    async def _refresh_now(self) -> None:
        self._refresh_queued = False
        await self._load_missing()

    async def _load_missing(self) -> None:
        """Put the backend's rules in force; on failure report, and try again later."""
        try:
            source = await self._backend.ask(LoadRules())
            kept = self._kept or source.file_rules or await self._read(self._files)
            await self._apply(kept, source)
        except (RulesError, BackendError) as exc:
            self._report(exc)
            if isinstance(exc, RulesError):
                self._unpark()  # a second will not repair a file
            self.start_timer(self._pause, _Retry(), "retry")
            self._pause = min(self._pause * 2, RETRY_CAP_SECONDS)
        else:
            self._pause = RETRY_SECONDS

    async def _read(self, files: tuple[Path, ...]) -> FileRules:
        """Read files in a thread: they may lie on a slow disk."""
        return FileRules(files, await asyncio.to_thread(load_rules, files, self._wall_ms()))

    async def _apply(self, kept: FileRules, source: PolicySource) -> None:
        """Put the rules of both sources in force. Raises `RulesError` when they are too many."""
        if len(source.rules) > MAX_RULES:
            raise RulesError((f"the store holds more than {MAX_RULES} rules",))
        rules = kept.rules + source.rules
        if len(rules) <= INLINE_RULES:
            snapshot = _compiled(self._snapshot, rules)
        else:
            snapshot = await asyncio.to_thread(_compiled, self._snapshot, rules)
        if source.file_rules is not kept:
            self._backend.tell(KeepFileRules(kept))
        self._kept = kept
        self._files = kept.files
        self._store_rules = source.rules
        self._problems = ()
        self._loads += 1
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        self._unpark()
        fields: dict[str, object] = {"from_files": len(kept.rules), "stored": len(source.rules)}
        # Whoever checked a long-lived stream may want to check it again (R24).
        self.system.events.publish(Event("policy_changed", self.path, self.incarnation, fields))
        self.log.info("{} rules from files, {} from the store", *fields.values())

    def _rules_of_files(self) -> tuple[Rule, ...]:
        return self._kept.rules if self._kept is not None else ()

    def _report(self, error: RulesError | BackendError) -> tuple[str, ...]:
        known = self._problems
        if isinstance(error, RulesError):
            self._problems = error.problems
        else:
            self._problems = (f"store: {error}",)
        if self._problems != known:
            # While decisions wait for the first rules, that they are awaited is no news.
            if self._snapshot is None and self._patient and isinstance(error, RulesAwaited):
                self._awaited = error
            else:
                self._tell_of(error)
        return self._problems

    def _tell_of(self, error: RulesError | BackendError) -> None:
        in_force = "the last good rules stay" if self._snapshot else "everything is denied"
        # That a controller does not answer is said by the link to it.
        level = "INFO" if isinstance(error, RulesAwaited) else "ERROR"
        self.log.log(level, "policy not loaded, {}:\n{}", in_force, error)

    # One thing at a time, in order.

    def _queue(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Refusal | Deferred:
        if len(self._work) >= MAX_OPERATOR_REQUESTS:
            return Refusal(PolicyRefused((f"{MAX_OPERATOR_REQUESTS} requests are waiting",)))
        self._start(work)
        return DEFERRED

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work.append(work)
        if self._worker is None or self._worker.done:
            self._worker = self.spawn_task(self._run(), "policy work")

    async def _run(self) -> None:
        while self._work:
            await self._work.popleft()()

    def _wall_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def _compiled(before: RuleSet | None, rules: tuple[Rule, ...]) -> RuleSet:
    """A snapshot of these rules; the one before when nothing changed."""
    return before if before is not None and before.rules == rules else RuleSet(rules)
