"""`trunkline ctl policy` and `audit`: by the control socket, and by gRPC to a controller."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from actors.admin.mounts import MountTable
from actors.admin.service import control_service, ops_spec
from actors.control.messages import Decide
from actors.control.operator_commands import OperatorCommands
from actors.control.store.embedded import embedded_backend
from actors.control.tree import control_plane, control_spec
from actors.controller.server import ServerSettings
from actors.controller.tree import controller_spec
from actors.runtime import ActorSystem, Supervisor
from tests.conftest import eventually, run
from tests.controller.rig import free_port
from tools.ctl import cli
from tools.ctl_policy import rule_line
from tools.go_duration import parse_duration_ms

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\n")
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@dataclass(slots=True)
class Daemon:
    """Control actors with a control socket and a served controller."""

    system: ActorSystem
    where: dict[str, list[str]]
    rules: Path

    async def ctl(self, *args: str, way: str = "socket") -> Result:
        runner = CliRunner()
        socket = self.where["socket"]
        more = self.where["controller"] if way == "controller" else []
        return await asyncio.to_thread(runner.invoke, cli, [*socket, *args, *more])

    async def ok(self, *args: str, way: str = "socket") -> str:
        result = await self.ctl(*args, way=way)
        assert result.exit_code == 0, result.output
        return result.stdout


@asynccontextmanager
async def daemon() -> AsyncIterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="tl-"))  # a socket's path must be short
    rules, port = directory / "rules.toml", free_port()
    rules.write_text("")
    system = ActorSystem("test", seed=1)
    socket = directory / "s"
    children = [
        control_spec(
            embedded_backend(":memory:"),
            relay_id="r1",
            policy_files=[rules],
            more=(controller_spec(port, ServerSettings()),),
        ),
        ops_spec(
            control_service(system, MountTable(), OperatorCommands(system).commands()), socket
        ),
    ]
    await system.start(lambda: Supervisor(children))
    where = {"socket": ["--socket", str(socket)], "controller": ["--controller", str(port)]}
    await eventually(lambda: _listening(system), what="the controller listens")
    try:
        yield Daemon(system, where, rules)
    finally:
        await system.stop(timeout=10.0)
        shutil.rmtree(directory)


def _listening(system: ActorSystem) -> bool:
    cell = system.find("/control/controller/server")
    return cell is not None and cell.actor is not None and bool(cell.actor.describe()["listening"])


ADD = ("policy", "add", "--tenant", "acme", "--caller", "*")


@pytest.mark.parametrize("way", ["socket", "controller"])
def test_add_list_remove(way: str) -> None:
    async def main() -> None:
        async with daemon() as one:
            first = await one.ok(*ADD, "--target", "web", "--decision", "allow", way=way)
            assert UUID.fullmatch(first)
            second = await one.ok(
                *ADD,
                *("--target", "d*", "--decision", "deny", "--method", 'GET "x"', "--expires", "1h"),
                *("--p2p-mode", "P2P_REQUIRED", "--relay-mode", "relay_mode_forward"),
                way=way,
            )
            listed = await one.ok("policy", "list", "--tenant", "acme", way=way)
            lines = listed.splitlines()
            assert lines[0] == (
                f'{first.strip()}\t* -> web (allow)\tmethod=""'
                "\tp2p=allowed\trelay=splice\texpires=-"
            )
            assert re.fullmatch(
                rf'{second.strip()}\t\* -> d\* \(deny\)\tmethod="GET \\"x\\""\tp2p=required'
                rf"\trelay=forward\texpires={RFC3339}",
                lines[1],
            )
            rows = await one.ok("policy", "list", "--tenant", "acme", "--json", way=way)
            assert [json.loads(row)["target"] for row in rows.splitlines()] == ["web", "d*"]
            remove = ("policy", "remove", "--tenant", "acme", "--id", first.strip())
            assert await one.ok(*remove, way=way) == "removed\n"
            again = await one.ctl(*remove, way=way)
            assert again.exit_code == 1
            assert "no rule" in again.stderr
            left = await one.ok("policy", "list", "--tenant", "acme", way=way)
            assert left.splitlines() == lines[1:]
            assert await one.ok("policy", "list", "--tenant", "other", way=way) == ""

    run(main())


@pytest.mark.parametrize("way", ["socket", "controller"])
def test_audit_query(way: str) -> None:
    async def main() -> None:
        async with daemon() as one:
            policy = control_plane(one.system).policy
            await one.ok(*ADD, "--target", "web", "--decision", "allow", "--id", "r-1")
            for target in ("web", "db", "web"):
                await policy.ask(Decide("acme", "u1", target, "GET"), timeout=5)
            query = ("audit", "query", "--tenant", "acme")
            lines = (await one.ok(*query, way=way)).splitlines()
            assert len(lines) == 3
            assert re.fullmatch(rf'{RFC3339}\tallow\tu1 -> web "GET"\tr-1', lines[0])
            assert re.fullmatch(rf'{RFC3339}\tdeny\tu1 -> db "GET"\tno matching rule', lines[1])
            assert len((await one.ok(*query, "--limit", "1", way=way)).splitlines()) == 1
            assert len((await one.ok(*query, "--target", "db", way=way)).splitlines()) == 1
            assert await one.ok(*query, "--caller", "u2", way=way) == ""
            assert len((await one.ok(*query, "--since", "1h", way=way)).splitlines()) == 3
            row = json.loads(await one.ok(*query, "--json", "--limit", "1", way=way))
            assert (row["decision"], row["reason"], row["target"]) == ("allow", "r-1", "web")

    run(main())


@pytest.mark.parametrize("way", ["socket", "controller"])
def test_what_is_refused_ends_with_one_and_says_why(way: str) -> None:
    async def main() -> None:
        async with daemon() as one:
            await one.ok(*ADD, "--target", "web", "--decision", "allow", "--id", "r-1")
            twice = await one.ctl(
                *ADD, "--target", "web", "--decision", "allow", "--id", "r-1", way=way
            )
            assert twice.exit_code == 1
            assert "r-1" in twice.stderr
            empty = await one.ctl(*ADD, "--target", "", "--decision", "allow", way=way)
            assert empty.exit_code == 1
            assert "must not be empty" in empty.stderr

    run(main())


def test_rules_of_files_are_listed_and_read_again() -> None:
    async def main() -> None:
        async with daemon() as one:
            one.rules.write_text(
                '[[rule]]\nid = "f1"\ntenant = "acme"\ncaller = "*"\ntarget = "web"\n'
                'decision = "allow"\n'
            )
            assert await one.ok("policy", "reload") == "1 rules from files, 0 from the store\n"
            (line,) = (await one.ok("policy", "list")).splitlines()
            assert line.startswith("f1\t* -> web (allow)\t")
            assert line.endswith("\tsource=file")
            one.rules.write_text("[[rule]\n")
            broken = await one.ctl("policy", "reload")
            assert broken.exit_code == 1
            assert "rules.toml" in broken.stderr
            assert len((await one.ok("policy", "list")).splitlines()) == 1

    run(main())


@pytest.mark.parametrize(
    "args",
    [
        (*ADD, "--target", "web"),
        (*ADD, "--target", "web", "--decision", "perhaps"),
        (*ADD, "--target", "web", "--decision", "allow", "--expires", "tomorrow"),
        (*ADD, "--target", "web", "--decision", "allow", "--p2p-mode", "never"),
        ("policy", "remove", "--tenant", "acme"),
        ("policy", "list", "--controller", "127.0.0.1:1"),
        ("policy", "list", "--tenant", "acme", "--controller", "nowhere"),
        ("policy", "list", "--tenant", "acme", "--cert", "c", "--key", "k"),
        ("audit", "query"),
    ],
)
def test_usage_errors_end_with_two(args: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, args).exit_code == 2


def test_a_controller_that_is_not_there_ends_with_one() -> None:
    args = ("policy", "list", "--tenant", "acme", "--controller", str(free_port()))
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 1
    assert "UNAVAILABLE" in result.stderr


@pytest.mark.parametrize(
    "text, milliseconds",
    [
        ("0", 0),
        ("0s", 0),
        ("300ms", 300),
        ("1.5h", 5_400_000),
        ("1h30m", 5_400_000),
        (".5s", 500),
        ("1h2m3s4ms", 3_723_004),
        ("999us", 0),
        ("24h", 86_400_000),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@given(st.text(alphabet="0123456789.hmsnuµ -x", max_size=12))
def test_anything_is_a_duration_or_refused(text: str) -> None:
    try:
        milliseconds = parse_duration_ms(text)
    except ValueError:
        return
    assert milliseconds >= 0


def test_nothing_a_rule_holds_reaches_the_terminal_as_it_is() -> None:
    line = rule_line({"id": "a\x1b[31m\n", "method": "\x1b]0;x\x07", "expires_ms": 2**62})
    assert all(one.isprintable() or one == "\t" for one in line)
