"""The runtime's own log lines are off in its tests: thousands of crashes are wanted there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log lines of the runtime; a test that reads them enables them again."""
    logger.disable("actors.runtime")
    yield
    logger.enable("actors.runtime")
