"""Lines as the reference reads them: one word between white space, ended by LF or the end.

The reference scans with Go's `Fscanln`: white space is Unicode's, a CR is white space, what is not
UTF-8 is part of a word, and words and ids are case sensitive.

Source: protocol sheet rendezvous 1.2.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from wire.errors import PeerError

#: White space of Go's fmt; LF ends the line before it gets here.
_SPACE: Final = (
    "\t\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_ID: Final = re.compile(r"[0-9A-F]{10}")
#: What asks for an id of one's own.
NEW: Final = "new"


class Protocol(Enum):
    """How users reach the service; the value is the word on the wire."""

    MULTIPLEX = "multiplex"
    POOL = "pool"
    EVENT = "event"


class BadLine(PeerError):
    """No word, or more than one, or none we know; `label` is one of few words, for counters."""

    def __init__(self, label: str) -> None:
        super().__init__(f"line: {label}", code=0, reason=label.replace("_", " "), label=label)


def word_of(line: bytes) -> str:
    """The one word of a line without its LF.

    Raises:
        BadLine: `empty` or `several_words`.
    """
    word = line.decode("utf-8", "replace").strip(_SPACE)
    if not word:
        raise BadLine("empty")
    if any(one in word for one in _SPACE):
        raise BadLine("several_words")
    return word


def protocol_of(line: bytes) -> Protocol:
    """The protocol a first line asks for.

    Raises:
        BadLine: it asks for none; `unknown_word` where the grammar is kept.
    """
    try:
        return Protocol(word_of(line))
    except ValueError:
        raise BadLine("unknown_word") from None


def id_of(line: bytes) -> str | None:
    """The id of a second line; None when it asks for a new one.

    Raises:
        BadLine: `not_an_id` for whatever can be none.
    """
    word = word_of(line)
    if word == NEW:
        return None
    if not _ID.fullmatch(word):
        raise BadLine("not_an_id")
    return word
