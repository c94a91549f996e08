"""`trunkline bench rendezvous` measures every protocol; its figures are not judged here."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tools.bench.main import cli


@pytest.mark.soak
def test_every_protocol_is_measured() -> None:
    arguments = ["rendezvous", "--mib", "2", "--count", "40", "--idle", "4", "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)
    names = {row["what"].partition(":")[0] for row in rows}
    assert names == {"ours, multiplex", "ours, pool", "ours, event", "asyncio streams, plain"}
    assert all(row["value"] >= 0 for row in rows if row["unit"] != "KiB")
