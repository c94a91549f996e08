"""Reading the arguments of a request: types, ranges and unknown names, with precise messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wire.admin.errors import BadArguments
from wire.admin.limits import MAX_PATH_CHARACTERS


class Arguments:
    """Takes arguments out by name; `finish` refuses what nobody took.

    Every method raises `BadArguments` naming the argument, what is allowed and the type found.
    Values are not repeated in messages.
    """

    __slots__ = ("_left",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._left = dict(values)

    def text(self, name: str, default: str | None = None, *, most: int) -> str:
        """A string of at most `most` characters; required when `default` is None."""
        value = self._left.pop(name, default)
        if value is None:
            raise BadArguments(f"{name} is missing")
        if not isinstance(value, str):
            raise BadArguments(f"{name} must be text, not {type(value).__name__}")
        if len(value) > most:
            raise BadArguments(f"{name} has {len(value)} characters, limit {most}")
        return value

    def path(self, name: str = "path", default: str | None = None) -> str:
        """The path of an actor, normalised: absolute, no slash at the end."""
        value = self.text(name, default, most=MAX_PATH_CHARACTERS)
        if not value.startswith("/"):
            raise BadArguments(f"{name} must begin with /")
        return "/" + "/".join(segment for segment in value.split("/") if segment)

    def integer(self, name: str, default: int | None = None, *, least: int, most: int) -> int:
        """A whole number in a range."""
        value = self._left.pop(name, default)
        if type(value) is not int:
            raise BadArguments(f"{name} must be a whole number from {least} to {most}")
        if not least <= value <= most:
            raise BadArguments(f"{name} is {value}, allowed are {least} to {most}")
        return value

    def optional_integer(self, name: str, *, least: int, most: int) -> int | None:
        """As `integer`; None when absent or null."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self.integer(name, least=least, most=most)

    def number(
        self, name: str, default: float | None = None, *, least: float, most: float
    ) -> float:
        """A number in a range."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadArguments(f"{name} must be a number from {least:g} to {most:g}")
        if not least <= value <= most:
            raise BadArguments(f"{name} is {value:g}, allowed are {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise BadArguments(f"{name} must be true or false")
        return value

    def choice(self, name: str, default: str | None, allowed: Collection[str]) -> str:
        """One of a few words."""
        value = self._left.pop(name, default)
        if not isinstance(value, str) or value not in allowed:
            raise BadArguments(f"{name} must be one of: {', '.join(sorted(allowed))}")
        return value

    def offsets(self, name: str, *, most: int) -> dict[str, int]:
        """An object of paths and whole numbers, at most `most` of them; empty when absent."""
        value = self._left.pop(name, {})
        if not isinstance(value, dict) or len(value) > most:
            raise BadArguments(f"{name} must be an object of at most {most} paths")
        found: dict[str, int] = {}
        for path, offset in value.items():
            if not path.startswith("/") or len(path) > MAX_PATH_CHARACTERS:
                raise BadArguments(f"{name} must name absolute paths")
            if type(offset) is not int or offset < 0:
                raise BadArguments(f"{name} must give each path an offset from 0")
            found[path] = offset
        return found

    def finish(self) -> None:
        """Refuse arguments that no operation of this name takes."""
        if self._left:
            names = ", ".join(sorted(name[:40] for name in self._left)[:5])
            raise BadArguments(f"unknown argument: {names}")
