"""A child process that is told what to do: one JSON line in, one JSON line out."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson


def say(answer: dict[str, Any]) -> None:
    """Answer the last line."""
    sys.stdout.write(orjson.dumps(answer).decode() + "\n")
    sys.stdout.flush()


async def hear() -> dict[str, Any]:
    """The next line; empty when there is none."""
    text = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    result: dict[str, Any] = orjson.loads(text) if text.strip() else {}
    return result
