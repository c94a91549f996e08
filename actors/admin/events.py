"""The event stream for operators: `events` and `dead_letters`.

A subscription never holds up what it observes: between the stream and the reader's socket lies a
`Feed`; what a slow reader misses is counted, and told in a row of kind `lost`.

Events of mounted processes are mixed in, in the order they arrive here; each process numbers its
own (`seq`), so an order over all exists only by time (`at`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.admin.feed import Feed
from actors.admin.mounts import ControlFailed, MountTable, SubtreeMount
from actors.admin.places import forward, inward_args, mounted
from actors.admin.session import Exchange
from actors.runtime import Event
from wire.admin.limits import MAX_FILTER_CHARACTERS, MAX_PART_ROWS, MAX_REPLAY
from wire.admin.messages import Row
from wire.admin.paths import ROOT, below, inward, rows_outward

#: Events kept for a slow reader of one subscription; the newest are dropped beyond.
FEED_BOUND = 2048
#: Seconds a mounted process gets to replay its past events.
REPLAY_SECONDS = 2.0
#: Seconds between two looks for processes that came or came back.
LOOK_SECONDS = 1.0
MAX_SEQ = 2**53


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which events: at or below `path`, of these kinds (empty: every kind)."""

    path: str
    kinds: frozenset[str]

    def takes(self, event: Event) -> bool:
        """True when this event was asked for."""
        if self.kinds and event.kind not in self.kinds:
            return False
        return self.path == ROOT or below(event.path, self.path)

    def args_for(self, place: str) -> dict[str, object]:
        """The same wish as the process mounted at `place` understands it."""
        inner = ROOT if below(place, self.path) else inward(place, self.path)
        return {"path": inner, "kinds": ",".join(sorted(self.kinds))}


def event_row(event: Event) -> Row:
    """One event as it goes to operators."""
    return {
        "seq": event.seq,
        "at": event.at,
        "kind": event.kind,
        "path": event.path,
        "incarnation": event.incarnation,
        "fields": event.fields,
    }


async def events(exchange: Exchange) -> Row:
    """`events`: args path, kinds (comma-separated), last, after, follow.

    First the last `last` past events (with `after`: only those numbered higher), oldest first;
    then, with `follow`, every new one until the request is cancelled. Result: `seq`, the number
    of the newest local event sent or passed over.
    """
    args = exchange.args
    path = args.path(default=ROOT)
    kinds = args.text("kinds", "", most=MAX_FILTER_CHARACTERS)
    last = args.integer("last", 100, least=0, most=MAX_REPLAY)
    after = args.integer("after", 0, least=0, most=MAX_SEQ)
    follow = args.flag("follow")
    args.finish()
    service = exchange.service
    mount = mounted(service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    wanted = _Wanted(path, frozenset(word.strip() for word in kinds.split(",") if word.strip()))
    stream = exchange.system.events
    feed: Feed[Row] = Feed(FEED_BOUND)

    def observe(event: Event) -> None:
        if wanted.takes(event):
            feed.offer(event_row(event))

    token = stream.subscribe(observe) if follow else 0
    try:
        seq = stream.published
        past = [event for event in stream.history if event.seq > after and wanted.takes(event)]
        rows = [event_row(event) for event in past[-last:]] if last else []
        seen: dict[str, int] = {}
        if not after:
            rows += await _replay(service.mounts, wanted, last, seen)
            rows = sorted(rows, key=_time)[-last:] if last else []
        await exchange.part(rows)
        if follow:
            await _follow(exchange, service.mounts, wanted, feed, seen)
        return {"seq": seq}
    finally:
        stream.unsubscribe(token)


async def _replay(
    mounts: MountTable, wanted: _Wanted, last: int, seen: dict[str, int]
) -> list[Row]:
    """Past events of the mounted processes; notes in `seen` how far each one's go."""
    found: list[Row] = []

    async def ask(place: str, mount: SubtreeMount) -> None:
        call = mount.call("events", {**wanted.args_for(place), "last": last})
        rows: list[Row] = []
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                async for part in call:
                    rows += part
                reached = (await call.result()).get("seq")
        except (ControlFailed, TimeoutError):
            return  # a process that does not answer has no past to show; following retries
        finally:
            call.cancel()
        found.extend(rows_outward(place, rows))
        if isinstance(reached, int):
            seen[place] = reached

    async with asyncio.TaskGroup() as group:
        for place, mount in mounts.under(wanted.path):
            group.create_task(ask(place, mount))
    return found


def _time(row: Row) -> float:
    at = row.get("at")
    return at if isinstance(at, float) else 0.0


async def _follow(
    exchange: Exchange,
    mounts: MountTable,
    wanted: _Wanted,
    feed: Feed[Row],
    seen: dict[str, int],
) -> None:
    """Send what the feed gets, from here and from every mounted process, until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_follow_mounts(group, mounts, wanted, feed.offer, seen))
        while True:
            rows, lost = await feed.take(MAX_PART_ROWS)
            if lost:
                rows.append(_lost_row(exchange, wanted.path, lost))
            await exchange.part(rows)


def _lost_row(exchange: Exchange, path: str, lost: int) -> Row:
    event = Event("lost", path, 0, {"events": lost})
    history = exchange.system.events.history
    event.at = history[-1].at if history else 0.0  # what is said about events is dated by them
    return event_row(event)


async def _follow_mounts(
    group: asyncio.TaskGroup,
    mounts: MountTable,
    wanted: _Wanted,
    offer: Callable[[Row], None],
    seen: dict[str, int],
) -> None:
    """Keep one follower per mounted process, also for those that come later."""
    followed: dict[str, asyncio.Task[None]] = {}
    known: dict[str, SubtreeMount] = {}
    while True:
        for place, mount in mounts.under(wanted.path):
            task = followed.get(place)
            if task is not None and not task.done():
                continue
            if known.get(place, mount) is not mount:
                seen.pop(place, None)  # another process: it counts from the beginning
            known[place] = mount
            followed[place] = group.create_task(_follow_one(place, mount, wanted, offer, seen))
        await asyncio.sleep(LOOK_SECONDS)


async def _follow_one(
    place: str,
    mount: SubtreeMount,
    wanted: _Wanted,
    offer: Callable[[Row], None],
    seen: dict[str, int],
) -> None:
    args = {**wanted.args_for(place), "last": MAX_REPLAY, "after": seen.get(place, 0)}
    call = mount.call("events", {**args, "follow": True})
    try:
        async for part in call:
            for row in part:
                seq = row.get("seq")
                if isinstance(seq, int):
                    seen[place] = max(seen.get(place, 0), seq)
            for row in rows_outward(place, part):
                offer(row)
    except ControlFailed:
        return  # looked for again by the caller
    finally:
        call.cancel()


async def dead_letters(exchange: Exchange) -> Row:
    """`dead_letters`: args path, last. The last samples as rows, oldest first.

    Result: `total`, and `by_type`: counts by message type and cause, most frequent first.
    """
    args = exchange.args
    path = args.path(default=ROOT)
    last = args.integer("last", 50, least=0, most=MAX_REPLAY)
    args.finish()
    mount = mounted(exchange.service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    letters = exchange.system.dead_letters
    samples = [one for one in letters.samples if below(one.target, path)]
    await exchange.part(
        [
            {
                "at": one.at,
                "sender": one.sender,
                "target": one.target,
                "message_type": one.message_type,
                "why": one.why,
            }
            for one in (samples[-last:] if last else [])
        ]
    )
    return {
        "total": letters.total,
        "by_type": [
            {"message_type": name, "why": why, "count": count}
            for (name, why), count in letters.by_type.most_common(100)
        ],
    }
