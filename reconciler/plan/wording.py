"""How people call things: records and fields by the labels of their contracts, values and instants as one reads them aloud.

Everything that a person reads about a plan or a rollback is put into words here, so the same fact gives the same text
wherever it is told, and the values of sensitive fields are told nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from reconciler.contracts.masking import MASK, is_masked
from reconciler.contracts.model import Contract, ContractSet
from reconciler.records import Action
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant, parse_instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import path_of, tokens_of
from reconciler.values.resource_key import parse_resource_key

LONGEST_TEXT: Final = 60  # characters of a text that a person reads within a sentence
_MEMBERS_TOLD: Final = 3  # of a list or a group of fields, within a sentence
_NUMBERS: Final = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_BELOW: Final = " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} "
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}")
_WORDS: Final = re.compile(r"[_\s]+|(?<=[A-Za-z])-(?=[A-Za-z])|(?<=[a-z0-9])(?=[A-Z])")
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class Wording:
    """Names by the contracts of an estate."""

    def __init__(self, contracts: ContractSet) -> None:
        self._contracts = contracts

    def contract(self, resource: str) -> Contract:
        """The contract of a resource."""
        return self._contracts.for_resource(resource)

    def record(self, resource: str) -> str:
        """A resource: `contact 42 in crm`."""
        key = parse_resource_key(resource)
        label = self.contract(resource).labels.get("resource") or in_words(key.type)
        return f"{one_line(label)} {one_line(key.id)} in {one_line(key.system)}"

    def step(self, operation_id: str) -> str:
        """An operation, by the name that people find it by."""
        return f"the step “{one_line(operation_id)}”"

    def place(self, resource: str, path: str) -> str:
        """A field of a resource, or the resource: `the phone number of contact 42 in crm`."""
        return f"the {self.field(resource, path)} of {self.record(resource)}" if path else self.record(resource)

    def field(self, resource: str, path: str) -> str:
        """A field: `phone number`, or `address, city` where only what is above it has a label, or none has."""
        if path == "":
            return "the whole record"
        labels = self.contract(resource).labels
        tokens = tokens_of(path)
        names: list[str] = []
        for length in range(len(tokens), 0, -1):
            label = labels.get(path_of(tokens[:length]))
            if label is not None:
                return _BELOW.join([one_line(label), *reversed(names)])
            names.append(in_words(tokens[length - 1]))
        return _BELOW.join(reversed(names))

    def value(self, resource: str, path: str, value: Json | Absent) -> str:
        """A value, as one reads it."""
        if self.is_hidden(resource, path, value):
            return f"{MASK} (not shown)"
        return spoken(value)

    def is_hidden(self, resource: str, path: str, value: Json | Absent) -> bool:
        """Whether a value, or anything inside it, is sensitive."""
        return is_masked(self.contract(resource), path, value)


def spoken(value: Json | Absent) -> str:
    """A value that isn't sensitive, as one reads it."""
    if value is ABSENT:
        return "nothing"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _spoken_text(value)
    if isinstance(value, list):
        return listed([_inside(item) for item in value[:_MEMBERS_TOLD]], len(value)) if value else "an empty list"
    if isinstance(value, dict):
        told = [f"{in_words(name)} {_inside(value[name])}" for name in sorted(value)[:_MEMBERS_TOLD]]
        return f"({listed(told, len(value))})" if value else "a group without fields"
    return str(value)


def _inside(value: Json) -> str:
    """A member of a list or a group; what is inside of it in its turn is only counted."""
    if isinstance(value, list) and value:
        return f"({count(len(value), 'item')})"
    if isinstance(value, dict) and value:
        return f"({count(len(value), 'field')})"
    return spoken(value)


def _spoken_text(text: str) -> str:
    if text == "":
        return "an empty text"
    if _INSTANT.match(text):
        try:
            return moment(parse_instant(text))
        except InputError:
            pass
    elif _DATE.fullmatch(text):
        try:
            return day(parse_instant(f"{text}T00:00:00Z"))
        except InputError:
            pass
    return f"“{shortened(one_line(text))}”"


def shortened(text: str) -> str:
    """A text that fits into a sentence."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"


def one_line(text: str) -> str:
    """A text of other people's without line breaks, control characters and changes of direction."""
    return _UNPRINTABLE.sub(" ", text).strip()


def in_words(name: str) -> str:
    """`first_name` and `firstName` as one says them."""
    words = [word if word.isupper() else word.lower() for word in _WORDS.split(one_line(name)) if word]
    return shortened(" ".join(words)) or "(no name)"


def moment(instant: Instant) -> str:
    """`3 May 2026, 10:00 UTC`."""
    at = _EPOCH + timedelta(microseconds=instant)
    return f"{day(instant)}, {at:%H:%M} UTC"


def day(instant: Instant) -> str:
    """`3 May 2026`."""
    at = _EPOCH + timedelta(microseconds=instant)
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def span(first: Instant, last: Instant) -> str:
    """`on 3 May 2026, from 10:00 to 10:05 UTC`."""
    if day(first) != day(last):
        return f"from {moment(first)} to {moment(last)}"
    if moment(first) == moment(last):
        return f"on {moment(first)}"
    start, end = (moment(item).rpartition(", ")[2] for item in (first, last))
    return f"on {day(first)}, from {start.removesuffix(' UTC')} to {end}"


def number_word(number: int) -> str:
    """`two`, `37`."""
    return _NUMBERS[number] if 0 <= number < len(_NUMBERS) else f"{number:,}"


def duration(seconds: float) -> str:
    """`30 days`, `36 hours`, in the largest unit that says it exactly."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            return count(int(seconds // length), unit)
    return f"{seconds:g} seconds"


def count(number: int, what: str, plural: str = "") -> str:
    """`one record`, `37 records`."""
    return f"{number_word(number)} {what if number == 1 else plural or what + 's'}"


def listed(items: Sequence[str], total: int | None = None) -> str:
    """`a, b and c`, or `a, b and 27 more` where only some of the total are given."""
    more = 0 if total is None else total - len(items)
    parts = [*items, f"{more:,} more"] if more > 0 else list(items)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


def who(action: Action) -> str:
    """Who did something: a person by name, else the workflow."""
    actor = action.actor
    if actor is not None and actor.kind == "user":
        return one_line(actor.id)
    if action.workflow_id:
        return f"the workflow {one_line(action.workflow_id)}"
    return "a workflow" if actor is None else one_line(actor.id)


def sentence(text: str) -> str:
    """A text as a sentence: with a capital letter and an end."""
    return ended(upper_first(text))


def ended(text: str) -> str:
    """A text with an end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def upper_first(text: str) -> str:
    """A text with a capital letter."""
    return text[:1].upper() + text[1:]
