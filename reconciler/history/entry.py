"""One action as the history of a resource keeps it: the action, and what its `before` taught us.

Nothing in an entry depends on which operations are undone, so entries are written once and never changed. An undo is an
entry too, of an operation of its own; which entries are undone follows from them all (`undone_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

import msgspec

from reconciler.records import Action, operation_of
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import Tokens, tokens_of

Write: TypeAlias = tuple[Tokens, Json | Absent]
"""A place and what stands there from now on."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an action's `before` (or an observation in its stead) said that we didn't know or believe.

    ``base_*`` was there before our history; ``external_*`` somebody wrote between the entry before and this one.
    """

    base_set: dict[str, Json] = {}
    base_unset: list[str] = []
    base_closed: dict[str, list[str]] = {}
    """Objects that have no members but those that were known by then, which are named: of these the base may know nothing."""
    external_set: dict[str, Json] = {}
    external_unset: list[str] = []
    was: dict[str, list[Json]] = {}
    """What was expected, until then, of values whose members stand on their own, where the action itself doesn't say: by
    path a list of the value, empty where it was absent."""
    observed_at: int | None = None
    """The instant of the observation that served as `before` (microseconds), where the action had none."""


NO_FACTS = Facts()

ADOPTION_PREFIX: Final = "adopt/"
"""How the operation_id of an adoption begins: an entry that holds nothing but external writes."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The n-th entry of a resource's history, ``number`` from 1."""

    number: int
    action: Action
    facts: Facts = NO_FACTS
    link: int = 0
    """The position of the action among all records of the resource in the ledger, from 1; 0 where it hasn't come by there,
    as a reversal of our own when it is written down."""
    chain: str = ""
    """The ledger's chain (`reconciler.history.chain`) with the action as its last link."""
    undoes: list[int] = []
    """Of a reversal: the entries that it undoes, all of them earlier ones."""

    @property
    def operation_id(self) -> str:
        """The operation that this is a part of."""
        return operation_of(self.action)

    @property
    def is_reversal(self) -> bool:
        """Whether this undoes other entries, and writes nothing itself."""
        return self.action.stage == "reversed"

    @property
    def is_selectable(self) -> bool:
        """Whether this can be undone: not a reversal that says it is a part of the very operation that it undoes."""
        return not self.is_reversal or self.operation_id != self.action.operation_id

    @property
    def is_adoption(self) -> bool:
        """Whether this only records that what was there was taken as expected."""
        return self.action.operation_id.startswith(ADOPTION_PREFIX)

    def writes(self) -> Iterator[Write]:
        """The operation's own writes, those above before those below."""
        action = self.action
        if self.is_reversal:
            return
        if action.operation == "create":
            yield (), action.set.get("", {})
            yield from sorted_writes({path: value for path, value in action.set.items() if path}, action.unset)
        elif action.operation == "delete":
            yield (), ABSENT
        elif action.operation == "update":
            yield from sorted_writes(action.set, action.unset)

    def external_writes(self) -> Iterator[Write]:
        """What somebody else wrote just before."""
        yield from sorted_writes(self.facts.external_set, self.facts.external_unset)


def reversal(number: int, action: Action, entries: Iterable[Entry]) -> Entry:
    """The entry of a `reversed` action. It undoes the one action that it names, or all of the operation so far."""
    undoes = [
        entry.number
        for entry in entries
        if entry.operation_id == action.operation_id
        and entry.is_selectable
        and entry.number < number
        and action.reverses in (None, entry.action.action_id)
    ]
    return Entry(number=number, action=action, undoes=undoes)


def undone_of(entries: Sequence[Entry], also: AbstractSet[int] = frozenset()) -> set[int]:
    """The numbers of the entries (given in their order) that are undone, if those in `also` are undone as well. A reversal
    that is undone undoes nothing: what it undid is there again, unless something else undoes that."""
    undone = set(also)
    for entry in reversed(entries):
        if entry.undoes and entry.number not in undone:
            undone.update(entry.undoes)
    return undone


def numbers_to_undo(entries: Sequence[Entry], operations: AbstractSet[str]) -> set[int]:
    """The numbers of the entries (given in their order) that undoing some operations, all at once, undoes. What an operation
    outside of them has undone stays so and isn't among them; what one of them has undone would come back, and is."""
    undone_by_others: set[int] = set()
    numbers: set[int] = set()
    for entry in reversed(entries):
        if entry.number in undone_by_others:
            continue
        if entry.operation_id in operations and entry.is_selectable:
            numbers.add(entry.number)
        else:
            undone_by_others.update(entry.undoes)
    return numbers


def sorted_writes(set_: dict[str, Json], unset: list[str]) -> list[Write]:
    """Writes in the order of their places, so that one above comes before one below."""
    writes: list[Write] = [(tokens_of(path), value) for path, value in set_.items()]
    writes += [(tokens_of(path), ABSENT) for path in unset]
    if len(writes) > 1:
        writes.sort(key=_place)
    return writes


def _place(write: Write) -> Tokens:
    return write[0]
