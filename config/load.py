"""Build `Settings` from a TOML file, the environment and flags, later sources winning.

Precedence, low to high: schema default, TOML file, environment `TRUNKLINE_GROUP__KEY`, flags (a
dict of dotted keys). Every problem of every source is collected and reported together, naming
source, dotted key, what was found and what is allowed. Values of secrets are never repeated.

Relative paths in a file are relative to that file; in the environment and flags, to the working
directory. Only names with a double underscore are settings, so that variables others inject
(a Kubernetes service called trunkline gives TRUNKLINE_PORT=...) are left alone.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.errors import ConfigError, Problem
from config.fields import Kind, Setting, groups_table, settings_table
from config.paths import IN_MEMORY, MAX_SOCKET_PATH_BYTES, state_paths
from config.renamed import RENAMED, RENAMED_GROUPS, advice
from config.schema import Settings
from config.setting_types import TlsDoorRoom

ENVIRONMENT_PREFIX = "TRUNKLINE_"
#: Names the file when no --config is given.
ENVIRONMENT_FILE = "TRUNKLINE_CONFIG"
MAX_FILE_BYTES = 1024 * 1024
_SHOWN_CHARACTERS = 60


@dataclass(slots=True)
class _Gathered:
    """What the sources said so far: per key the winning value and who said it."""

    schema: type[Settings]
    values: dict[str, object] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    #: How a source called a setting, and the old names among that.
    spelled: dict[tuple[str, str], str] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)

    def put(self, source: str, key: str, value: object) -> None:
        self.values[key] = value
        self.origin[key] = source


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    check_files: bool = True,
    schema: type[Settings] = Settings,
    warn: Callable[[str], object] | None = None,
) -> Settings:
    """Read, merge and validate.

    Args:
        path: TOML file; None takes $TRUNKLINE_CONFIG, or no file at all.
        environ: environment to read; None means os.environ.
        flags: dotted key -> value; a None value means "flag not given".
        check_files: also require that the certificate and rule files named exist.
        schema: what there is to be set.
        warn: gets one sentence when settings are called by a name they had before.

    Raises:
        ConfigError: with every problem found; the text has one line per problem.
    """
    environ = os.environ if environ is None else environ
    if path is None and environ.get(ENVIRONMENT_FILE):
        path = Path(environ[ENVIRONMENT_FILE])
    gathered = _Gathered(schema)
    if path is not None:
        _from_file(path, gathered)
    _from_environment(environ, gathered)
    _from_flags(flags or {}, gathered)
    settings = _validated(gathered)
    if settings is not None:
        _check_surroundings(settings, environ, gathered, check_files=check_files)
    if gathered.problems or settings is None:
        raise ConfigError(gathered.problems)
    if gathered.renamed and warn is not None:
        warn(advice(gathered.renamed))
    return settings


# Sources -------------------------------------------------------------------------------------


def _from_file(path: Path, gathered: _Gathered) -> None:
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        tree = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        gathered.problems.append(Problem(source, "", f"cannot read: {error.strerror}"))
    except UnicodeDecodeError as error:
        gathered.problems.append(Problem(source, "", f"not UTF-8 at byte {error.start}"))
    except ValueError as error:  # tomllib.TOMLDecodeError names line and column
        gathered.problems.append(Problem(source, "", f"not valid TOML: {error}"))
    else:
        _from_tree(source, tree, "", path.absolute().parent, gathered)


def _from_tree(
    source: str, tree: dict[str, Any], prefix: str, directory: Path, gathered: _Gathered
) -> None:
    for name, value in tree.items():
        key = prefix + name
        if key in groups_table(gathered.schema) or key in RENAMED_GROUPS:
            if isinstance(value, dict):
                _from_tree(source, value, f"{key}.", directory, gathered)
            else:
                gathered.problems.append(
                    Problem(source, key, f"must be a table [{key}], not {_found(value)}")
                )
            continue
        setting = _known(source, key, gathered)
        if setting is None:
            continue
        if not _has_toml_type(setting, value):
            _refuse(source, setting, value, gathered)
            continue
        _put(source, setting, value, directory, gathered)


def _from_environment(environ: Mapping[str, str], gathered: _Gathered) -> None:
    for name in sorted(environ):
        upper = name.upper()
        if upper.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            key = upper.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _from_text(f"environment {name}", key, environ[name], gathered)


def _from_flags(flags: Mapping[str, object], gathered: _Gathered) -> None:
    for key, value in flags.items():
        if value is None:
            continue
        source = "flag"
        if isinstance(value, str):
            _from_text(source, key, value, gathered)
            continue
        setting = _known(source, key, gathered)
        if setting is not None:
            items = list(value) if isinstance(value, (tuple, set, frozenset)) else value
            _put(source, setting, items, Path.cwd(), gathered)


def _from_text(source: str, key: str, text: str, gathered: _Gathered) -> None:
    setting = _known(source, key, gathered)
    if setting is None:
        return
    value: object = text.strip()
    if setting.is_list or setting.kind is Kind.TABLE:
        try:
            value = (_list_from_text if setting.is_list else _table_from_text)(text.strip())
        except ValueError:
            _refuse(source, setting, "" if setting.kind is Kind.TABLE else text, gathered)
            return
    _put(source, setting, value, Path.cwd(), gathered)


def _list_from_text(text: str) -> list[object]:
    """A JSON array, or items separated by commas; empty text is the empty list.

    A leading `[` is JSON unless it is the bracket of an IPv6 address.
    """
    if text.startswith("[") and text.endswith("]"):
        items = json.loads(text)
        if not isinstance(items, list):
            raise ValueError("not a list")
        return items
    return [item.strip() for item in text.split(",") if item.strip()]


def _table_from_text(text: str) -> dict[str, object]:
    """A JSON object of texts; empty text is the empty table."""
    table = json.loads(text or "{}")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise ValueError("not a table of texts")
    return table


# Single values --------------------------------------------------------------------------------


def _known(source: str, key: str, gathered: _Gathered) -> Setting | None:
    setting = settings_table(gathered.schema).get(RENAMED.get(key, key))
    if setting is None:
        gathered.problems.append(Problem(source, key, _unknown_text(key, gathered.schema)))
        return None
    if key != setting.key:
        gathered.renamed.append(key)
    if gathered.spelled.setdefault((source, setting.key), key) != key:
        old = next(name for name, new in RENAMED.items() if new == setting.key)
        text = f"is set twice, as {old} as well; that is its old name"
        gathered.problems.append(Problem(source, setting.key, text))
        return None
    return setting


def _unknown_text(key: str, schema: type[Settings]) -> str:
    settings, groups = settings_table(schema), groups_table(schema)

    def below(group: str) -> list[str]:
        return [k for k in settings if k.startswith(f"{group}.")]

    if key in groups:
        return f"is a group; set one of its keys, such as {below(key)[0]}"
    close = difflib.get_close_matches(key, [*settings, *groups], n=1, cutoff=0.75)
    if close:
        return f"unknown setting; did you mean {close[0]}?"
    group = key.rpartition(".")[0]
    known = below(group) if group in groups else [k for k in groups if "." not in k]
    what = f"known in {group}" if group in groups else "known groups"
    return f"unknown setting; {what}: {', '.join(k.removeprefix(group + '.') for k in known)}"


def _refuse(source: str, setting: Setting, value: object, gathered: _Gathered) -> None:
    found = _found(value, secret=setting.kind is Kind.SECRET)
    gathered.problems.append(
        Problem(source, setting.key, f"must be {setting.allowed}; found {found}")
    )


def _has_toml_type(setting: Setting, value: object) -> bool:
    """TOML has types, so text is not a number there and a number is not a boolean."""
    if setting.is_list:
        return isinstance(value, list) and all(_has_scalar_type(setting, v) for v in value)
    return _has_scalar_type(setting, value)


def _has_scalar_type(setting: Setting, value: object) -> bool:
    if setting.kind is Kind.BOOLEAN:
        return isinstance(value, bool)
    if setting.kind is Kind.INTEGER:
        return isinstance(value, int) and not isinstance(value, bool)
    if setting.kind is Kind.NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if setting.kind is Kind.TABLE:
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    return isinstance(value, str)


def _put(
    source: str, setting: Setting, value: object, directory: Path, gathered: _Gathered
) -> None:
    """Record a value of the right outer shape, with choices and paths in their stored form."""
    if setting.kind is Kind.CHOICE and isinstance(value, str):
        # Levels and modes are recognised in any case, and stored as the schema spells them.
        folded = {choice.lower(): choice for choice in setting.choices}
        value = folded.get(value.lower(), value)
    elif setting.kind is Kind.PATH:
        items = value if isinstance(value, list) else [value]
        try:
            absolute = [_absolute(item, directory) for item in items]
        except ValueError as error:
            gathered.problems.append(Problem(source, setting.key, str(error)))
            return
        value = absolute if isinstance(value, list) else absolute[0]
    gathered.put(source, setting.key, value)


def _absolute(value: object, directory: Path) -> object:
    if not isinstance(value, (str, Path)) or str(value) in ("", IN_MEMORY):
        return value
    if "\0" in str(value):
        raise ValueError("must be a path; found a zero character in it")
    try:
        return str(directory / Path(value).expanduser())
    except RuntimeError:
        raise ValueError(f"{value}: there is no such user or home directory") from None


def _found(value: object, *, secret: bool = False) -> str:
    """The offending value's kind, and the value itself when it is short and no secret."""
    kinds: dict[type, str] = {
        bool: "the boolean",
        int: "the number",
        float: "the number",
        str: "the text",
        list: "a list",
        dict: "a table",
    }
    kind = kinds.get(type(value), f"a {type(value).__name__}")
    if secret or isinstance(value, (list, dict)):
        return kind
    shown = json.dumps(value, default=str)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}... ({len(shown)} characters)"
    return f"{kind} {shown}"


# Validation -----------------------------------------------------------------------------------


def _validated(gathered: _Gathered) -> Settings | None:
    tree: dict[str, Any] = {}
    for key, value in gathered.values.items():
        *groups, name = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    try:
        return gathered.schema.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # A list with bad items is also reported as too short; the items say it better.
        lists = {detail["loc"][:-1] for detail in details if isinstance(detail["loc"][-1], int)}
        for detail in details:
            if detail["loc"] not in lists:
                gathered.problems.append(_problem(detail, gathered))
        return None


def _problem(detail: Any, gathered: _Gathered) -> Problem:
    names = [part for part in detail["loc"] if isinstance(part, str)]
    positions = [part for part in detail["loc"] if isinstance(part, int)]
    key = ".".join(names)
    setting = settings_table(gathered.schema).get(key)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if setting is None:  # a rule between several settings of one group
        sources = {o for k, o in gathered.origin.items() if k.startswith(f"{key}.")}
        return Problem(", ".join(sorted(sources)) or "defaults", key, reason)
    found = _found(detail["input"], secret=setting.kind is Kind.SECRET)
    allowed = setting.allowed_item if positions else setting.allowed
    text = f"must be {allowed}; found {found}"
    if detail["type"] == "value_error":
        text += f" ({reason})"
    shown_key = key + "".join(f"[{p}]" for p in positions)
    return Problem(gathered.origin.get(key, "defaults"), shown_key, text)


def _check_surroundings(
    settings: Settings, environ: Mapping[str, str], gathered: _Gathered, *, check_files: bool
) -> None:
    """Rules that need more than the values themselves: the demo's exception, files, path length."""

    def complain(key: str, text: str) -> None:
        gathered.problems.append(Problem(gathered.origin.get(key, "defaults"), key, text))

    tls = settings.node.tls
    if tls.certificate is None and not settings.demo.enabled:
        complain(
            "node.tls",
            "certificate, key and ca are required; only the demo (--demo) makes its own "
            "development certificates",
        )
    paths = state_paths(settings, environ)
    length = len(os.fsencode(paths.control_socket))
    if length > MAX_SOCKET_PATH_BYTES:
        complain(
            "node.control_socket",
            f"the path has {length} bytes, a Unix socket allows {MAX_SOCKET_PATH_BYTES}; "
            "set a shorter node.control_socket or node.state_directory",
        )
    if not check_files:
        return
    named = [
        ("node.tls.certificate", tls.certificate),
        ("node.tls.key", tls.key),
        ("node.tls.ca", tls.ca),
        *_control_files(settings),
        *_door_files(settings),
        *(("control.policy.files", file) for file in settings.control.policy.files),
    ]
    for key, path in named:
        if path is None:
            continue
        if not path.is_file():
            complain(key, f"{path}: no such file")
        elif not os.access(path, os.R_OK):
            complain(key, f"{path}: not readable by this user")


def _door_files(settings: Settings) -> list[tuple[str, Path | None]]:
    return [
        (f"{name}.{key}", getattr(room, key))
        for name, room in settings
        if isinstance(room, TlsDoorRoom)
        for key in ("tls_certificate", "tls_key")
    ]


def _control_files(settings: Settings) -> list[tuple[str, Path | None]]:
    control = settings.control
    return [
        (f"{group}.{name}", getattr(files, name))
        for group, files in (("control.tls", control.tls), ("control.serve.tls", control.serve.tls))
        for name in ("certificate", "key", "ca")
    ]
