"""Where the daemon's files are: state directory, control socket, store, development PKI.

The daemon and its command-line tools must agree on these without talking to each other; both ask
here. Reads the environment and looks whether directories exist; creates nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from config.schema import Settings

DEVELOPMENT_STATE = ".trunkline"
#: Longest path of a Unix socket on Linux: sizeof(sun_path) minus the terminating zero (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
IN_MEMORY = ":memory:"


class StatePaths(NamedTuple):
    """All absolute, except a database of `:memory:`."""

    state_directory: Path
    control_socket: Path
    #: What sqlite3.connect takes.
    database: str
    #: Development certificates (see actors/pki/dev_pki.py).
    pki_directory: Path


def state_paths(
    settings: Settings, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> StatePaths:
    """Resolve the paths of one node from its settings and surroundings."""
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    configured = settings.node.state_directory
    if configured is not None:
        state = cwd / configured
    else:
        state = _default_state(environ, cwd, development=settings.demo.enabled)
    socket = settings.node.control_socket
    database = settings.control.database
    if database is None:
        database_text = str(state / "control.db")
    elif str(database) == IN_MEMORY:
        database_text = IN_MEMORY
    else:
        database_text = str(cwd / database)
    return StatePaths(
        state_directory=state,
        control_socket=state / "control.sock" if socket is None else cwd / socket,
        database=database_text,
        pki_directory=state / "pki",
    )


def _default_state(environ: Mapping[str, str], cwd: Path, *, development: bool) -> Path:
    # systemd gives StateDirectory= as a colon-separated list; the first entry is ours.
    from_systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    local = cwd / DEVELOPMENT_STATE
    if development or local.is_dir():
        return local
    return _user_state(environ) / "trunkline"


def _user_state(environ: Mapping[str, str]) -> Path:
    # XDG Base Directory Specification: a relative value is invalid and must be ignored.
    given = Path(environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():
        return given
    return Path(environ.get("HOME") or "/") / ".local" / "state"


def find_control_socket(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Path:
    """The socket a command-line tool should try when it was not told one.

    Order: $TRUNKLINE_NODE__CONTROL_SOCKET, then the first existing of $STATE_DIRECTORY,
    ./.trunkline, the user's state directory and /var/lib/trunkline; when none exists, ./.trunkline
    (so that the error text names the development path).
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    explicit = environ.get("TRUNKLINE_NODE__CONTROL_SOCKET", "")
    if explicit:
        return cwd / explicit
    from_systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    candidates = [
        *([Path(from_systemd)] if from_systemd else []),
        *(
            [cwd / environ["TRUNKLINE_NODE__STATE_DIRECTORY"]]
            if environ.get("TRUNKLINE_NODE__STATE_DIRECTORY")
            else []
        ),
        cwd / DEVELOPMENT_STATE,
        _user_state(environ) / "trunkline",
        Path("/var/lib/trunkline"),
    ]
    for directory in candidates:
        socket = directory / "control.sock"
        try:
            if socket.exists():
                return socket
        except PermissionError:
            return socket  # whoever asks is told that it is another user's
    return cwd / DEVELOPMENT_STATE / "control.sock"
