"""`trace`: which messages an actor handles, as they come. Types only, never payload.

Ends by itself, by count or by time; what a slow reader misses is counted as lost.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from actors.admin.feed import Feed
from actors.admin.mounts import ControlFailed
from actors.admin.places import forward, inward_args, local_cell, mounted
from actors.admin.session import Exchange
from actors.runtime import TraceRecord, inspection
from wire.admin.errors import ErrorCode
from wire.admin.limits import (
    MAX_PART_ROWS,
    MAX_TRACE_RATE,
    MAX_TRACE_RECORDS,
    MAX_TRACE_SECONDS,
)
from wire.admin.messages import Row

#: Records kept for a slow reader; the newest are dropped beyond.
FEED_BOUND = 1024
#: Actors a subtree trace may cover: attaching visits them in one go.
MAX_SUBTREE = 5000


async def trace(exchange: Exchange) -> Row:
    """`trace`: args path, limit, rate, seconds, subtree.

    At most `limit` records, at most `rate` a second, for at most `seconds`. With `subtree`: also
    the actors below, as they are when it begins. Result: `records`, `lost` and `skipped` (over
    the rate).
    """
    args = exchange.args
    path = args.path()
    limit = args.integer("limit", 1000, least=1, most=MAX_TRACE_RECORDS)
    rate = args.integer("rate", 100, least=1, most=MAX_TRACE_RATE)
    seconds = args.number("seconds", 60.0, least=0.0, most=MAX_TRACE_SECONDS)
    subtree = args.flag("subtree")
    args.finish()
    service = exchange.service
    mount = mounted(service, path)
    if mount is not None:
        return await forward(exchange, mount, inward_args(exchange, mount[0], path))
    cell = local_cell(service, path)
    if subtree:
        size = sum(1 for _ in islice(inspection.walk(cell), MAX_SUBTREE + 1))
        if size > MAX_SUBTREE:
            text = f"more than {MAX_SUBTREE} actors below {path}: trace a part of them"
            raise ControlFailed(ErrorCode.TOO_LARGE, text)
    feed: Feed[TraceRecord] = Feed(FEED_BOUND)
    tracer = exchange.system.trace(
        cell.ref, feed.offer, limit=limit, rate=rate, ttl=seconds, subtree=subtree
    )
    ends = exchange.system.loop.time() + seconds
    sent = 0
    try:
        while sent + feed.lost_total < limit:
            try:
                async with asyncio.timeout_at(ends):
                    records, _ = await feed.take(MAX_PART_ROWS)
            except TimeoutError:
                break
            sent += len(records)
            await exchange.part([_row(record) for record in records])
    finally:
        tracer.stop()
    return {"records": sent, "lost": feed.lost_total, "skipped": tracer.skipped}


def _row(record: TraceRecord) -> Row:
    return {
        "at": round(record.at, 6),
        "path": record.path,
        "incarnation": record.incarnation,
        "message_type": record.message_type,
        "depth": record.depth,
    }
