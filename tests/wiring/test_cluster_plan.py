"""Every node of the demo cluster has a name of its own, in the place where it is looked for."""

from __future__ import annotations

from pathlib import Path

from actors.wiring.cluster import RELAYS, plan_cluster
from config.load import load


def test_nodes_of_a_cluster_have_names_of_their_own(tmp_path: Path) -> None:
    settings = load(flags={"demo.enabled": True, "demo.cluster": True}, environ={})
    pki = tmp_path / "pki"
    pki.mkdir(mode=0o700)
    cluster = plan_cluster(settings, pki, [])
    assert {name: plan.settings.node.id for name, plan in cluster.relays.items()} == {
        name: name for name in RELAYS
    }
    assert cluster.controller.node.id not in RELAYS
