"""`trunkline ctl` against a real node: what it prints, and the exit code it ends with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.admin.rig import Job, Node, Unknown, mounted_child, node
from tests.conftest import eventually, run
from tools.ctl import cli

ROOT = Path(__file__).resolve().parents[2]


async def ctl(one: Node, *args: str) -> Result:
    """Run a command as its own thread, while the node runs in this loop."""
    runner = CliRunner()
    return await asyncio.to_thread(runner.invoke, cli, ["--socket", str(one.socket), *args])


async def ctl_json(one: Node, *args: str) -> Any:
    """The JSON a successful command prints."""
    result = await ctl(one, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def with_node(test: Callable[[Node], Awaitable[None]]) -> None:
    """Run one test function against a fresh node."""

    async def main() -> None:
        async with node() as one:
            await test(one)

    run(main())


def _all(tree: dict[str, Any]) -> list[str]:
    return [tree["path"], *(path for child in tree["children"] for path in _all(child))]


def test_tree_as_json_is_every_actor_nested() -> None:
    async def test(one: Node) -> None:
        one.add("a", "b")
        tree = await ctl_json(one, "tree")
        assert tree["path"] == "/"
        assert [child["path"] for child in tree["children"]] == ["/app", "/pool", "/ops"]
        assert _all(tree["children"][1]) == ["/pool", "/pool/a", "/pool/b"]
        part = await ctl_json(one, "tree", "/", "--depth", "1")
        assert len(_all(part)) == 4
        assert part["children"][0]["child_count"] == 2
        found = await ctl_json(one, "tree", "--filter", "two")
        assert _all(found) == ["/", "/app", "/app/two"]

    with_node(test)


def test_tree_for_people_is_drawn() -> None:
    async def test(one: Node) -> None:
        one.add("a")
        one.system.suspend(one.ref("/app/two"))
        one.ref("/app/two").tell(Job())
        one.system.kill(one.ref("/app/one"))
        await one.ref("/app/one").started(timeout=5.0)
        lines = (await ctl(one, "tree")).stdout.splitlines()
        assert lines[0].startswith("/  Supervisor  running  one_for_one")
        assert lines[1].startswith("├─ app  Supervisor")
        assert lines[2].startswith("│  ├─ one  Worker  running  restarts 1  up ")
        assert lines[3].startswith("│  └─ two  Worker  SUSPENDED  mailbox 1/1024")
        assert lines[5].startswith("│  └─ a  Worker")
        assert lines[6].startswith("└─ ops")
        cut = (await ctl(one, "tree", "/", "--depth", "0")).stdout
        assert cut.rstrip().endswith("+3 children")

    with_node(test)


def test_a_process_that_does_not_answer_is_named() -> None:
    async def main() -> None:
        async with node() as one:
            async with mounted_child(one):
                tree = await ctl_json(one, "tree", "/pool/echo")
                assert _all(tree)[-1] == "/pool/echo/parent-link"
            result = await ctl(one, "tree", "/pool")
            assert result.exit_code == 0
            assert "/pool/echo: no control link" in result.stderr

    run(main())


def test_describe() -> None:
    async def test(one: Node) -> None:
        details = await ctl_json(one, "describe", "/app/one")
        assert (details["path"], details["describe"]["name"]) == ("/app/one", "one")
        lines = (await ctl(one, "describe", "/app/one")).stdout.splitlines()
        assert any(line.split() == ["class", "Worker"] for line in lines)
        assert "describe:" in lines

    with_node(test)


def test_verbs_act_and_say_on_what() -> None:
    async def test(one: Node) -> None:
        before = one.ref("/app/one").incarnation
        result = await ctl(one, "kill", "/app/one", "--reason", "drill")
        assert result.exit_code == 0
        assert result.stdout == f"kill /app/one: Worker, incarnation {before}, permanent\n"
        await eventually(lambda: one.ref("/app/one").incarnation > before)
        assert (await ctl_json(one, "suspend", "/app/two"))["path"] == "/app/two"
        assert (await ctl_json(one, "describe", "/app/two"))["state"] == "suspended"
        assert (await ctl(one, "resume", "/app/two")).exit_code == 0
        assert (await ctl(one, "crash", "/app/two")).exit_code == 0
        one.add("guest")
        assert (await ctl(one, "stop", "/pool/guest")).exit_code == 0
        await eventually(lambda: one.system.ref("/pool/guest") is None)
        assert (await ctl(one, "kill", "/ops/control", "--force")).exit_code == 0

    with_node(test)


@pytest.mark.parametrize(
    "args,code,words",
    [
        (["kill", "/nowhere"], 1, "no actor at /nowhere"),
        (["describe", "/nowhere"], 1, "no actor at /nowhere"),
        (["kill", "/"], 1, "--force"),
        (["resume", "/app/one"], 1, "cannot resume it now"),
        (["kill", "app"], 1, "path must begin with /"),
        (["tree", "--filter", "nothing"], 1, "matches 'nothing'"),
        (["events", "--no-follow", "/app/x", "--last", "9"], 0, ""),
        (["kill"], 2, "Missing argument"),
        (["tree", "--depth", "-1"], 2, "depth"),
        (["dance"], 2, "No such command"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(args: list[str], code: int, words: str) -> None:
    async def test(one: Node) -> None:
        result = await ctl(one, *args)
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert "Traceback" not in result.output

    with_node(test)


def test_without_a_daemon_the_socket_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "control.sock"
    result = CliRunner().invoke(cli, ["tree", "--socket", str(missing)])
    assert result.exit_code == 3
    assert str(missing) in result.stderr
    monkeypatch.setenv("TRUNKLINE_CONTROL_SOCKET", str(tmp_path / "other.sock"))
    result = CliRunner().invoke(cli, ["tree"])
    assert result.exit_code == 3
    assert "other.sock" in result.stderr


def test_something_else_on_the_socket_is_no_daemon() -> None:
    async def main() -> None:
        async with node() as one:
            path = one.socket.with_name("other.sock")

            async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"220 mail.example ESMTP\r\n")
                writer.close()

            server = await asyncio.start_unix_server(answer, str(path))
            result = await asyncio.to_thread(
                CliRunner().invoke, cli, ["stats", "--socket", str(path)]
            )
            assert result.exit_code == 3
            assert "not JSON" in result.stderr
            server.close()
            await server.wait_closed()

    run(main())


def test_events_end_after_a_count_a_time_or_the_past() -> None:
    async def test(one: Node) -> None:
        result = await ctl(one, "events", "/app/one", "--count", "1")
        assert result.stdout.split()[1:] == ["started", "/app/one", "Worker"]
        assert (await ctl(one, "events", "--last", "0", "--seconds", "0.05")).stdout == ""
        one.system.kill(one.ref("/app/one"), "drill", initiator="tester")
        await one.ref("/app/one").started(timeout=5.0)
        exited = await ctl(one, "events", "--kind", "exited", "--no-follow")
        assert "/app/one  restart: killed(drill), by tester, after " in exited.stdout
        past = await ctl(one, "events", "/app", "--no-follow", "--json")
        rows = [json.loads(line) for line in past.stdout.splitlines()]
        assert rows[-1]["path"] == "/app/one"

    with_node(test)


def test_trace_prints_types_and_a_summary() -> None:
    async def test(one: Node) -> None:
        running = asyncio.create_task(ctl(one, "trace", "/app/one", "--limit", "2"))
        cell = one.system.find("/app/one")
        assert cell is not None
        await eventually(lambda: cell.tracer is not None)
        cell.ref.tell(Job())
        cell.ref.tell(Job())
        result = await running
        assert [line.split()[1:3] for line in result.stdout.splitlines()] == [
            ["/app/one", "Job"]
        ] * 2
        assert "records 2" in result.stderr

    with_node(test)


def test_stats_and_dead_letters() -> None:
    async def test(one: Node) -> None:
        one.ref("/app/one").tell(Unknown())
        letters = await ctl_json(one, "dead-letters")
        assert letters["total"] == 1
        assert letters["samples"][0]["target"] == "/app/one"
        text = (await ctl(one, "dead-letters")).stdout
        assert text.startswith("1 dead letters\n         1  Unknown, unhandled\n")
        assert "outside -> /app/one: unhandled" in text
        stats = await ctl_json(one, "stats", "--classes")
        assert {"class", "actors"} <= set(stats["classes"][0])
        table = (await ctl(one, "stats", "--classes")).stdout
        assert any(line.split()[:2] == ["Worker", "2"] for line in table.splitlines())

    with_node(test)


def _process(one: Node, *args: str, **pipes: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.entry", "ctl", *args],
        cwd=ROOT,
        env={**os.environ, "TRUNKLINE_CONTROL_SOCKET": str(one.socket)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **pipes,
    )


def test_an_interrupted_follower_ends_quietly() -> None:
    async def test(one: Node) -> None:
        process = _process(one, "events", "--last", "1")
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert "started" in line
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.to_thread(process.communicate, timeout=10)
        assert (process.returncode, errors) == (0, "")

    with_node(test)


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    async def test(one: Node) -> None:
        one.add(*(str(number) for number in range(3000)))
        process = _process(one, "tree")
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)
        process.stdout.close()
        await asyncio.to_thread(process.wait, 10)
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()

    with_node(test)


def test_the_settings_file_of_the_daemon_says_where_it_is(tmp_path: Path) -> None:
    async def main(one: Node) -> None:
        settings = tmp_path / "trunkline.toml"
        settings.write_text(f'[node]\ncontrol_socket = "{one.socket}"\n[demo]\nenabled = true\n')
        found = await asyncio.to_thread(
            CliRunner().invoke, cli, ["--config", str(settings), "tree", "--depth", "0"]
        )
        assert found.exit_code == 0, found.output

    with_node(main)
    bad = tmp_path / "bad.toml"
    bad.write_text("[node]\nsocket = 1\n")
    refused = CliRunner().invoke(cli, ["--config", str(bad), "tree"])
    assert refused.exit_code == 2
    assert "node.socket: unknown setting" in refused.output


def test_a_socket_of_another_user_is_not_called_a_daemon_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    away = CliRunner().invoke(cli, ["--socket", str(path), "tree"])
    assert away.exit_code == 3
    assert "It was not stopped in order, or hangs." in away.output
    missing = CliRunner().invoke(cli, ["--socket", str(tmp_path / "none.sock"), "tree"])
    assert "Is it running?" in missing.output
    # Who runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda asked, *_, **__: Path(asked) != path)
    other = CliRunner().invoke(cli, ["--socket", str(path), "tree"])
    assert "It is running as another user" in other.output


def test_inspect_wants_a_terminal() -> None:
    command = [sys.executable, "-m", "tools.entry", "inspect"]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert piped.returncode == 2
    assert "inspect needs a terminal; for programs: trunkline ctl tree --json" in piped.stderr
