"""The form of a story: an opening of a few sentences, then sections of lines, in JSON and as Markdown.

The opening carries no ids and no jargon. The lines are written so that they are true before, while and after the work is
done; only the titles of the sections change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from reconciler.records import Record

T = TypeVar("T")

LINES_TOLD: Final = 10
"""How many lines of a section are told; the rest is counted. The whole is in the plan."""

SectionKey: TypeAlias = Literal[
    "about",  # whose work, when, who asked, why
    "changes",  # what is put back
    "effects",  # what can't be taken back and is made good instead
    "open",  # what isn't done, and why
    "decisions",  # what others changed meanwhile and a person must decide
    "conflicts",  # what others changed meanwhile and the rules have decided
    "kept",  # what stays, and for whose sake
    "blocked",  # what can't be undone
    "next",  # what to do next
    "notes",
]

_ORDER: Final[tuple[SectionKey, ...]] = (
    *("open", "about", "changes", "effects", "decisions", "kept", "conflicts", "blocked", "next", "notes"),
)

# What Markdown would take for its own: signs of emphasis, code, links, tags and references.
_SIGNS: Final = re.compile(r"[\\`*\[\]<>~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


class Section(Record, frozen=True, kw_only=True):
    """Lines under a title. ``more`` counts those that were folded away."""

    key: SectionKey
    title: str
    lines: list[str]
    more: int = 0


class Story(Record, frozen=True, kw_only=True):
    """An account for people. ``counts`` are the numbers that it speaks of."""

    opening: str = ""
    sections: list[Section] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)

    def section(self, key: SectionKey) -> Section | None:
        """The section of a kind, if there is one."""
        return next((section for section in self.sections if section.key == key), None)


def section(key: SectionKey, title: str, items: Iterable[T], line: Callable[[T], str]) -> Section | None:
    """A section with a line for each item, folded; None where there is nothing to tell."""
    items = list(items)
    # A line "and one more" would take as much room as the line itself.
    told = items if len(items) <= LINES_TOLD + 1 else items[:LINES_TOLD]
    return Section(key=key, title=title, lines=list(map(line, told)), more=len(items) - len(told)) if items else None


def lines(key: SectionKey, title: str, told: Iterable[str]) -> Section | None:
    """A section of few lines."""
    return section(key, title, told, str)


def story(opening: Iterable[str], sections: Iterable[Section | None], counts: dict[str, int]) -> Story:
    """A story with its sections in the order in which people want to read them."""
    there = {item.key: item for item in sections if item is not None}
    ordered = [there[key] for key in _ORDER if key in there]
    return Story(opening=" ".join(part for part in opening if part), sections=ordered, counts=counts)


def markdown(told: Story) -> str:
    """The story in Markdown. What it quotes of other people's texts can't become markup."""
    parts = [_escaped(told.opening)]
    for item in told.sections:
        told_lines = [f"- {_escaped(line)}" for line in item.lines]
        if item.more:
            told_lines.append(f"- … and {item.more:,} more")
        parts.append("\n".join([f"**{item.title}**", "", *told_lines]))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    return _SIGNS.sub(lambda sign: "\\" + sign.group(), text)
