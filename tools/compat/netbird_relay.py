"""`trunkline compat netbird-relay`: NetBird's relay, with its flags and environment.

Source: protocol sheet peer 8.1, appendix B.
"""

from __future__ import annotations

from typing import Final

from tools.compat.peer_relay import command

DEFAULTS: Final = {
    "listen-address": ":443",
    "exposed-address": "",
    "metrics-port": "9090",
    "letsencrypt-data-dir": "",
    "letsencrypt-domains": "",
    "letsencrypt-email": "",
    "letsencrypt-aws-route53": "",
    "tls-cert-file": "",
    "tls-key-file": "",
    "auth-secret": "",
    "log-level": "info",
    "log-file": "console",
    "health-listen-address": ":9000",
    "trusted-proxies": "",
    "enable-stun": "",
    "stun-ports": "",
    "stun-log-level": "info",
}

cli = command("netbird-relay", "NB", DEFAULTS, strict=True)
