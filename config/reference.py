"""Write what the schema says for people: config/defaults.toml and docs/configuration.md.

`python -m config.reference --write` renews both, `--check` fails when one is not current (part of
`make check`). Rendering is pure; only `main` touches files.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from config.fields import Setting, groups_table, settings_table

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS_FILE = ROOT / "config" / "defaults.toml"
REFERENCE_FILE = ROOT / "docs" / "configuration.md"

_DEFAULTS_HEAD = """\
# Every setting of the daemon with its default. Generated from config/schema.py by `make docs`;
# the daemon does not read this file. Copy what you change into a file of your own and name it
# with `trunkline serve --config FILE` or $TRUNKLINE_CONFIG.
#
# Precedence, low to high: defaults, TOML file, environment, flags.
# Environment: TRUNKLINE_<GROUP>__<KEY>, for example TRUNKLINE_EDGE__LISTEN=0.0.0.0:7443
# [live] = a changed value takes effect on SIGHUP; everything else needs a restart.
"""

_REFERENCE_HEAD = """\
# Configuration

Generated from `config/schema.py` by `make docs`; edit the schema, not this page.

## Sources

Later sources win:

1. the defaults below (also in `config/defaults.toml`, commented)
2. one TOML file: `trunkline serve --config FILE`, or `$TRUNKLINE_CONFIG`
3. environment variables `TRUNKLINE_<GROUP>__<KEY>`, for example
   `TRUNKLINE_EDGE__LISTEN=0.0.0.0:7443,[::]:7443` (lists are separated by commas, or JSON)
4. flags: `--set edge.listen=0.0.0.0:7443` and the named flags of `trunkline serve --help`

Relative paths in a file are relative to that file; in the environment and in flags, to the working
directory. Unknown keys are errors. `trunkline serve --check` reads everything, reports every
problem with its source, key and allowed values, and starts nothing; the exit status is 2 when
there is a problem.

*Live* settings follow a SIGHUP. The others keep their value until the daemon is started again; the
log says which were ignored. Certificates and rule files are read again on every SIGHUP.
"""


def render_defaults() -> str:
    """The commented TOML file; parsing it yields exactly the schema's defaults."""
    lines = [_DEFAULTS_HEAD]
    group = ""
    for key, setting in settings_table().items():
        owner, _, name = key.rpartition(".")
        if owner != group:
            group = owner
            lines.append(f"\n[{owner}]\n# {groups_table()[owner]}\n")
        comment = f"{setting.description} Allowed: {setting.allowed}."
        if setting.is_live:
            comment += " [live]"
        wrapped = textwrap.wrap(
            comment, width=96, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        lines.append("\n" + "\n".join(wrapped) + f"\n{name} = {toml_value(setting.default)}\n")
    return "".join(lines)


def toml_value(value: object) -> str:
    """Text of a TOML value for the kinds a setting can have (TOML 1.0)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    if isinstance(value, dict):
        return "{}"  # only defaults are shown, and no table has one
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def render_reference() -> str:
    """The Markdown page."""
    parts = [_REFERENCE_HEAD]
    group = ""
    for key, setting in settings_table().items():
        owner = key.rpartition(".")[0]
        if owner != group:
            group = owner
            parts.append(
                f"\n## `[{owner}]`\n\n{groups_table()[owner]}\n\n"
                "| Key | Default | Allowed | Live | Meaning |\n|---|---|---|---|---|\n"
            )
        parts.append(_row(setting))
    return "".join(parts)


def _row(setting: Setting) -> str:
    cells = (
        f"`{setting.key.rpartition('.')[2]}`",
        f"`{toml_value(setting.default)}`",
        setting.allowed,
        "yes" if setting.is_live else "",
        setting.description,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def main(arguments: list[str]) -> int:
    """Returns 0, 1 when a file is not current, 2 on wrong usage."""
    wanted = {DEFAULTS_FILE: render_defaults(), REFERENCE_FILE: render_reference()}
    if arguments == ["--write"]:
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        stale = [
            path.relative_to(ROOT)
            for path, text in wanted.items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]
        for name in stale:
            sys.stderr.write(f"{name} is not current: run `make docs`\n")
        return 1 if stale else 0
    sys.stderr.write("usage: python -m config.reference --write | --check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
