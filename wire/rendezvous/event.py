"""An event service: users wait under ids that the service answers one by one. Sans-IO.

Source: protocol sheet rendezvous 1.3, 1.7 rows 4 to 6.
"""

from __future__ import annotations

from typing import Generic, TypeVar

U = TypeVar("U")


class Waiting(Generic[U]):
    """Users by id, until somebody answers or their time is over.

    Args:
        most: that wait; one more is refused.
        wait: seconds one waits.
    """

    def __init__(self, *, most: int, wait: float) -> None:
        self._most = most
        self._wait = wait
        self._users: dict[str, tuple[U, float]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def everybody(self) -> list[tuple[str, U]]:
        """Who waits."""
        return [(known, user) for known, (user, _) in self._users.items()]

    def user_came(self, known: str, user: U, now: float) -> bool:
        """A user waits under this id. False: too many do.

        Raises:
            KeyError: somebody waits under it.
        """
        if known in self._users:
            raise KeyError(known)
        if len(self._users) >= self._most:
            return False
        self._users[known] = user, now + self._wait
        return True

    def answered(self, known: str) -> U | None:
        """The user of this id, once; None: nobody waits under it."""
        found = self._users.pop(known, None)
        return None if found is None else found[0]

    def next_timer(self) -> float | None:
        """When `expire` wants to be called; None: never."""
        return next(iter(self._users.values()))[1] if self._users else None

    def expire(self, now: float) -> list[tuple[str, U]]:
        """Those whose time is over; they are gone from here."""
        over: list[tuple[str, U]] = []
        while self._users:
            known, (user, until) = next(iter(self._users.items()))
            if until > now:
                break
            del self._users[known]
            over.append((known, user))
        return over
