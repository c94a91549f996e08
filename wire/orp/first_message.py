"""The message that says what a data stream is for, and the application bytes behind it.

Source: protocol sheet ORP 2.5.
"""

from __future__ import annotations

from typing import TypeAlias

from wire.orp.frame import FrameReader
from wire.orp.limits import MAX_FIRST_FRAME_PAYLOAD_BYTES
from wire.orp.messages import Message, UnknownFrame, decode

#: What may come first on a stream; `UnknownFrame` when it is nothing we know.
FirstWord: TypeAlias = Message | UnknownFrame


class FirstMessageReader(FrameReader):
    """A `FrameReader` for the first message of a data stream, whose frames are small.

    Feed chunks until `next_message` gives one; what came behind it is `take_rest`'s.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(MAX_FIRST_FRAME_PAYLOAD_BYTES)

    def next_message(self) -> FirstWord | None:
        """The message, or None when more bytes are needed.

        Raises:
            FrameTooLarge: see `FrameReader.next_frame`.
            MalformedMessage: see `messages.decode`.
        """
        frame = self.next_frame()
        return None if frame is None else decode(frame)
