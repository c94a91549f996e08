"""`trunkline inspect` as an operator uses it: a real tree, a real control socket, real keys."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from actors.admin.mounts import MountTable
from actors.admin.service import control_service, ops_spec
from actors.runtime import (
    Actor,
    ActorSystem,
    ChildSpec,
    DynamicSupervisor,
    Restart,
    Supervisor,
    handles,
)
from tests.conftest import eventually, run
from tools.inspector.app import InspectorApp
from tools.inspector.main import cli
from tools.inspector.reports import detail_lines, event_line
from tools.inspector.rows import Folds, Rates, age, amount, clip_middle, clip_start, widths
from tools.inspector.screens import consequence
from wire.admin.messages import Row


@dataclass(slots=True)
class Note:
    """Something to handle."""


class Worker(Actor):
    """Counts notes."""

    def __init__(self) -> None:
        self.notes = 0

    def describe(self) -> dict[str, object]:
        """For the detail pane."""
        return {"notes": self.notes}

    @handles(Note)
    def _note(self, _: Note) -> None:
        self.notes += 1


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="ti") as directory:
        yield Path(directory) / "c.sock"


def _tree(system: ActorSystem, socket: Path) -> Supervisor:
    service = control_service(system, MountTable())
    return Supervisor(
        [
            ChildSpec("alpha", Worker),
            ChildSpec("beta", Worker),
            ChildSpec("crowd", lambda: DynamicSupervisor(max_children=1000)),
            ops_spec(service, socket),
        ]
    )


@dataclass
class Rig:
    """A running node and an inspector that looks at it."""

    system: ActorSystem
    app: InspectorApp
    pilot: Pilot[None]

    def names(self) -> list[str]:
        """The first column, as shown."""
        table = self.table
        return [str(table.get_row_at(index)[0]).strip() for index in range(table.row_count)]

    @property
    def table(self) -> DataTable[object]:
        return self.app.screen_stack[0].query_one("#table", DataTable)

    def said(self, name: str) -> str:
        """What a pane shows."""
        return str(self.app.screen_stack[0].query_one(f"#{name}", Static).render())

    async def select(self, name: str) -> None:
        """Put the cursor on an actor."""
        await eventually(lambda: any(name in one for one in self.names()), what=f"row {name}")
        row = next(index for index, one in enumerate(self.names()) if name in one)
        self.table.move_cursor(row=row)
        await self.pilot.pause()

    def worker(self, path: str) -> Row:
        """Incarnation and state of an actor as the runtime knows them."""
        cell = self.system.find(path)
        assert cell is not None
        return {"incarnation": cell.incarnation, "suspended": cell.suspended}


@asynccontextmanager
async def _rig(socket: Path, *, readonly: bool = False) -> AsyncIterator[Rig]:
    system = ActorSystem("inspected")
    await system.start(lambda: _tree(system, socket))
    app = InspectorApp(socket, readonly=readonly, interval=0.5)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            rig = Rig(system, app, pilot)
            await eventually(lambda: "beta" in rig.names(), what="the first picture")
            yield rig
    finally:
        await system.stop()


def _check(socket: Path, test: Callable[[Rig], Coroutine[None, None, None]], **more: bool) -> None:
    async def main() -> None:
        async with _rig(socket, **more) as rig:
            await test(rig)

    run(main(), timeout=30.0)


def test_the_tree_appears_and_the_filter_narrows_it(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await eventually(lambda: "control" in rig.names())
        assert rig.names()[:3] == ["▾ /", "alpha", "beta"]
        await eventually(lambda: "inspected pid" in rig.said("status"))
        await rig.pilot.press("slash", *"alph", "enter")
        await eventually(lambda: rig.names() == ["▾ /", "alpha"])
        await eventually(lambda: 'filter "alph"' in rig.said("status"))
        await rig.pilot.press("escape")
        await eventually(lambda: "beta" in rig.names())

    _check(socket, test)


def test_kill_asks_first_and_shows_the_restart(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        before = rig.worker("/beta")["incarnation"]
        await rig.select("beta")
        await rig.pilot.press("k")
        question = str(rig.app.screen.query_one("#question", Static).render())
        assert question == "kill /beta ?"
        consequence = str(rig.app.screen.query_one("#consequence", Static).render())
        assert "Its supervisor starts it again." in consequence
        await rig.pilot.press("escape")
        await eventually(lambda: "/beta left alone" in rig.said("message"))
        assert rig.worker("/beta")["incarnation"] == before

        await rig.pilot.press("k", *"why", "enter")
        await eventually(lambda: rig.worker("/beta")["incarnation"] != before)
        assert "filter" not in rig.said("status")
        row = rig.names().index("beta")
        await eventually(lambda: str(rig.table.get_row_at(row)[6]).strip() == "1", what="restart")
        await eventually(lambda: "exited    /beta" in rig.said("events"))
        await eventually(lambda: "why" in rig.said("events"))
        await eventually(lambda: "kill /beta: done" in rig.said("message"))

    _check(socket, test)


def test_suspend_then_resume_with_the_same_key(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.select("alpha")
        row = rig.names().index("alpha")
        await rig.pilot.press("s", "enter")
        await eventually(lambda: str(rig.table.get_row_at(row)[1]) == "suspended")
        await rig.pilot.press("s")
        assert str(rig.app.screen.query_one("#question", Static).render()) == "resume /alpha ?"
        await rig.pilot.press("enter")
        await eventually(lambda: str(rig.table.get_row_at(row)[1]) == "running")

    _check(socket, test)


def test_a_refusal_is_told(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.select("▾ /")
        await rig.pilot.press("x", "enter")
        await eventually(lambda: "would end the whole node" in rig.said("message"))

    _check(socket, test)


def test_readonly_never_asks(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.select("alpha")
        for key in "kcsx":
            await rig.pilot.press(key)
            assert len(rig.app.screen_stack) == 1
            await eventually(lambda: "not with --readonly" in rig.said("message"))
        await eventually(lambda: "read-only" in rig.said("status"))

    _check(socket, test, readonly=True)


def test_a_crowd_is_folded_counted_and_paged(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        crowd = rig.system.ref("/crowd")
        assert crowd is not None
        for index in range(150):
            spec = ChildSpec(f"one{index:03}", Worker, restart=Restart.TEMPORARY)
            rig.system.start_child(crowd, spec)
        await eventually(lambda: "▸ crowd (150)" in rig.names(), what="the folded crowd")
        await rig.select("crowd")
        await rig.pilot.press("enter")
        await eventually(lambda: "one099" in rig.names())
        assert "one100" not in rig.names()
        sick = rig.system.ref("/crowd/one007")
        assert sick is not None
        rig.system.suspend(sick, initiator="test")
        await rig.select("50 more after")
        await rig.pilot.press("enter")
        await eventually(lambda: "one149" in rig.names())
        assert "100 more before: enter" in rig.names()
        await rig.select("crowd")
        await rig.pilot.press("enter")
        await eventually(
            lambda: any("crowd" in one and one.endswith("nded!)") for one in rig.names()),
            what="the folded crowd with its worst state",
        )

    _check(socket, test)


def test_details_are_refreshed(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.select("alpha")
        await rig.pilot.press("d")
        await eventually(lambda: "notes: 0" in rig.said("detail-text"))
        alpha = rig.system.ref("/alpha")
        assert alpha is not None
        for _ in range(3):
            alpha.tell(Note())
        await eventually(lambda: "notes: 3" in rig.said("detail-text"))

    _check(socket, test)


def test_top_view_sorts_and_help_opens(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        alpha = rig.system.ref("/alpha")
        assert alpha is not None
        rig.system.suspend(alpha, initiator="test")
        for _ in range(7):
            alpha.tell(Note())
        await rig.pilot.press("t", "greater_than_sign", "greater_than_sign", "greater_than_sign")
        await eventually(lambda: rig.names()[0] == "/alpha", what="the fullest mailbox on top")
        await eventually(lambda: "top by mail" in rig.said("status"), what="the sort order")
        await rig.pilot.press("question_mark")
        await eventually(lambda: len(rig.app.screen_stack) == 2, what="help")
        await rig.pilot.press("q")
        await eventually(lambda: len(rig.app.screen_stack) == 1, what="no help")

    _check(socket, test)


def test_what_comes_by_itself_on_the_way_out_breaks_nothing(socket: Path) -> None:
    """The widgets go before the timers and the connection do."""

    async def test(rig: Rig) -> None:
        await rig.app.screen_stack[0].query("*").remove()
        beta = rig.system.ref("/beta")
        assert beta is not None
        rig.system.kill(beta, initiator="test")  # an event and another picture follow
        await rig.pilot.pause(1.2)  # two intervals of what asks by itself

    _check(socket, test)


def test_frozen_means_nothing_moves(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.pilot.press("Z")
        await eventually(lambda: "FROZEN" in rig.said("status"), what="the freeze")
        before = rig.worker("/beta")["incarnation"]
        beta = rig.system.ref("/beta")
        assert beta is not None
        rig.system.kill(beta, initiator="test")
        await eventually(lambda: rig.worker("/beta")["incarnation"] != before)
        row = rig.names().index("beta")
        assert str(rig.table.get_row_at(row)[6]).strip() == "0"
        await rig.pilot.press("Z")
        await eventually(lambda: str(rig.table.get_row_at(row)[6]).strip() == "1")

    _check(socket, test)


def test_it_reconnects_to_a_daemon_that_came_back(socket: Path) -> None:
    async def main() -> None:
        async with _rig(socket) as rig:
            await rig.system.stop()
            await eventually(lambda: "disconnected, retrying" in rig.said("status"))
            again = ActorSystem("second")
            await again.start(lambda: _tree(again, socket))
            try:
                await eventually(lambda: "second pid" in rig.said("status"))
            finally:
                await again.stop()

    run(main(), timeout=30.0)


def test_it_survives_the_end_of_its_own_connection(socket: Path) -> None:
    async def test(rig: Rig) -> None:
        clients = rig.system.ref("/ops/clients")
        assert clients is not None
        rig.system.kill(clients, initiator="test")
        await eventually(lambda: "disconnected" in rig.said("status"))
        await eventually(lambda: "inspected pid" in rig.said("status"))
        await eventually(lambda: "exited    /ops/clients" in rig.said("events"))

    _check(socket, test)


# Pure parts.


@given(st.floats(min_value=0, max_value=1e18))
def test_amounts_fit_their_column(value: float) -> None:
    assert len(amount(value)) <= 4


@given(st.floats(min_value=0, max_value=86400 * 999))
def test_ages_fit_their_column(seconds: float) -> None:
    assert len(age(seconds)) <= 4


@given(st.text(max_size=60), st.integers(min_value=4, max_value=40))
def test_clipping_keeps_the_width(value: str, width: int) -> None:
    assert len(clip_middle(value, width)) <= width
    assert len(clip_start(value, width)) <= width


@pytest.mark.parametrize("total", [79, 100, 132, 200])
def test_columns_fit_the_terminal(total: int) -> None:
    assert sum(widths(total)) + len(widths(total)) <= total


def _row(path: str, incarnation: int, handled: int, **more: object) -> Row:
    return {"path": path, "incarnation": incarnation, "handled": handled, **more}


def test_rates_are_of_two_snapshots_of_one_incarnation() -> None:
    rates = Rates()
    rates.update(10.0, [_row("/a", 1, 100, busy_seconds=1.0, bytes_in=5)])
    assert rates.of("/a").messages == 0
    rates.update(12.0, [_row("/a", 1, 140, busy_seconds=2.0, bytes_in=1005)])
    assert rates.of("/a").messages == 20
    assert rates.of("/a").busy == 0.5
    assert rates.of("/a").moved == 500
    rates.update(13.0, [_row("/a", 2, 3)])
    assert rates.of("/a").messages == 0
    # Another daemon: its clock starts elsewhere.
    rates.update(1.0, [_row("/a", 2, 9)])
    assert rates.of("/a").messages == 0


def test_what_the_user_folded_stays_folded() -> None:
    folds = Folds()
    rows = [_row("/", 1, 0, children=2), _row("/a", 2, 0, children=3)]
    assert folds.learn(rows)
    folds.toggle("/a")
    assert not folds.learn(rows)
    assert "/a" not in folds.open
    folds.toggle("/a")
    assert "/a" in folds.open


def test_reports_of_odd_rows_are_still_lines() -> None:
    event: Row = {"kind": "exited", "path": "/a" * 99, "fields": {"reason": "x\ny"}}
    for width in (30, 80):
        line = event_line(event, width)
        assert "\n" not in line
        assert len(line) <= width
    assert event_line(event, 80).endswith("/a  x y")
    assert detail_lines({"path": "/a", "describe": {"nested": {"n": None}, "list": [1, 2.5]}})


def test_the_consequence_names_who_else_is_restarted() -> None:
    row = {"restart": "permanent", "children": 2}
    assert "after it are restarted" in consequence("kill", row, "rest_for_one")
    assert "2 children end with it" in consequence("kill", row)
    row = {"restart": "transient", "children": 0}
    assert "restarted with it" not in consequence("stop", row, "one_for_all")
    assert "end with it" not in consequence("suspend", row)


def test_help_needs_no_terminal() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    assert "--readonly" in result.stdout
