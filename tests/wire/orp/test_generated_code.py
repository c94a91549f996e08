from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import proto
from wire.orp import control_pb2, orp_pb2

# Sheet 4.1.
CONTROL_METHODS = {
    "Registry": {"RegisterService", "DeregisterAgent", "Resolve", "Watch", "UpsertRelay"},
    "Policy": {"AddPolicy", "RemovePolicy", "ListPolicies", "Watch"},
    "Audit": {"Record", "Query"},
}
SERVER_STREAMS = {"Registry.Watch", "Policy.Watch", "Audit.Query"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the protocol folder that may be damaged."""
    folder = tmp_path / proto.SOURCE_FOLDER / "orp"
    folder.mkdir(parents=True)
    for source in (proto.ROOT / proto.SOURCE_FOLDER / "orp").iterdir():
        if "_pb2" in source.name or source.suffix == ".proto":
            shutil.copy(source, folder)
    return tmp_path


def test_the_checked_in_code_is_current() -> None:
    assert proto.main(["--check"]) == 0


def test_stale_missing_and_left_over_files_fail_the_check_and_are_repaired(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkout / proto.SOURCE_FOLDER / "orp"
    (folder / "orp.proto").write_text(
        (folder / "orp.proto").read_text().replace("uint64 stream_id = 3;", "uint64 id = 3;")
    )
    (folder / "control_pb2.pyi").unlink()
    (folder / "gone_pb2.py").write_text("")
    expected = [
        "wire/orp/control_pb2.pyi",
        "wire/orp/gone_pb2.py",
        "wire/orp/orp_pb2.py",
        "wire/orp/orp_pb2.pyi",
    ]

    assert proto.main(["--check"], root=checkout) == 1
    assert capsys.readouterr().err == "".join(
        f"{path} is stale: run `make proto`\n" for path in expected
    )
    assert proto.main([], root=checkout) == 0
    assert capsys.readouterr().out.split() == expected
    assert proto.main(["--check"], root=checkout) == 0
    assert not (folder / "gone_pb2.py").exists()


def test_a_broken_source_is_reported(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (checkout / proto.SOURCE_FOLDER / "orp" / "orp.proto").write_text("syntax = 'proto9';")
    assert proto.main([], root=checkout) == 1
    assert "orp.proto" in capfd.readouterr().err


def test_packages_are_those_of_the_sheet() -> None:
    assert orp_pb2.DESCRIPTOR.package == "outrelay.orp.v1"
    assert control_pb2.DESCRIPTOR.package == "outrelay.control.v1"


def test_the_controller_services_are_those_of_the_sheet() -> None:
    services = control_pb2.DESCRIPTOR.services_by_name
    assert {name: set(service.methods_by_name) for name, service in services.items()} == (
        CONTROL_METHODS
    )
    streams = {
        f"{name}.{method.name}"
        for name, service in services.items()
        for method in service.methods
        if method.server_streaming
    }
    assert streams == SERVER_STREAMS


def test_policy_and_audit_messages_have_the_sheets_numbers() -> None:
    def numbers(name: str) -> dict[str, int]:
        fields = control_pb2.DESCRIPTOR.message_types_by_name[name].fields
        return {field.name: field.number for field in fields}

    assert numbers("PolicyRule") == {
        "id": 1,
        "tenant": 2,
        "caller_pattern": 3,
        "target_pattern": 4,
        "method_pattern": 5,
        "decision": 6,
        "expires_unix_ms": 7,
        "created_at_unix_ms": 8,
        "p2p_mode": 9,
        "relay_mode": 10,
    }
    assert numbers("Provider") == {
        "service_id": 1,
        "agent_uri": 2,
        "relay_id": 3,
        "local_addr": 4,
        "updated_at_unix_ms": 5,
        "relay_endpoint": 6,
    }
    assert numbers("AuditEvent") == {
        "ts_unix_ms": 1,
        "tenant": 2,
        "caller": 3,
        "target": 4,
        "method": 5,
        "decision": 6,
        "reason": 7,
        "stream_id": 8,
    }
    assert control_pb2.PolicyEvent.Kind.Value("POLICY_KIND_SNAPSHOT_END") == 3
    assert control_pb2.RelayMode.Value("RELAY_MODE_FORWARD") == 1
    assert control_pb2.P2PMode.Value("P2P_REQUIRED") == 2
