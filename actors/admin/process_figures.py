"""Figures of the operating-system process itself, for `stats`."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from wire.admin.messages import Row

#: Counting tasks copies the loop's set of them; over this many actors it would cost too much.
MAX_TASKS_COUNTED = 20_000
_PROC = Path("/proc/self")
_PAGE_BYTES = resource.getpagesize()


def process_figures(actors: int) -> Row:
    """pid, resident memory, descriptors, CPU seconds, and tasks unless there are too many.

    What this system does not tell is null.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pid": os.getpid(),
        "rss_bytes": _resident_bytes(),
        "descriptors": _descriptors(),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "tasks": len(asyncio.all_tasks()) if actors <= MAX_TASKS_COUNTED else None,
    }


def _resident_bytes() -> int | None:
    try:
        return int((_PROC / "statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _descriptors() -> int | None:
    try:
        return len(os.listdir(_PROC / "fd")) - 1  # one is the listing itself
    except OSError:
        return None
