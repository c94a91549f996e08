"""Checks of what callers of the served controller say.

Source: protocol sheet ORP 4.1; 6.2 R29.
"""

from __future__ import annotations

import grpc

from actors.controller.limits import MAX_TEXT


class Refused(Exception):
    """The status to answer with."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def bad_request(text: str) -> Refused:
    """The request itself is wrong; asking again does not help."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def exhausted(text: str) -> Refused:
    """A limit of this controller is reached."""
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def required(field: str, text: str, *, most: int = MAX_TEXT) -> str:
    """A text that must be there, with `most` characters. Raises `Refused`."""
    if not text:
        raise bad_request(f"{field} is required")
    if len(text) > most:
        raise bad_request(f"{field} has {len(text)} characters, at most {most} are allowed")
    if not text.isprintable():
        raise bad_request(f"{field} has characters that are not printable")
    return text
