"""What happened, line by line, for people; kept as values and written out only when somebody wants to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reconciler.values.instant import SECOND, Instant
from streams.simulation.schedule import Schedule


class Trace:
    """Collects what happened. Each line is a time, a word for who, and what; `{}` in it stand for the values."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._start = schedule.now
        self._lines: list[tuple[Instant, str, str, tuple[object, ...]]] = []

    def add(self, who: str, what: str, *values: object) -> None:
        """Adds a line."""
        self._lines.append((self._schedule.now, who, what, values))

    def lines(self, wanted: Callable[[str], bool] = lambda _line: True) -> Iterator[str]:
        """The lines as text, those that are wanted."""
        for instant, who, what, values in self._lines:
            line = f"{_elapsed(instant - self._start)} {who:<16} {what.format(*values)}"
            if wanted(line):
                yield line


def _elapsed(duration: int) -> str:
    seconds, rest = divmod(duration, SECOND)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest // 1000:03}"
