"""Chooses victims and hurts them, through the same control path an operator uses.

One seeded random source drives every choice; with the same seed and the same tree the choices
are the same. A victim is skipped when its death would exceed the restart window of its
supervisor (that is what `almost_kill` approaches on purpose), when it is the control server that
carries the orders, or when it does not match `only`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol

from tools.chaos.groups import Row, Tree, is_below, parent_path
from tools.chaos.history import Action, History, Overfull

#: Seconds `almost_kill` may take.
WEAR_SECONDS = 25.0


class Control(Protocol):
    """The part of the control client the nemesis uses."""

    async def tree(self, path: str = "/") -> list[Row]:
        """Every row below `path`, in tree order."""
        ...

    async def describe(self, path: str) -> Mapping[str, object]:
        """Details of one actor; raises `ControlError` when nobody is there."""
        ...

    async def act(self, verb: str, path: str, reason: str) -> bool:
        """kill, crash, suspend or resume; False when nobody was there."""
        ...


class Nemesis:
    """Kills and crashes actors of a running daemon.

    Args:
        control: connection to the daemon.
        seed: drives every choice.
        history: where actions are recorded.
        only: glob on paths (`/edge/streams/*`); None means every path but the spared ones.
        spare: subtrees that are never hit.
        clock: wall-clock seconds.
    """

    def __init__(
        self,
        control: Control,
        *,
        seed: int,
        history: History,
        only: str | None = None,
        spare: tuple[str, ...] = ("/ops",),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._control = control
        self._random = random.Random(seed)  # choices, not secrets
        self._history = history
        self._only = re.compile(fnmatch.translate(only)) if only else None
        self._spare = spare
        self._clock = clock
        self.windows: dict[str, tuple[int, float]] = {}
        self.skipped = 0

    async def strike(self) -> Action | None:
        """Choose one victim and hurt it. None when nobody was eligible."""
        tree = Tree.of(await self._control.tree())
        self._note_overfull(tree)
        candidates = [path for path in tree.rows if self._eligible(tree, path)]
        # One draw per class first: else ten thousand streams would hide the one registry.
        by_class: dict[str, list[str]] = defaultdict(list)
        for path in candidates:
            by_class[tree.text(path, "class") or tree.text(path, "kind")].append(path)
        classes = sorted(by_class)
        self._random.shuffle(classes)
        for name in classes:
            victim = self._random.choice(by_class[name])
            if await self.budget(tree, victim) > 0:
                verb = self._random.choice(("kill", "crash"))
                return await self.hit(tree, victim, verb)
            self.skipped += 1
        return None

    async def hit(self, tree: Tree, victim: str, verb: str) -> Action:
        """Hurt one given victim and record it."""
        action = Action(
            self._clock(),
            verb,
            victim,
            tree.incarnation(victim),
            frozenset(tree.group(victim)),
        )
        self._history.actions.append(action)
        action.done = await self._control.act(verb, victim, "chaos")
        action.acked = self._clock()
        return action

    def _note_overfull(self, tree: Tree) -> None:
        for path, row in tree.rows.items():
            depth, bound = row.get("mailbox"), row.get("bound")
            if isinstance(depth, int) and isinstance(bound, int) and depth > bound:
                self._history.overfull.append(Overfull(self._clock(), path, depth, bound))

    def _eligible(self, tree: Tree, path: str) -> bool:
        if path == "/" or any(is_below(path, spared) for spared in self._spare):
            return False
        if tree.text(path, "class") == "LinkServer":
            return False  # carries the orders into a child process, as /ops does into this one
        if self._only is not None and not self._only.match(path):
            return False
        return tree.text(path, "state") in ("running", "busy", "suspended")

    async def budget(self, tree: Tree, victim: str) -> int:
        """How many more deaths of `victim` its supervisor absorbs without giving up."""
        if tree.text(victim, "restart") == "temporary":
            return 1_000_000
        supervisor = parent_path(victim)
        if supervisor is None:
            return 0
        details = await self._control.describe(supervisor)
        described = details.get("describe")
        window = described.get("window") if isinstance(described, dict) else None
        if not isinstance(window, dict):
            return 1 if tree.text(supervisor, "strategy") == "dynamic" else 0
        used, limit, period = window["used"], window["restarts"], window["period"]
        self.windows[supervisor] = (int(limit), float(period))
        return int(limit) - int(used)


async def almost_kill(nemesis: Nemesis, control: Control, *, spare: tuple[str, ...]) -> int:
    """Bring every static supervisor one restart below its limit. Returns the number of kills.

    Afterwards the whole tree must still serve. All supervisors are worn down at the same time,
    because what one spent is forgotten after its period; leaves are killed only, because a
    supervisor below would start over with a fresh window.
    """
    tree = Tree.of(await control.tree())
    tasks: list[asyncio.Task[int]] = []
    async with asyncio.TaskGroup() as group:
        for supervisor, children in tree.children.items():
            if tree.text(supervisor, "strategy") in ("", "dynamic"):
                continue
            victims = [
                child
                for child in children
                if tree.text(child, "restart") == "permanent"
                and not tree.text(child, "strategy")
                and tree.text(child, "class") != "LinkServer"
                and not any(is_below(child, spared) for spared in spare)
            ]
            if victims:
                tasks.append(group.create_task(_wear_down(nemesis, control, tree, victims)))
    return sum(task.result() for task in tasks)


async def _wear_down(nemesis: Nemesis, control: Control, tree: Tree, victims: list[str]) -> int:
    """Kill children of one supervisor until one more death would be too many.

    Backoff may stretch the deaths over more than the period: then the budget never runs out, and
    what `WEAR_SECONDS` allow is what can be asked for.
    """
    deadline = time.monotonic() + WEAR_SECONDS
    kills = 0
    while time.monotonic() < deadline and await nemesis.budget(tree, victims[0]) > 0:
        action = await nemesis.hit(tree, victims[kills % len(victims)], "kill")
        kills += action.done
        try:
            await _until_running(control, action.path, deadline - time.monotonic())
        except TimeoutError:
            break
    return kills


async def _until_running(control: Control, path: str, seconds: float) -> None:
    """Wait until somebody runs at `path` again (its backoff may take a while)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rows = await control.tree(path)
        if rows and rows[0].get("state") in ("running", "busy"):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{path} does not run {seconds:g} s after it was killed")
