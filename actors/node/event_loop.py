"""Which event loop the daemon runs on."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Literal


def loop_factory(
    choice: Literal["auto", "on", "off"],
) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory for `asyncio.Runner`; None means asyncio's own loop.

    Raises:
        ModuleNotFoundError: uvloop was asked for with `on` and is not installed.
    """
    if choice == "off":
        return None
    try:
        uvloop = importlib.import_module("uvloop")
    except ModuleNotFoundError:
        if choice == "on":
            raise
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
