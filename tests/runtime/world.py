"""The simulated world: random actors in a random tree, and a ledger of what they saw.

Actors here do everything an actor may do, and most of what it must not: they hang, swallow their
cancellation, fail in every hook. Each writes down what happened to it; `invariants.py` judges the
ledger and the event log afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field

from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Deferred,
    Down,
    ExitReason,
    ExitSignal,
    MailboxFull,
    MailboxSpec,
    Overflow,
    Refusal,
    Reply,
    Request,
    RuntimeFault,
    handles,
)

#: Who sent it: path and incarnation, or a driver's number.
Sender = tuple[str, int]


@dataclass(slots=True)
class Note:
    """Numbered per sender and receiver; receivers check the order."""

    sender: Sender
    number: int


@dataclass(slots=True)
class Work:
    """A handler that waits `seconds`, and swallows that many cancellations."""

    seconds: float
    swallow: int = 0


@dataclass(slots=True)
class Fail:
    """Raise in the handler; or in a `task`, a `guard`ed callback, by `sys.exit`."""

    how: str


@dataclass(slots=True)
class Do:
    """One of the services: own, timer, task, watch, unwatch, link, name, stop, note."""

    what: str
    target: ActorRef | None = None


@dataclass(slots=True)
class Ring:
    """What a timer delivers."""

    due: float


@dataclass(slots=True)
class Question(Request[int]):
    """Answered with `value`: at once, after `seconds`, deferred, refused, by asking on."""

    value: int
    how: str = "now"
    seconds: float = 0.0
    onward: tuple[ActorRef, ...] = ()


class Thing:
    """A resource that knows whose it is and whether it was released."""

    def __init__(self, owner: Sender, broken: bool) -> None:
        self.owner = owner
        self.released = 0
        self._broken = broken

    def abort(self) -> None:
        self.released += 1
        if self._broken:
            raise OSError("cannot close")


@dataclass(slots=True)
class Asked:
    """One ask and its outcome."""

    target: str
    began: float
    timeout: float
    ended: float | None = None
    outcome: str = ""


@dataclass(slots=True)
class Ledger:
    """What the actors and drivers of one run wrote down."""

    seed: int = 0
    things: list[Thing] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    #: Numbers each receiver incarnation saw, per sender.
    seen: dict[tuple[Sender, Sender], list[int]] = field(default_factory=lambda: defaultdict(list))
    #: (watcher, token) -> the Downs it got.
    downs: dict[tuple[Sender, int], list[Down]] = field(default_factory=lambda: defaultdict(list))
    #: Monitors set, and those withdrawn.
    watched: dict[tuple[Sender, int], str] = field(default_factory=dict)
    #: Broken rules that only an actor itself can see.
    faults: list[str] = field(default_factory=list)
    #: Incarnations whose code ran init.
    begun: list[Sender] = field(default_factory=list)
    #: Incarnations whose terminate ran, with the kind of exit they were told.
    farewells: dict[Sender, str] = field(default_factory=dict)


async def ask(ledger: Ledger, ref: ActorRef, question: Question, timeout: float, now: float) -> str:
    """Ask and write down what came of it."""
    entry = Asked(ref.path, now, timeout)
    ledger.asked.append(entry)
    loop = asyncio.get_running_loop()
    try:
        answer = await ref.ask(question, timeout=timeout)
        outcome = "answer"
        if answer != question.value:
            ledger.faults.append(f"{ref.path} answered {answer} instead of {question.value}")
    except RuntimeFault as fault:
        outcome = type(fault).__name__
    except asyncio.CancelledError:
        entry.ended, entry.outcome = loop.time(), "cancelled"
        raise
    entry.ended, entry.outcome = loop.time(), outcome
    return outcome


class Subject(Actor):
    """The actor everything is done to."""

    handler_limit = 4.0

    def __init__(self, ledger: Ledger, rng: random.Random, wild: bool) -> None:
        self.ledger = ledger
        self.rng = rng
        self.wild = wild
        self.tokens: list[int] = []
        self.numbers: dict[str, int] = {}
        self.parked: list[Reply[int]] = []
        self.ended: set[Sender] = set()
        self.friends: list[ActorRef] = []

    @property
    def me(self) -> Sender:
        return self.path, self.incarnation

    def chance(self, share: float) -> bool:
        return self.wild and self.rng.random() < share

    async def init(self) -> None:
        self.ledger.begun.append(self.me)
        self.acquire()
        if self.chance(0.1):
            raise ValueError("init")
        if self.chance(0.2):
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        elif self.chance(0.05):
            await asyncio.sleep(60.0)  # longer than start_timeout

    async def continue_(self) -> None:
        if self.chance(0.1):
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        if self.chance(0.05):
            raise ValueError("continue_")

    async def terminate(self, reason: ExitReason) -> None:
        self.ledger.farewells[self.me] = reason.kind.value
        for friend in self.friends:  # its last words: a Down must not overtake them
            self.tell_number(friend)
        if self.chance(0.2):
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        elif self.chance(0.05):
            await asyncio.sleep(60.0)
        elif self.chance(0.1):
            raise ValueError("terminate")

    def acquire(self) -> None:
        thing = Thing(self.me, self.chance(0.1))
        self.ledger.things.append(thing)
        self.own(thing)

    @handles(Note)
    def _note(self, note: Note) -> None:
        seen = self.ledger.seen[note.sender, self.me]
        if seen and note.number <= seen[-1]:
            self.ledger.faults.append(f"{self.path} got {note} after number {seen[-1]}")
        seen.append(note.number)
        if note.sender in self.ended:
            self.ledger.faults.append(f"{self.path} got {note} after its sender's Down")

    @handles(Work)
    async def _work(self, work: Work) -> None:
        await stubborn(work.seconds, work.swallow)

    @handles(Fail)
    async def _fail(self, fail: Fail) -> None:
        if fail.how == "task":
            self.spawn_task(self._failing_task(), "failing")
        elif fail.how == "guard":
            asyncio.get_running_loop().call_soon(self.guard("route", self._failing_callback))
        elif fail.how == "exit":
            raise SystemExit(3)
        elif fail.how == "cancelled":
            raise asyncio.CancelledError
        elif fail.how == "late":
            await asyncio.sleep(0.5)
            raise ValueError("late")
        else:
            raise ValueError("handler")

    async def _failing_task(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 0.2))
        raise ValueError("task")

    @staticmethod
    def _failing_callback() -> None:
        raise ValueError("callback")

    @handles(Do)
    def _do(self, do: Do) -> None:
        target = do.target
        if do.what == "own":
            self.acquire()
        elif do.what == "timer":
            delay = self.rng.uniform(0.0, 2.0)
            key = self.rng.choice((None, "a", "b"))
            self.start_timer(delay, Ring(self.now() + delay), key)
        elif do.what == "task":
            self.spawn_task(stubborn(self.rng.uniform(0.0, 3.0), self.rng.choice((0, 0, 2))), "t")
        elif do.what == "stop":
            self.stop()
        elif do.what == "name":
            self.register_name(f"name {self.rng.randrange(3)} of {self.path}")
        elif do.what == "unwatch" and self.tokens:
            token = self.tokens.pop(self.rng.randrange(len(self.tokens)))
            self.demonitor(token)
            self.ledger.watched.pop((self.me, token), None)
        elif target is None:
            return
        elif do.what == "watch":
            token = self.monitor(target)
            self.tokens.append(token)
            self.ledger.watched[self.me, token] = target.path
            target.try_tell(Do("note", self.ref))
        elif do.what == "link":
            self.link(target)
        elif do.what == "note":
            self.friends.append(target)
            self.tell_number(target)

    def tell_number(self, target: ActorRef) -> None:
        number = self.numbers[target.path] = self.numbers.get(target.path, 0) + 1
        try:
            target.tell(Note(self.me, number))
        except MailboxFull:
            pass

    @handles(Ring)
    def _ring(self, ring: Ring) -> None:
        if self.now() < ring.due:
            self.ledger.faults.append(f"{self.path}: a timer for {ring.due} came at {self.now()}")

    @handles(Down)
    def _down(self, down: Down) -> None:
        self.ledger.downs[self.me, down.token].append(down)
        self.ended.add((down.path, down.incarnation))
        if down.token in self.tokens:
            self.tokens.remove(down.token)
        else:
            self.ledger.faults.append(f"{self.path} got a Down it did not wait for")

    @handles(ExitSignal)
    def _exit_signal(self, signal: ExitSignal) -> None:
        if not signal.reason.abnormal:
            self.ledger.faults.append(f"{self.path} got {signal}")

    @handles(Question)
    async def _question(self, question: Question) -> int | Refusal | Deferred:
        if question.how == "refuse":
            return Refusal("no")
        if question.how == "fail":
            raise ValueError("question")
        if question.how == "defer":
            self.spawn_task(self._answer_later(question, self.defer()), "answer")
            return DEFERRED
        if question.how == "forget":
            self.parked.append(self.defer())
            return DEFERRED
        if question.seconds:
            await asyncio.sleep(question.seconds)
        if question.onward:
            next_question = Question(question.value, onward=question.onward[1:])
            await ask(self.ledger, question.onward[0], next_question, 2.0, self.now())
        return question.value

    async def _answer_later(self, question: Question, reply: Reply[int]) -> None:
        await asyncio.sleep(question.seconds)
        reply.send(question.value)


class Trapper(Subject):
    """Hears of the exits of its links."""

    trap_exits = True


class Narrow(Subject):
    """A small mailbox that drops its oldest messages."""

    mailbox = MailboxSpec(bound=3, overflow=Overflow.DROP_OLDEST)


class Choosy(Subject):
    """A small mailbox that drops what is new."""

    mailbox = MailboxSpec(bound=3, overflow=Overflow.DROP_NEWEST)


class Strict(Subject):
    """A small mailbox that refuses."""

    mailbox = MailboxSpec(bound=3)


def by_sender(message: object) -> Sender | None:
    """Notes of one sender replace each other."""
    return message.sender if isinstance(message, Note) else None


class Merging(Subject):
    """A small mailbox in which notes of one sender replace each other."""

    mailbox = MailboxSpec(bound=3, overflow=Overflow.COALESCE, key=by_sender)


KINDS: tuple[type[Subject], ...] = (
    Subject,
    Subject,
    Trapper,
    Narrow,
    Choosy,
    Strict,
    Merging,
    Merging,
)


async def stubborn(seconds: float, swallow: int) -> None:
    """Sleep, and go on sleeping through that many cancellations."""
    while True:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if swallow <= 0:
                raise
            swallow -= 1
        else:
            return
