"""SIGHUP: what changes now, what waits for a restart, and what is in force afterwards."""

from __future__ import annotations

from typing import Any

from config.reload import plan_reload
from config.schema import Settings


def _settings(**groups: Any) -> Settings:
    return Settings.model_validate(groups)


def test_nothing_changed() -> None:
    plan = plan_reload(Settings(), Settings())
    assert plan.live == plan.needs_restart == ()
    assert plan.settings == Settings()


def test_live_keys_take_effect_and_others_keep_their_value() -> None:
    old = _settings()
    new = _settings(
        log={"level": "DEBUG"},
        node={"region": "eu"},
        edge={"listen": ["0.0.0.0:1", "[::]:1"]},
        control={"policy": {"files": ["/etc/rules.toml"]}},
    )
    plan = plan_reload(old, new)
    assert [str(c) for c in plan.live] == [
        "log.level: INFO -> DEBUG",
        "control.policy.files: [] -> [/etc/rules.toml]",
    ]
    assert [str(c) for c in plan.needs_restart] == [
        "node.region: local -> eu",
        "edge.listen: [127.0.0.1:7443] -> [0.0.0.0:1, [::]:1]",
    ]
    assert plan.settings.log.level == "DEBUG"
    assert plan.settings.control.policy.files == new.control.policy.files
    assert plan.settings.edge == old.edge


def test_certificates_may_move() -> None:
    tls = {"certificate": "/a/c", "key": "/a/k", "ca": "/a/ca"}
    old = _settings(node={"tls": tls})
    new = _settings(node={"tls": {**tls, "certificate": "/b/c", "key": "/b/k"}})
    plan = plan_reload(old, new)
    assert [c.key for c in plan.live] == ["node.tls.certificate", "node.tls.key"]
    assert plan.settings == new


def test_unset_values_are_readable() -> None:
    plan = plan_reload(_settings(), _settings(edge={"advertise": "relay.example:7443"}))
    assert [str(c) for c in plan.needs_restart] == [
        "edge.advertise: (not set) -> relay.example:7443"
    ]
