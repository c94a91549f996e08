"""Certificates that end soon: a line at the start, at a reload and daily; and metrics."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from actors.node.logging import install, uninstall
from actors.observe.expiry import Dated, ExpiryWatch, LookAgain, show_first_end
from actors.observe.meters import Meters
from actors.runtime import ChildSpec, Supervisor
from actors.runtime.simulation import Simulation, run_simulation

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    install("INFO", "human", stream)
    yield stream
    uninstall()


def test_once_at_the_start_at_a_reload_and_every_day(log: io.StringIO) -> None:
    in_use = [
        Dated("the certificate web.crt", NOW + timedelta(days=14, hours=12)),
        Dated("the CA CN=ca", NOW + 300 * DAY),
    ]

    async def scenario(sim: Simulation) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        watch = ExpiryWatch(lambda: in_use, lambda: NOW + timedelta(seconds=loop.time() - began))
        system = sim.system()
        await system.start(lambda: Supervisor([ChildSpec("expiry", lambda: watch)]))

        def lines() -> int:
            return log.getvalue().count("WARNING")

        await asyncio.sleep(3600)
        assert lines() == 0  # more than 14 days are left
        await asyncio.sleep(86_400)
        assert "the certificate web.crt ends on 2030-01-15 12:00 UTC" in log.getvalue()
        assert lines() == 1
        await asyncio.sleep(3 * 86_400)
        assert lines() == 4
        ref = system.ref("/expiry")
        assert ref is not None
        in_use[1] = Dated("the CA CN=other", NOW)
        ref.tell(LookAgain())
        await asyncio.sleep(1)
        assert lines() == 6
        assert "the CA CN=other ended on 2030-01-01 00:00 UTC" in log.getvalue()
        in_use[:] = [Dated("the certificate web.crt", NOW + 900 * DAY)]
        await asyncio.sleep(2 * 86_400)
        assert lines() == 6  # renewed
        await system.stop()

    run_simulation(scenario, 1, limit=30 * 86_400.0)


def test_metrics_tell_what_is_left_of_the_first_that_ends() -> None:
    meters, now = Meters(), datetime.now(UTC)
    in_use = [Dated("a", now + DAY), Dated("b", now + 9 * DAY)]
    show_first_end(meters, lambda: in_use)
    assert 86_000 < meters.gauges["certificate_expires_seconds"]() <= 86_400
    in_use.append(Dated("c", now - DAY))
    assert -86_800 < meters.gauges["certificate_expires_seconds"]() <= -86_400
