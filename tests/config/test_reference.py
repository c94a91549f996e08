"""The generated default file and reference page are current and say what the schema says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from config import reference
from config.fields import Kind, groups_table, settings_table
from config.load import load
from config.schema import Settings


def test_generated_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "DEFAULTS_FILE", tmp_path / "defaults.toml")
    monkeypatch.setattr(reference, "REFERENCE_FILE", tmp_path / "configuration.md")
    assert reference.main(["--check"]) == 1
    assert "configuration.md is not current" in capsys.readouterr().err
    assert reference.main(["--write"]) == 0
    assert reference.main(["--check"]) == 0
    assert reference.main(["--huh"]) == 2


def test_the_default_file_is_the_defaults() -> None:
    settings = load(
        reference.DEFAULTS_FILE, environ={}, flags={"demo.enabled": True}, check_files=False
    )
    assert settings == Settings.model_validate({"demo": {"enabled": True}})


def test_the_default_file_names_every_setting_with_its_default() -> None:
    tree = tomllib.loads(reference.DEFAULTS_FILE.read_text(encoding="utf-8"))
    assert tree == Settings().model_dump(mode="json") | _without_nulls(tree)
    for key, setting in settings_table().items():
        node = tree
        *groups, name = key.split(".")
        for group in groups:
            node = node[group]
        assert node[name] == setting.default


def _without_nulls(tree: dict[str, object]) -> dict[str, object]:
    """TOML has no null; "" stands for it."""
    return {name: tree[name] for name in Settings.model_fields}


def test_every_setting_is_described_and_has_a_unit_in_its_name() -> None:
    for key, setting in settings_table().items():
        assert setting.description.endswith((".", ")")), key
        name = key.rpartition(".")[2]
        if setting.kind is Kind.NUMBER:
            assert name.endswith("_seconds") or "_per_second" in name, key
        if setting.kind is Kind.INTEGER:
            assert name.endswith("_bytes") or name.startswith("max_"), key
        assert f"`{name}`" in reference.render_reference()
    assert all(groups_table().values())


def test_toml_texts_are_escaped() -> None:
    value = 'a "quoted" \\ path'
    assert tomllib.loads(f"x = {reference.toml_value(value)}") == {"x": value}
