from __future__ import annotations

from collections.abc import Callable

import pytest

from wire.orp import reject
from wire.orp.frame import FrameReader
from wire.orp.limits import MAX_REASON_BYTES
from wire.orp.messages import StreamReject, decode

# Sheet 2.5: code, reason.
SHEET = [
    (reject.denied("rule-7"), 403, "denied: rule-7"),
    (reject.denied(reject.NO_MATCHING_RULE), 403, "denied: no matching rule"),
    (reject.denied(reject.NO_POLICY_SNAPSHOT), 403, "denied: no policy snapshot"),
    (reject.denied_callee("rule-7"), 403, "denied (callee): rule-7"),
    (reject.SERVICE_NOT_FOUND, 404, "service not found"),
    (reject.STREAM_ID_COLLISION, 409, "stream id collision"),
    (reject.INTER_RELAY_UNAVAILABLE, 502, "inter-relay forwarding unavailable"),
    (reject.PROVIDER_STREAM_OPEN_FAILED, 502, "provider stream open failed"),
    (
        reject.FORWARD_PROVIDER_UNAVAILABLE,
        502,
        "forward: provider control channel unavailable",
    ),
    (reject.PEER_RELAY_UNREACHABLE, 502, "peer relay unreachable"),
    (reject.PEER_RELAY_FORWARD_FAILED, 502, "peer relay forward failed"),
    (reject.PROVIDER_REJECTED, 503, "provider rejected"),
    (reject.provider_rejected(""), 503, "provider rejected"),
    (reject.provider_rejected("target refused"), 503, "provider rejected: target refused"),
    (reject.NO_LOCAL_PROVIDER, 503, "no local provider for forwarded stream"),
    (reject.PROVIDER_OPEN_FAILED, 502, "provider open failed"),
    (reject.NO_HANDLER, 404, "no handler"),
    (reject.backend_dial_failed("connection refused"), 502, "connection refused"),
]


@pytest.mark.parametrize("rejection, code, reason", SHEET, ids=[row[2] for row in SHEET])
def test_codes_and_reasons_are_those_of_the_sheet(
    rejection: StreamReject, code: int, reason: str
) -> None:
    reader = FrameReader()
    reader.feed(rejection.encode())
    (frame,) = reader
    assert decode(frame) == StreamReject(code, reason)


@pytest.mark.parametrize(
    "build",
    [reject.denied, reject.denied_callee, reject.backend_dial_failed, reject.provider_rejected],
)
@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "a" + "é" * 5000, "bad \udc80 byte"])
def test_a_text_from_elsewhere_always_fits(build: Callable[[str], StreamReject], text: str) -> None:
    rejection = build(text)
    assert rejection.encode()
    if len(text) > MAX_REASON_BYTES:
        # Cut as late as possible, never inside a character.
        assert MAX_REASON_BYTES - 1 <= len(rejection.reason.encode()) <= MAX_REASON_BYTES
        assert rejection.reason[-1] == text[-1]
    else:
        assert rejection.reason.endswith("bad ? byte")
