"""What is wrong with a configuration, as data.

`ConfigError` carries every problem found, not just the first. A problem names its source (the file,
the environment variable or the flag), the dotted key, and what would be right; it never carries the
value of a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend."""

    #: The file's path, "environment NAME", "flag", "defaults" or "reload".
    source: str
    #: Dotted key, "" when the problem is not about one key (a file that does not parse).
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; the daemon exits with status 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))
