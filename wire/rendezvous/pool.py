"""A pool: connections that wait for users, and users that wait for connections. Sans-IO.

Both are served in the order they came, and there are never both: who finds somebody of the other
kind is paired at once. Members are used once. A user waits for a bounded time; one user more than
`most_users` is refused. The service is gone when it has had neither member nor pair for `grace`
seconds.

Source: protocol sheet rendezvous 1.3, 1.7 rows 6 to 10.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, Literal, TypeAlias, TypeVar

M = TypeVar("M")
U = TypeVar("U")


class Queued(Enum):
    """What becomes of somebody who is not paired at once."""

    WAITS = "waits"
    REFUSED = "refused"


#: Where to wait, or that there is no room to.
_Queued: TypeAlias = Literal[Queued.WAITS, Queued.REFUSED]


class Pool(Generic[M, U]):
    """A pool: connections that wait for users, and users that wait for connections.

    Args:
        most_members: idle connections; one more is refused.
        most_users: that wait.
        wait: seconds a user waits.
        grace: seconds without member, pair or waiting user until the service counts as gone.
        now: seconds of any clock that does not go back.
    """

    def __init__(
        self, *, most_members: int, most_users: int, wait: float, grace: float, now: float
    ) -> None:
        self._most_members = most_members
        self._most_users = most_users
        self._wait = wait
        self._grace = grace
        #: In the order they came; users with the time they give up.
        self._members: dict[M, None] = {}
        self._users: dict[U, float] = {}
        self._pairs = 0
        self._empty_since: float | None = now

    @property
    def members(self) -> int:
        """Idle connections of the service."""
        return len(self._members)

    @property
    def users(self) -> int:
        """Users that wait."""
        return len(self._users)

    def everybody(self) -> tuple[list[M], list[U]]:
        """Who is here and not paired."""
        return list(self._members), list(self._users)

    def member_came(self, member: M) -> U | _Queued:
        """One more connection of the service: the user it serves, if one waits."""
        self._empty_since = None
        if self._users:
            user = next(iter(self._users))
            del self._users[user]
            self._pairs += 1
            return user
        if len(self._members) >= self._most_members:
            return Queued.REFUSED
        self._members[member] = None
        return Queued.WAITS

    def user_came(self, user: U, now: float) -> M | _Queued:
        """A user: the member that serves it, if one is idle."""
        if self._members:
            member = next(iter(self._members))
            del self._members[member]
            self._pairs += 1
            return member
        if len(self._users) >= self._most_users:
            return Queued.REFUSED
        self._users[user] = now + self._wait
        return Queued.WAITS

    def member_left(self, member: M, now: float) -> bool:
        """An idle connection ended. False: it was not idle."""
        there = member in self._members
        self._members.pop(member, None)
        self._look(now)
        return there

    def user_left(self, user: U) -> bool:
        """A waiting user went. False: it did not wait."""
        return self._users.pop(user, None) is not None

    def pair_over(self, now: float) -> None:
        """A pair ended."""
        self._pairs -= 1
        self._look(now)

    def _look(self, now: float) -> None:
        if not self._members and not self._pairs and self._empty_since is None:
            self._empty_since = now

    def next_timer(self) -> float | None:
        """When `expire` wants to be called; None: never."""
        times = [next(iter(self._users.values()))] if self._users else []
        if self._empty_since is not None:
            times.append(self._empty_since + self._grace)
        return min(times, default=None)

    def expire(self, now: float) -> list[U]:
        """The users whose time is over; they are gone from here."""
        over: list[U] = []
        while self._users:
            user, until = next(iter(self._users.items()))
            if until > now:
                break
            del self._users[user]
            over.append(user)
        return over

    def gone(self, now: float) -> bool:
        """The service has nothing here, and had nothing for its grace."""
        since = self._empty_since
        return since is not None and now >= since + self._grace
