"""One action as the history of a resource keeps it: the action, and what its `before` taught us.

Nothing in an entry depends on which operations are undone, so entries are written once and never changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from reconciler.records import Action
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


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The n-th entry of a resource's history, ``number`` from 1."""

    number: int
    action: Action
    facts: Facts = NO_FACTS
    link: int = 0
    """The position of the action among all records of the resource in the ledger, from 1; 0 where it hasn't come by there,
    as a reversal of our own when it is written down."""
    chain: str = ""
    """The ledger's chain (`reconciler.history.chain`) with the action as its last link."""

    @property
    def operation_id(self) -> str:
        """The operation that this is a part of."""
        return self.action.operation_id

    def writes(self) -> Iterator[Write]:
        """The operation's own writes, those above before those below."""
        action = self.action
        if action.stage == "reversed":
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


def sorted_writes(set_: dict[str, Json], unset: list[str]) -> list[Write]:
    """Writes in the order of their places, so that one above comes before one below."""
    writes: list[Write] = [(tokens_of(path), value) for path, value in set_.items()]
    writes += [(tokens_of(path), ABSENT) for path in unset]
    if len(writes) > 1:
        writes.sort(key=_place)
    return writes


def _place(write: Write) -> Tokens:
    return write[0]
