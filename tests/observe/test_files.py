"""The dump and the access log: real files, rotation, and places that cannot be written."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from actors.observe.lines import LineFile
from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.observe.tree import ObserveSettings, observe_spec
from actors.runtime import ActorSystem, Supervisor
from tests.conftest import eventually, run

RECORD = StreamRecord(
    1.5,
    "00000000000000ff",
    "r1",
    "acme",
    "a",
    "b",
    "web",
    "",
    "finished",
    "",
    "splice",
    0.1,
    1,
    2,
    0,
)


async def ready() -> dict[str, str]:
    return {}


@asynccontextmanager
async def observing(meters: Meters, settings: ObserveSettings) -> AsyncIterator[ActorSystem]:
    system = ActorSystem("test")
    spec = observe_spec(meters, ready, settings, bound=[])
    await system.start(lambda: Supervisor([spec]))
    try:
        yield system
    finally:
        await system.stop(timeout=5.0)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_snapshot_at_the_start_and_per_interval(tmp_path: Path) -> None:
    async def main() -> None:
        meters = Meters()
        path = tmp_path / "made" / "metrics.jsonl"
        async with observing(meters, ObserveSettings(dump=path, interval=0.05)) as system:
            await eventually(lambda: path.exists() and len(lines(path)) >= 1)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) & 0o007 == 0
            meters.counters["x"] += 1
            await eventually(lambda: lines(path)[-1]["counters"] == {"x": 1})
            # Rotated: it goes on in a new file.
            path.rename(tmp_path / "old")
            await eventually(path.exists)
            ref = system.ref("/observe/dump")
            assert ref is not None
            system.kill(ref, initiator="test")
            count = len(lines(path))
            await eventually(lambda: len(lines(path)) > count + 1)

    run(main())


def test_a_place_that_cannot_be_written_any_more_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        blocked = tmp_path / "place"
        path = blocked / "metrics.jsonl"
        access = blocked / "access.jsonl"
        meters = Meters()
        settings = ObserveSettings(dump=path, interval=0.05, access_log=access)
        async with observing(meters, settings) as system:
            log = system.ref("/observe/access")
            assert log is not None
            await eventually(path.exists)
            shutil.rmtree(blocked)
            blocked.write_text("not a directory")
            log.tell(RECORD)
            await eventually(lambda: meters.counters["access_log_lost_total"] == 1)
            blocked.unlink()
            await eventually(path.exists)
            log.tell(RECORD)
            await eventually(lambda: meters.counters["access_log_lines_total"] == 1)
            assert lines(access)[0]["stream_id"] == "00000000000000ff"

    run(main())


def test_every_record_is_written_once_and_before_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        meters, path = Meters(), tmp_path / "access.jsonl"
        async with observing(meters, ObserveSettings(access_log=path)) as system:
            log = system.ref("/observe/access")
            assert log is not None
            for number in range(3000):
                log.tell(replace(RECORD, stream_id=f"{number:016x}"))
        assert [line["stream_id"] for line in lines(path)] == [f"{n:016x}" for n in range(3000)]
        assert meters.counters["access_log_lines_total"] == 3000

    run(main())


def test_a_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    file, second = LineFile(path, 1000), LineFile(path, 1000)
    try:
        for n in range(100):
            (file if n % 3 else second).append(b"%099d\n" % n)
            assert path.stat().st_size <= 1000
    finally:
        file.abort()
        second.abort()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["access.jsonl", "access.jsonl.1"]
    kept = (tmp_path / "access.jsonl.1").read_text() + path.read_text()
    numbers = [int(line) for line in kept.splitlines()]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) > 10


def test_a_line_larger_than_the_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    file = LineFile(path, 10)
    file.append(b"x" * 100 + b"\n")
    file.append(b"y" * 100 + b"\n")
    file.abort()
    assert path.read_bytes()[:1] == b"y"
    assert (tmp_path / "dump.1").read_bytes()[:1] == b"x"
