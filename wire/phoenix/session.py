"""One connection to a portal: join, init, heartbeats, and what ends it.

::

    relay                                    portal
    relay phx_join {"stamp_secret"}, ref 0 ->
                                          <- relay phx_reply {"status":"ok"}, ref 0
                                          <- relay init
    phoenix heartbeat, every 10 s         ->
                                          <- phoenix phx_reply

Text frames, JSON objects. What is not understood is skipped and counted: portals are newer than
relays.

Source: protocol sheet TURN 1.8.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final

#: Seconds between heartbeats; unanswered ones until the connection is dead.
HEARTBEAT: Final = 10.0
MOST_UNANSWERED: Final = 3
#: Seconds a join may take.
JOIN: Final = 5.0
TOPIC: Final = "relay"


class Verdict(Enum):
    """What becomes of the connection."""

    GO_ON = "go on"
    RECONNECT = "reconnect"
    FATAL = "fatal"


class PortalSession:
    """What a relay says and hears on one connection to a portal.

    Attributes:
        joined: the portal accepted us.
        initialised: it said that we may serve.
        verdict: GO_ON while the connection is of use; `why` says more.
        skipped: frames that were not understood.

    Args:
        stamp_secret: 64 hex digits; the portal makes our clients' passwords with it.
        now: monotonic seconds.
    """

    def __init__(self, stamp_secret: str, now: float) -> None:
        self.joined = self.initialised = False
        self.verdict = Verdict.GO_ON
        self.why = ""
        self.skipped = 0
        self._secret = stamp_secret
        self._ref = 0
        self._join_ref = -1
        self._join_until = now + JOIN
        self._beat_at = now + HEARTBEAT
        self._unanswered: set[int] = set()

    def __repr__(self) -> str:
        return f"PortalSession(joined={self.joined}, {self.verdict.value})"

    def begin(self) -> str:
        """The first frame."""
        self._join_ref = self._ref
        return self._frame(TOPIC, "phx_join", {"stamp_secret": self._secret})

    def _frame(self, topic: str, event: str, payload: dict[str, str]) -> str:
        ref, self._ref = self._ref, self._ref + 1
        body = {"topic": topic, "event": event, "payload": payload, "ref": ref}
        return json.dumps(body, separators=(",", ":"))

    def receive(self, text: str, now: float) -> list[str]:
        """A frame of the portal; what to send back."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            self.skipped += 1
            return []
        event, payload = frame.get("event"), frame.get("payload")
        if event == "phx_reply" and isinstance(payload, dict):
            return self._reply(frame.get("ref"), payload, now)
        if event == "init" and frame.get("topic") == TOPIC:
            self.initialised = True
        elif event == "phx_close":
            self._end(Verdict.RECONNECT, "the portal closed the channel")
        elif event == "disconnect":
            reason = payload.get("reason") if isinstance(payload, dict) else None
            fatal = reason == "token_expired"
            why = "the token is expired" if fatal else "the portal disconnected us"
            self._end(Verdict.FATAL if fatal else Verdict.RECONNECT, why)
        elif event != "phx_error":
            self.skipped += 1
        return []

    def _reply(self, ref: object, payload: dict[str, Any], now: float) -> list[str]:
        if isinstance(ref, int):
            self._unanswered.discard(ref)
        joining = ref == self._join_ref and not self.joined
        if payload.get("status") == "ok":
            self.joined = self.joined or joining
            return []
        response = payload.get("response")
        reason = response.get("reason") if isinstance(response, dict) else None
        if joining:
            self._end(Verdict.FATAL, f"the portal refused us: {str(reason)[:100]}")
        elif reason == "unmatched topic":  # it forgot us
            self.joined = False
            self._join_until = now + JOIN
            return [self.begin()]
        else:
            self.skipped += 1
        return []

    def timeout(self, now: float) -> list[str]:
        """What is due by now."""
        if not self.joined and now >= self._join_until:
            self._end(Verdict.RECONNECT, "the portal did not answer the join")
        elif now >= self._beat_at:
            if len(self._unanswered) >= MOST_UNANSWERED:
                self._end(Verdict.RECONNECT, "the portal does not answer heartbeats")
                return []
            self._beat_at = now + HEARTBEAT
            self._unanswered.add(self._ref)
            return [self._frame("phoenix", "heartbeat", {})]
        return []

    def next(self) -> float:
        """When to call `timeout`."""
        return self._beat_at if self.joined else min(self._beat_at, self._join_until)

    def _end(self, verdict: Verdict, why: str) -> None:
        self.verdict, self.why = verdict, why
