"""Descriptors 0, 1 and 2 belong to the standard streams, also in a process started without them.

Else the first sockets get their numbers, and whatever is printed (or inherited by a child as its
stderr) goes to a peer.
"""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Put /dev/null wherever one is closed. Call it before anything else is opened."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    # Python found them closed, or could not use them.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for good
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # for good
