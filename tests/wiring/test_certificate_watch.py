"""Certificates that end soon are told of; a revocation list that changes is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from loguru import logger

from actors.observe.meters import Meters
from actors.pki.certificates import KeyPair, agent_identity, create_ca, create_leaf, relay_identity
from actors.pki.revocation_list import list_path, revoke
from actors.runtime import ActorSystem, Supervisor
from actors.transport.revocation import marks_of
from actors.transport.tls import TlsIdentity
from actors.wiring.certificate_watch import Watched, certificate_watch, tell_reloaded
from tests.conftest import eventually, run

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@asynccontextmanager
async def _running(watched: Callable[[], Watched]) -> AsyncIterator[ActorSystem]:
    system = ActorSystem("test")
    await system.start(lambda: Supervisor([certificate_watch(watched, Meters())]))
    try:
        yield system
    finally:
        await system.stop(timeout=10.0)


def _identity(ca: KeyPair, lifetime: timedelta) -> TlsIdentity:
    leaf = create_leaf(ca, relay_identity("eu", "r1"), lifetime=lifetime, now=NOW)
    return TlsIdentity((leaf.certificate,), (ca.certificate,), leaf.key)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(
        lambda line: found.append(str(line)), level="INFO", format="{level} {message}"
    )
    yield found
    logger.remove(sink)


def test_certificates_that_end_within_a_fortnight_are_told_of(lines: list[str]) -> None:
    ca = create_ca(NOW)
    soon, later = _identity(ca, 13 * DAY), _identity(ca, 30 * DAY)
    watched = Watched(later, {"turn": soon}, None)

    async def main() -> None:
        nonlocal watched
        async with _running(lambda: watched) as system:
            await eventually(lambda: lines)
            until = soon.chain[0].not_valid_after_utc
            when = f"{until:%Y-%m-%d %H:%M} UTC"
            assert f"WARNING the certificate of the turn door ends on {when}: renew" in lines[0]
            assert len(lines) == 1
            watched = Watched(soon, {}, None)
            tell_reloaded(system.ref("/certificates"))
            await eventually(lambda: len(lines) == 2)
            assert "the certificate of this relay ends on" in lines[1]

    run(main())


def test_a_list_is_used_when_it_changes_and_kept_when_it_is_damaged(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.wiring.certificate_watch.LOOK_SECONDS", 0.02)
    ca = create_ca(NOW)
    identity = _identity(ca, 30 * DAY)
    agent = create_leaf(ca, agent_identity("acme", UUID(int=1)), lifetime=DAY, now=NOW).certificate
    path, told = list_path(tmp_path), list[str]()
    revocations = identity.revocations
    revocations.watch(marks_of([agent]), lambda: told.append("ended"))

    async def main() -> None:
        async with _running(lambda: Watched(identity, {}, path, optional=True)):
            revoke(tmp_path, ca, [agent.serial_number], "superseded", NOW)
            await eventually(lambda: told == ["ended"])
            assert "INFO revocation list: 1 certificates; 1 connections ended" in "".join(lines)
            path.write_text("damaged")
            await eventually(lambda: any("damaged" in line for line in lines))
            assert revocations.revoked(marks_of([agent]))
            path.unlink()
            await eventually(lambda: not revocations.revoked(marks_of([agent])))

    run(main())
