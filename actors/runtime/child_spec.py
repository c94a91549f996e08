"""What a supervisor needs to know about a child, and the check that it can work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2s
from math import inf
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from .errors import BadChildSpec
from .restart import Backoff

if TYPE_CHECKING:
    from .actor import Actor


class Restart(Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"  #: always
    TRANSIENT = "transient"  #: after an abnormal exit
    TEMPORARY = "temporary"  #: never


#: Shutdown deadlines beside a number of seconds.
KILL = 0.0  #: no graceful stop at all
UNBOUNDED = inf  #: as long as it takes, inside whatever deadline the whole node has

MAX_ID_LENGTH = 128
#: Characters that need no escape in an id, beside letters, digits and `_`.
_PLAIN = ":@~+=,;.!$&'()*[]-"
_LEGAL_ID = re.compile(rf"(?:[\w{re.escape(_PLAIN)}]|%[0-9A-F]{{2}})+", re.ASCII)


def escape_id(text: str) -> str:
    """Turn any text into a legal child id: percent-escapes and at most 128 characters.

    Texts that differ give ids that differ: what is too long ends in a hash of the whole text.
    """
    escaped = quote(text, safe=_PLAIN, errors="surrogatepass") or "%00"
    if len(escaped) <= MAX_ID_LENGTH:
        return escaped
    digest = blake2s(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    head = escaped[: MAX_ID_LENGTH - len(digest) - 1]
    cut = head.rfind("%", -2)  # never half an escape
    return f"{head if cut < 0 else head[:cut]}~{digest}"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start, restart and stop one child.

    Attributes:
        id: unique below its supervisor; the last segment of the path.
        factory: makes a fresh actor object for every incarnation; cheap, no I/O.
        restart: see `Restart`.
        shutdown: seconds between the stop request and the kill; `KILL`, `UNBOUNDED`; None
            means 5 s for a worker, `UNBOUNDED` for a supervisor.
        significant: its final exit ends the supervisor, when that has `auto_shutdown`.
        mailbox: what happens to queued messages at a restart: `drop` to dead letters, `keep`.
        start_timeout: seconds `init` may take.
        backoff: delays between restarts.
        kind: the word shown in the inspector; None means worker or supervisor.
    """

    id: str
    factory: Callable[[], Actor]
    restart: Restart = Restart.PERMANENT
    shutdown: float | None = None
    significant: bool = False
    mailbox: Literal["drop", "keep"] = "drop"
    start_timeout: float = 10.0
    backoff: Backoff = Backoff()  # noqa: RUF009  # frozen value
    kind: str | None = None

    def check(self) -> None:
        """Raise `BadChildSpec` when this spec can never work."""
        if len(self.id) > MAX_ID_LENGTH or not _LEGAL_ID.fullmatch(self.id):
            raise BadChildSpec(f"illegal child id {self.id!r}: use escape_id()")
        if self.shutdown is not None and self.shutdown < 0:
            raise BadChildSpec(f"child {self.id}: negative shutdown deadline")
        if self.start_timeout <= 0:
            raise BadChildSpec(f"child {self.id}: start_timeout must be positive")
        if self.significant and self.restart is Restart.PERMANENT:
            raise BadChildSpec(f"child {self.id}: a permanent child cannot be significant")
