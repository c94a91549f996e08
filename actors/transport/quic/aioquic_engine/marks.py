"""What has to be done about which streams."""

from __future__ import annotations


class Marks:
    """Stream ids by what has to be done about them, in the order of marking."""

    __slots__ = ("acknowledged", "finished", "ready")

    def __init__(self) -> None:
        #: May have something to send, or may be finished.
        self.ready: dict[int, None] = {}
        #: Had bytes acknowledged since the engine's user last asked.
        self.acknowledged: dict[int, None] = {}
        #: Our half is over and acknowledged, since the same.
        self.finished: dict[int, None] = {}
