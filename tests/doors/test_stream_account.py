"""What is told of a stream: once, however its actor ended, and where it goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.doors.stream_account import StreamAccount, access_log
from actors.observe.meters import Meters
from actors.observe.records import StreamRecord
from actors.runtime import Actor, ActorSystem, ChildSpec, MailboxSpec, Restart, Supervisor, handles
from tests.conftest import eventually, run

RECORD = StreamRecord(0.0, "", "r1", "", "", "", "", "", "", "", "splice", 0.0, 0, 0, 0)


class _Account(StreamAccount):
    told: list[tuple[str, float]]

    def tell(self, seconds: float) -> None:
        self.told.append((self.outcome, seconds))


class _Owner(Actor):
    """Owns an account; fails when it is told to."""

    def __init__(self, account: _Account) -> None:
        self._account = account

    def init(self) -> None:
        self.own(self._account, "account")

    @handles(str)
    def _fail(self, why: str) -> None:
        raise RuntimeError(why)


class _Log(Actor):
    """An access log with room for one."""

    mailbox = MailboxSpec(bound=1)

    def __init__(self, records: list[StreamRecord]) -> None:
        self._records = records

    @handles(StreamRecord)
    def _take(self, record: StreamRecord) -> None:
        self._records.append(record)


@pytest.mark.parametrize("way", ["crash", "kill", "stop"])
def test_it_is_told_once_however_the_actor_ends(way: str) -> None:
    async def main() -> None:
        system = ActorSystem()
        account = _Account(lambda: 107.5, 100.0)
        account.told = []
        spec = ChildSpec("owner", lambda: _Owner(account), restart=Restart.TEMPORARY)
        await system.start(lambda: Supervisor([spec]))
        try:
            ref = system.ref("/owner")
            assert ref is not None
            if way == "crash":
                ref.tell("on purpose")
            elif way == "kill":
                system.kill(ref)
            else:
                account.outcome = "finished"
                await system.stop()
            await eventually(lambda: bool(account.told))
            account.abort()
            assert account.told == [("finished" if way == "stop" else "killed", 7.5)]
        finally:
            await system.stop()

    run(main())


def test_records_go_to_the_log_and_those_it_has_no_room_for_are_counted() -> None:
    async def main() -> None:
        system, meters, records = ActorSystem(), Meters(), list[StreamRecord]()
        tell = access_log(system, "/log", meters)
        tell(RECORD)  # it is not there yet
        assert meters.counters["access_log_lost_total"] == 1
        spec = ChildSpec("log", lambda: _Log(records))
        await system.start(lambda: Supervisor([spec]))
        try:
            for number in range(3):  # nothing is handled before the loop runs
                tell(replace(RECORD, returns=number))
            await eventually(lambda: bool(records))
            assert records == [replace(RECORD, returns=0)]
            assert meters.counters["access_log_lost_total"] == 3
        finally:
            await system.stop()

    run(main())


def test_without_a_log_nothing_is_lost() -> None:
    async def main() -> None:
        system, meters = ActorSystem(), Meters()
        access_log(system, "", meters)(RECORD)
        assert "access_log_lost_total" not in meters.counters

    run(main())
