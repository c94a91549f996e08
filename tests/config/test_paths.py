"""Daemon and tools find the same state directory, socket, store and PKI."""

from __future__ import annotations

from pathlib import Path

from config.paths import find_control_socket, state_paths
from config.schema import Settings

DEMO = Settings.model_validate({"demo": {"enabled": True}})


def test_the_demo_keeps_its_state_below_the_working_directory(tmp_path: Path) -> None:
    paths = state_paths(DEMO, {}, tmp_path)
    assert paths.state_directory == tmp_path / ".trunkline"
    assert paths.control_socket == tmp_path / ".trunkline/control.sock"
    assert paths.database == str(tmp_path / ".trunkline/control.db")
    assert paths.pki_directory == tmp_path / ".trunkline/pki"


def test_systemd_comes_before_everything_that_is_not_configured(tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/trunkline:/var/lib/other", "HOME": "/home/u"}
    assert state_paths(DEMO, environ, tmp_path).state_directory == Path("/var/lib/trunkline")


def test_without_the_demo_the_xdg_state_directory_is_used(tmp_path: Path) -> None:
    home = {"HOME": "/home/u"}
    expected = Path("/home/u/.local/state/trunkline")
    assert state_paths(Settings(), home, tmp_path).state_directory == expected
    xdg = {"HOME": "/home/u", "XDG_STATE_HOME": "/state"}
    assert state_paths(Settings(), xdg, tmp_path).state_directory == Path("/state/trunkline")
    relative = {"HOME": "/home/u", "XDG_STATE_HOME": "state"}
    assert state_paths(Settings(), relative, tmp_path).state_directory == expected


def test_an_existing_development_state_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".trunkline").mkdir()
    assert state_paths(Settings(), {}, tmp_path).state_directory == tmp_path / ".trunkline"


def test_configured_paths_win(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "node": {"state_directory": "s", "control_socket": "/run/c.sock"},
            "control": {"database": ":memory:"},
        }
    )
    paths = state_paths(settings, {"STATE_DIRECTORY": "/x"}, tmp_path)
    assert paths.state_directory == tmp_path / "s"
    assert paths.control_socket == Path("/run/c.sock")
    assert paths.database == ":memory:"


def test_a_tool_finds_the_socket_that_exists(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    work = tmp_path / "work"
    work.mkdir()
    assert find_control_socket(environ, work) == work / ".trunkline/control.sock"
    user = tmp_path / "xdg/trunkline/control.sock"
    user.parent.mkdir(parents=True)
    user.touch()
    assert find_control_socket(environ, work) == user
    local = work / ".trunkline/control.sock"
    local.parent.mkdir()
    local.touch()
    assert find_control_socket(environ, work) == local
    service = tmp_path / "service/control.sock"
    service.parent.mkdir()
    service.touch()
    environ["TRUNKLINE_NODE__STATE_DIRECTORY"] = str(service.parent)
    assert find_control_socket(environ, work) == service
    environ["TRUNKLINE_NODE__CONTROL_SOCKET"] = "named.sock"
    assert find_control_socket(environ, work) == work / "named.sock"
