"""States of an actor's place in the tree, and which transitions exist.

Within one incarnation a state only moves right; RESTARTING is the gap between two
incarnations of one place. Suspended is a flag on RUNNING and DRAINING, not a state.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Ordered: a larger value is later in the life of an incarnation."""

    NEW = 0
    STARTING = 1
    RUNNING = 2
    DRAINING = 3
    STOPPING = 4
    RESTARTING = 5
    STOPPED = 6


#: Every legal transition; anything else is a bug in the runtime and asserted in tests.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPING}),
    State.RUNNING: frozenset({State.DRAINING, State.STOPPING}),
    State.DRAINING: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.RESTARTING, State.STOPPED}),
    State.RESTARTING: frozenset({State.STARTING, State.STOPPED}),
    State.STOPPED: frozenset(),
}
