"""Loading settings: precedence, kinds of values, and what a user is told when it is wrong."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.endpoint import Endpoint
from config.errors import ConfigError, Problem
from config.fields import settings_table
from config.load import MAX_FILE_BYTES, load
from config.renamed import RENAMED
from config.schema import Settings

DEMO = {"demo.enabled": True}


def _file(directory: Path, text: str) -> Path:
    path = directory / "trunkline.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _problems(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {}, flags=DEMO if flags is None else flags)
    return str(caught.value).splitlines()


def test_without_any_source_the_defaults_hold() -> None:
    settings = load(environ={}, flags=DEMO)
    assert settings.edge == Settings().edge
    assert settings.edge.listen == (Endpoint("127.0.0.1", 7443),)


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    path = _file(tmp_path, '[log]\nlevel = "ERROR"\nformat = "json"\n[node]\nregion = "eu"\n')
    environ = {"TRUNKLINE_LOG__LEVEL": "WARNING", "TRUNKLINE_NODE__REGION": "us"}
    settings = load(path, environ=environ, flags={**DEMO, "log.level": "debug"})
    assert settings.log.level == "DEBUG"
    assert settings.node.region == "us"
    assert settings.log.format == "json"


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    settings = load(environ={"TRUNKLINE_LOG__LEVEL": "ERROR"}, flags={**DEMO, "log.level": None})
    assert settings.log.level == "ERROR"


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "[demo]\nenabled = true\n")
    assert load(environ={"TRUNKLINE_CONFIG": str(path)}).demo.enabled


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.0.0.0:7443,[::]:7443", (Endpoint("0.0.0.0", 7443), Endpoint("::", 7443))),
        ('["relay.example:1", "[::1]:2"]', (Endpoint("relay.example", 1), Endpoint("::1", 2))),
        (" 127.0.0.1:0 ", (Endpoint("127.0.0.1", 0),)),
    ],
)
def test_lists_in_the_environment(text: str, expected: tuple[Endpoint, ...]) -> None:
    settings = load(environ={"TRUNKLINE_EDGE__LISTEN": text}, flags=DEMO)
    assert settings.edge.listen == expected


def test_an_empty_list_in_the_environment_replaces_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, '[edge]\ntenants = ["acme"]\n')
    assert load(path, environ={"TRUNKLINE_EDGE__TENANTS": ""}, flags=DEMO).edge.tenants == ()


def test_variables_without_double_underscore_are_not_ours() -> None:
    environ = {"TRUNKLINE_PORT": "tcp://10.0.0.1:7443", "TRUNKLINE_SERVICE_HOST": "10.0.0.1"}
    assert load(environ=environ, flags=DEMO).edge == Settings().edge


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    for name in ("relay.crt", "relay.key", "ca.crt", "rules.toml"):
        (tmp_path / name).touch()
    path = _file(
        tmp_path,
        '[node.tls]\ncertificate = "relay.crt"\nkey = "relay.key"\nca = "ca.crt"\n'
        '[control.policy]\nfiles = ["rules.toml"]\n',
    )
    settings = load(path, environ={})
    assert settings.node.tls.certificate == tmp_path / "relay.crt"
    assert settings.control.policy.files == (tmp_path / "rules.toml",)


def test_old_names_are_understood_with_one_warning(tmp_path: Path) -> None:
    for name in ("relay.crt", "relay.key", "ca.crt"):
        (tmp_path / name).touch()
    path = _file(
        tmp_path,
        '[edge]\nrelay_id = "r7"\nregion = "eu"\n'
        '[edge.tls]\ncertificate = "relay.crt"\nkey = "relay.key"\nca = "ca.crt"\n',
    )
    warnings: list[str] = []
    settings = load(
        path,
        environ={"TRUNKLINE_EDGE__REGION": "us"},
        flags={"edge.tls.key_log": "keys"},
        warn=warnings.append,
    )
    assert (settings.node.id, settings.node.region) == ("r7", "us")
    assert settings.node.tls.certificate == tmp_path / "relay.crt"
    assert settings.node.tls.key_log == Path.cwd() / "keys"
    (warning,) = warnings
    for old, new in RENAMED.items():
        assert f"{old} is {new}" in warning
    # Where both names are used the later source wins, whatever it calls it.
    settings = load(path, environ={"TRUNKLINE_NODE__REGION": "asia"}, flags=DEMO)
    assert settings.node.region == "asia"


def test_new_names_are_no_reason_to_warn(tmp_path: Path) -> None:
    warnings: list[str] = []
    load(_file(tmp_path, '[node]\nid = "r7"\n'), environ={}, flags=DEMO, warn=warnings.append)
    assert warnings == []


def test_both_names_in_one_source_are_refused(tmp_path: Path) -> None:
    for first, second in (("node", "edge"), ("edge", "node")):
        keys = {"node": '[node]\nid = "r1"\n', "edge": '[edge]\nrelay_id = "r2"\n'}
        path = _file(tmp_path, keys[first] + keys[second])
        (problem,) = _problems(path, environ={}, flags=DEMO)
        assert problem == (
            f"{path}: node.id: is set twice, as edge.relay_id as well; that is its old name"
        )


def test_paths_in_the_environment_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(environ={"TRUNKLINE_CONTROL__DATABASE": "state.db"}, flags=DEMO)
    assert settings.control.database == tmp_path / "state.db"


def test_every_problem_is_reported_with_source_and_key(tmp_path: Path) -> None:
    path = _file(tmp_path, '[node]\nidd = "x"\n[edge]\nmax_agents = "5"\n[log]\nlevel = "loud"\n')
    problems = _problems(path, environ={"TRUNKLINE_NODE__UVLOOP": "perhaps"})
    assert sorted(problems) == sorted(
        [
            f"{path}: node.idd: unknown setting; did you mean node.id?",
            f"{path}: edge.max_agents: must be a whole number, at least 1, at most 1000000; "
            'found the text "5"',
            f"{path}: log.level: must be one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL; "
            'found the text "loud"',
            "environment TRUNKLINE_NODE__UVLOOP: node.uvloop: must be one of auto, on, off; "
            'found the text "perhaps"',
        ]
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ("edge = 5", "edge: must be a table [edge], not the number 5"),
        ("[log]\nformat = true", "log.format: must be one of human, json; found the boolean true"),
        ("[control.policy]\nenforce = 1", "must be true or false; found the number 1"),
        ("[edge]\nhello_deadline_seconds = true", "must be a number, above 0"),
        ("[edge]\nhello_deadline_seconds = 0", "above 0, at most 86400; found the number 0"),
        ("[edge]\nhello_deadline_seconds = inf", "edge.hello_deadline_seconds: must be a number"),
        ("[edge]\nlisten = []", "edge.listen: must be a list, each host:port"),
        ('[edge]\nlisten = ["a:1", "::1:2"]', "edge.listen[1]: must be host:port"),
        ('[edge]\nlisten = ["::1:2"]', "an IPv6 address needs brackets"),
        ('[edge]\nlisten = ["a:1", "a:1"]', "edge: listen names the same address twice"),
        ('[node]\nid = "R1"', "must be a name (a-z, 0-9, -; at most 63)"),
        ("[edge]\nkeepalive_seconds = 6.0", "at most half of idle_timeout_seconds"),
        (
            "[edge]\nstream_window_bytes = 8388608\nconnection_window_bytes = 4194304",
            "must not be below stream_window_bytes",
        ),
        ("[edge]\nmax_pending_handshakes = 5", "must not exceed max_pending_handshakes"),
        ('[node.tls]\nkey = "k"', "node.tls: set all of certificate, key and ca; missing: cert"),
        ("[quux]\nport = 1", "quux: unknown setting; known groups: node, log, edge"),
        ("[log]\ncolour = 1", "log.colour: unknown setting; known in log: level, format"),
        ("[edge\n", "not valid TOML: "),
        ("x = 1\ny = ?\n", "line 2"),
    ],
)
def test_the_text_names_what_is_wrong_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    path = _file(tmp_path, text)
    problems = _problems(path)
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: ")
    assert said in problems[0]


def test_a_rule_between_settings_names_every_source_involved(tmp_path: Path) -> None:
    path = _file(tmp_path, "[edge]\nidle_timeout_seconds = 4.0\n")
    (problem,) = _problems(path, environ={"TRUNKLINE_EDGE__KEEPALIVE_SECONDS": "3"})
    assert problem.startswith(f"{path}, environment TRUNKLINE_EDGE__KEEPALIVE_SECONDS: edge: ")


def test_paths_may_start_with_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    settings = load(environ={}, flags={**DEMO, "node.state_directory": "~/state"})
    assert settings.node.state_directory == Path("/home/u/state")
    (problem,) = _problems(flags={**DEMO, "node.state_directory": "~nobody-here/x"})
    assert problem.endswith("~nobody-here/x: there is no such user or home directory")


def test_a_path_with_a_zero_character_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, '[node]\ncontrol_socket = "a\\u0000b"\n')
    (problem,) = _problems(path)
    assert problem == f"{path}: node.control_socket: must be a path; found a zero character in it"


def test_a_group_cannot_be_set_as_a_whole() -> None:
    (problem,) = _problems(flags={**DEMO, "node.tls": "x"})
    assert (
        problem == "flag: node.tls: is a group; set one of its keys, such as node.tls.certificate"
    )


def test_long_values_are_cut() -> None:
    (problem,) = _problems(flags={**DEMO, "log.level": "x" * 5000})
    assert len(problem) < 300
    assert "(5002 characters)" in problem


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert _problems(missing) == [f"{missing}: cannot read: No such file or directory"]
    assert _problems(tmp_path) == [f"{tmp_path}: cannot read: Is a directory"]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = '\xff'")
    assert _problems(binary) == [f"{binary}: not UTF-8 at byte 5"]
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert f"larger than {MAX_FILE_BYTES} bytes" in _problems(huge)[0]


def test_without_demo_the_relay_needs_certificates() -> None:
    (problem,) = _problems(flags={})
    assert problem.startswith("defaults: node.tls: certificate, key and ca are required")


def test_named_files_must_exist(tmp_path: Path) -> None:
    path = _file(tmp_path, '[control.policy]\nfiles = ["rules.toml"]\n')
    (problem,) = _problems(path)
    assert problem == f"{path}: control.policy.files: {tmp_path / 'rules.toml'}: no such file"
    assert load(path, environ={}, flags=DEMO, check_files=False).control.policy.files


def test_a_socket_path_the_kernel_refuses_is_found_early(tmp_path: Path) -> None:
    state = tmp_path / ("d" * 120)
    (problem,) = _problems(flags={**DEMO, "node.state_directory": str(state)})
    assert "a Unix socket allows 107" in problem


_TEXT = st.text(st.sampled_from(string.printable + "é\u2028\x00"), max_size=40)


def _loads_or_names_problems(
    path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> None:
    problems: tuple[Problem, ...] | None = None
    try:
        load(path, environ=environ, flags=flags)
    except ConfigError as error:
        problems = error.problems
    assert problems is None or problems


@given(key=st.sampled_from([*settings_table(), "edge", "nope", "log.x", ""]), text=_TEXT)
def test_any_text_either_loads_or_is_refused_with_a_problem(key: str, text: str) -> None:
    name = "TRUNKLINE_" + (key or "_").upper().replace(".", "__")
    _loads_or_names_problems(None, {name: text}, DEMO)
    _loads_or_names_problems(None, {}, {**DEMO, key: text})


@given(data=st.binary(max_size=200))
def test_any_file_either_loads_or_is_refused_with_a_problem(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)
    _loads_or_names_problems(path, {}, DEMO)


def test_the_forward_plane_takes_addresses_agents_can_use() -> None:
    settings = load(environ={}, flags=DEMO | {"edge.forward.listen": "0.0.0.0:9443"}).edge.forward
    assert settings.listen == Endpoint("0.0.0.0", 9443)
    assert settings.advertise is None
    for key, value, complaint in (
        ("edge.forward.listen", "relay.example:9443", "IP address"),
        ("edge.forward.advertise", "relay.example:9443", "IP address"),
        ("edge.forward.advertise", "0.0.0.0:9443", "wildcard"),
        ("edge.forward.advertise", "[::]:9443", "wildcard"),
    ):
        problems = _problems(flags=DEMO | {key: value})
        assert any(complaint in problem for problem in problems), (value, problems)


@pytest.mark.parametrize(
    "flags, complaint",
    [
        ({"control.backend": "grpc", "control.serve.enabled": "true"}, "needs backend = embedded"),
        ({"control.serve.listen": "0.0.0.0:7444"}, "not a loopback address"),
        ({"control.serve.listen": "controller.example:7444"}, "not a loopback address"),
        ({"control.serve.tls.certificate": "/c.pem"}, "missing: key, ca"),
        ({"control.tls.key": "/k.pem"}, "missing: certificate, ca"),
        ({"control.serve.operators": "alice"}, "control.serve.operators"),
        ({"control.tls.server_name": "-"}, "control.tls.server_name"),
    ],
)
def test_a_controller_that_cannot_be_meant_is_refused(
    flags: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ={}, flags={"demo.enabled": "true"} | flags, check_files=False)
    assert complaint in str(caught.value)


def test_a_controller_beyond_loopback_needs_tls_or_a_word() -> None:
    demo: dict[str, object] = {"demo.enabled": "true", "control.serve.listen": "[::]:7444"}
    files = {f"control.serve.tls.{name}": f"/{name}" for name in ("certificate", "key", "ca")}
    for more in (files, {"control.serve.plaintext_anywhere": "true"}):
        settings = load(None, environ={}, flags=demo | more, check_files=False)
        assert settings.control.serve.listen.port == 7444
