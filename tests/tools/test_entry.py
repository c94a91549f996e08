"""The console script: quick help, lazy subcommands, and clear words when something is missing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from tools import entry
from tools.entry import PROJECT_ROOT, SUBCOMMANDS, Subcommand, check_is_ours, load_command, main

HEAVY = ("aioquic", "textual", "cryptography", "pydantic", "aiohttp", "asyncio", "supervisor")


def _python(*arguments: str, cwd: Path = PROJECT_ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_help_lists_every_subcommand_and_imports_none() -> None:
    code = (
        "import sys\n"
        "from tools.entry import main\n"
        "try: main(['--help'])\n"
        "finally: print('HEAVY', [m for m in sys.argv[1:] if m in sys.modules])\n"
    )
    result = _python("-c", code, *HEAVY)
    assert result.returncode == 0, result.stderr
    for name, subcommand in SUBCOMMANDS.items():
        assert name in result.stdout
        assert subcommand.summary in result.stdout
    assert result.stdout.splitlines()[-1] == "HEAVY []"


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("trunkline 0.")


def test_an_unknown_subcommand_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["sevre"])
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.stderr


@pytest.mark.parametrize("name", list(SUBCOMMANDS))
def test_every_subcommand_has_help_of_its_own(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.stdout


def test_subcommands_run_through_the_group(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["pki", "init", "--out", str(tmp_path / "pki")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pki" / "ca.crt").is_file()


def test_a_missing_package_is_named_with_the_remedy() -> None:
    with pytest.raises(click.ClickException) as caught:
        load_command("watch", Subcommand("package_that_does_not_exist", "cli", ""))
    text = caught.value.format_message()
    assert "`trunkline watch` needs the module package_that_does_not_exist" in text
    assert "make install" in text


def test_something_that_is_no_command_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="is not a click command"):
        load_command("x", Subcommand("tools.entry", "PROJECT_ROOT", ""))


def test_a_foreign_supervisor_is_refused() -> None:
    foreign = ModuleType("supervisor")
    foreign.__file__ = "/site-packages/supervisor/__init__.py"
    with pytest.raises(click.ClickException) as caught:
        check_is_ours(foreign)
    text = caught.value.format_message()
    assert "/site-packages/supervisor/__init__.py" in text
    assert "pip uninstall supervisor" in text


def test_a_namespace_package_called_supervisor_is_refused() -> None:
    with pytest.raises(click.ClickException, match="found at None"):
        check_is_ours(ModuleType("supervisor"))


def test_our_supervisor_is_accepted() -> None:
    ours = ModuleType("supervisor")
    ours.__file__ = str(PROJECT_ROOT / "supervisor.py")
    check_is_ours(ours)


def test_the_shadowing_package_is_noticed_by_the_real_command(tmp_path: Path) -> None:
    package = tmp_path / "supervisor"
    package.mkdir()
    (package / "__init__.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom tools.entry import main\nmain()"
    )
    result = _python("-c", code, "serve", "--check")
    assert result.returncode == 1
    assert "The PyPI package `supervisor` hides it" in result.stderr


def test_the_composition_root_does_not_import_tools() -> None:
    """import-linter cannot see a single-file module, so this rule is checked here."""
    tree = ast.parse((PROJECT_ROOT / "supervisor.py").read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"tools", "tests"}


def test_python_supervisor_is_trunkline_serve() -> None:
    direct = _python("supervisor.py", "--help")
    through = _python("-m", "tools.entry", "serve", "--help")
    assert direct.returncode == through.returncode == 0, direct.stderr + through.stderr

    def options(text: str) -> str:
        return text.partition("\n")[2]

    assert options(direct.stdout) == options(through.stdout)
    assert entry.DISTRIBUTION in through.stdout
