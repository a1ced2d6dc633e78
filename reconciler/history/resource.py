"""The whole history of one resource in memory: what the offline commands, the planner and the tests work on.

The stream keeps the same things apart, the tree hot in the head and the entries cold in the store; both are made by the
same functions, and `ResourceHistory.restored` puts what is in the store together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Literal, TypeAlias

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry, numbers_to_undo, reversal, undone_of
from reconciler.history.fold import fold_into
from reconciler.history.members import equal_members
from reconciler.history.tree import UNKNOWN, Editor, Gone, Leaf, Node, Object, known_value
from reconciler.history.undo import without
from reconciler.json_form import action_digest
from reconciler.records import Action, Observation
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import Absent, Json
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of, value_at

Taken: TypeAlias = Literal["folded", "noted", "repeated", "contradicted"]
"""What became of an action: it changed the history, was noted (initiated, failed), had been taken before, or had been
taken before with another body, which is somebody's error and never folded."""

MAX_OPERATIONS: Final = 1_000
"""What goes beyond this many operations of one resource, oldest first, can't be undone any more (`expired`)."""


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What entries that are too old to be undone have left."""

    tree: Node = UNKNOWN
    owners: dict[int, str] = {}
    """The operations of those of them that still own a node of the tree, by the entry's number."""


EMPTY_BASE: Final = Base()


def is_echo(tree: Node, action: Action, contract: Contract) -> bool:
    """Whether an action that names one of our commands as its origin writes nothing but what is expected already, as the
    echo of that command does. What an automation wrote beside that is a write like any other."""
    expected = known_value(tree)
    return action.operation != "effect" and all(
        _is_same(contract, tokens, value_at(expected, tokens), value)
        for tokens, value in Entry(number=0, action=action).writes()
    )


def _is_same(contract: Contract, tokens: Tokens, left: Json | Absent, right: Json | Absent) -> bool:
    rule = contract.rule(path_of(tokens))
    return equivalent(left, right, rule.normalise) or equal_members(rule, left, right)


def is_pre_state(action: Action, seen: Observation, contract: Contract) -> bool:
    """Whether what was seen of a resource says what an action found there: it is known, not later than the action, and young
    enough. That a record has no field at all is what a target says that didn't look."""
    if seen.exists is None or seen.observed_at is None or (seen.exists and not seen.fields):
        return False
    age = action.occurred_at - seen.observed_at
    return 0 <= age <= contract.timing.pre_state_max_age_s * SECOND


class ResourceHistory:
    """One resource: its expected state, its entries in order, and which of them were undone."""

    def __init__(self, resource: str, contract: Contract) -> None:
        self.resource = resource
        self.contract = contract
        self._editor = Editor(UNKNOWN)
        self.base = EMPTY_BASE
        self.collapsed = 0
        """Entries up to this number are no more here: they collapsed into the base."""
        self.entries: list[Entry] = []
        self.undone: set[int] = set()
        self.in_flight: dict[str, Instant] = {}
        """Operations of which we know that they began, and when, and not how they ended."""
        self.last_write_at: Instant | None = None
        self._taken: dict[str, Action] = {}
        # The entries of each operation, as far as they were looked at; and the operations that have reversals among them.
        self._numbers: dict[str, list[int]] = {}
        self._reversing: set[str] = set()
        self._looked_at = 0

    @classmethod
    def restored(
        cls,
        resource: str,
        contract: Contract,
        entries: Iterable[Entry],
        *,
        base: Base = EMPTY_BASE,
        collapsed: int = 0,
        in_flight: Mapping[str, Instant] | None = None,
    ) -> ResourceHistory:
        """The history that the stream's store describes: a base into which entries up to `collapsed` went, and all entries
        after it, in whatever order."""
        history = cls(resource, contract)
        history.base = base
        history.collapsed = collapsed
        history.entries = sorted(entries, key=lambda entry: entry.number)
        history.undone = undone_of(history.entries)
        history.in_flight = dict(in_flight or {})
        history._taken = {entry.action.action_id: entry.action for entry in history.entries}
        writes = [entry.action.occurred_at for entry in history.entries if entry.action.operation != "effect"]
        history.last_write_at = max(writes, default=None)
        history._editor = Editor(without(history.entries, history.undone, contract, base.tree))
        return history

    @property
    def tree(self) -> Node:
        """The expected state as of the last action taken; the next one may change it in place."""
        return self._editor.root

    @property
    def last_number(self) -> int:
        """The number of the newest entry; 0 where there never was one."""
        return self.collapsed + len(self.entries)

    def take(self, action: Action, seen: Observation | None = None) -> Taken:
        """Takes an action of whatever stage, in the order of the log."""
        known = self._taken.get(action.action_id)
        if known is not None:
            return "repeated" if action_digest(known) == action_digest(action) else "contradicted"
        self._taken[action.action_id] = action
        if action.origin is not None and is_echo(self.tree, action, self.contract):
            return "noted"
        if action.stage == "initiated":
            if all(entry.action.operation_id != action.operation_id for entry in self.entries):
                self.in_flight[action.operation_id] = action.occurred_at
            return "noted"
        self.in_flight.pop(action.operation_id, None)
        if action.stage == "failed":
            return "noted"
        if action.stage == "reversed":
            self._reverse([action])
        else:
            if seen is not None and not is_pre_state(action, seen, self.contract):
                seen = None
            self.entries.append(fold_into(self._editor, self.last_number + 1, action, self.contract, seen))
        if action.operation != "effect":
            self.last_write_at = max(action.occurred_at, self.last_write_at or action.occurred_at)
        return "folded"

    def take_reversals(self, actions: Iterable[Action]) -> list[Entry]:
        """Takes many `reversed` actions at once, none of which was taken before; gives their entries."""
        reversals = list(actions)
        self._taken |= {action.action_id: action for action in reversals}
        return self._reverse(reversals)

    def _reverse(self, actions: Iterable[Action]) -> list[Entry]:
        first = len(self.entries)
        for action in actions:
            self.entries.append(reversal(self.last_number + 1, action, self.entries))
        self.undone = undone_of(self.entries)
        self._editor = Editor(without(self.entries, self.undone, self.contract, self.base.tree))
        return self.entries[first:]

    def entry(self, number: int) -> Entry:
        """An entry that has not collapsed, by its number."""
        assert number > self.collapsed
        return self.entries[number - self.collapsed - 1]

    def is_effect(self, entry: Entry) -> bool:
        """Whether an entry did something that no state shows: an effect, or the undo of nothing but effects."""
        return entry.action.operation == "effect" and all(
            self.is_effect(self.entry(number)) for number in entry.undoes if number > self.collapsed
        )

    def after(self, number: int) -> list[Entry]:
        """The entries later than one."""
        return self.entries[max(number - self.collapsed, 0) :]

    def numbers_of(self, *operations: str) -> set[int]:
        """The numbers of the entries that undoing some operations, all at once, undoes: of one operation, its live entries."""
        self._look()
        if self._reversing.isdisjoint(operations):
            # None of them has undone anything: what is undone is what is undone anyhow.
            return {number for name in operations for number in self._numbers.get(name, ())} - self.undone
        return numbers_to_undo(self.entries, frozenset(operations))

    def entries_by(self, operation_id: str) -> list[Entry]:
        """What an operation did here, whether it is undone or not."""
        self._look()
        return [entry for entry in map(self.entry, self._numbers.get(operation_id, ())) if entry.is_selectable]

    def _look(self) -> None:
        """Looks at the entries that are new since."""
        for entry in self.entries[self._looked_at :]:
            self._numbers.setdefault(entry.operation_id, []).append(entry.number)
            if entry.is_reversal:
                self._reversing.add(entry.operation_id)
        self._looked_at = len(self.entries)

    def without(self, numbers: AbstractSet[int]) -> Node:
        """The expected state, were these entries undone as well. Undoing a reversal puts back what it undid."""
        return without(self.entries, self.undone_with(numbers), self.contract, self.base.tree)

    def before(self, number: int) -> Node:
        """What was expected when an entry was written, as far as that isn't undone by now."""
        earlier = self.entries[: number - self.collapsed]
        return without(earlier, self.undone | {number}, self.contract, self.base.tree)

    def undone_with(self, numbers: AbstractSet[int]) -> set[int]:
        """All entries that would be undone, were these undone as well."""
        return undone_of(self.entries, numbers)

    def written_by(self, number: int) -> list[Entry]:
        """The entries whose writes an undo of this one takes away, or, where it is a reversal, puts back: in their order."""
        found = {item for item in self._touched_by(number) if item > self.collapsed}
        return [entry for entry in map(self.entry, sorted(found)) if not entry.is_reversal]

    def reach_of(self, number: int) -> int:
        """The oldest entry that an undo of this one touches."""
        return min(self._touched_by(number))

    def _touched_by(self, number: int) -> set[int]:
        touched, waiting = {number}, [number]
        while waiting:
            item = waiting.pop()
            if item > self.collapsed:
                new = set(self.entry(item).undoes) - touched
                touched |= new
                waiting += new
        return touched

    def owner_of(self, number: int) -> str:
        """The name of an owner: an operation, or `external`."""
        if number <= 0:
            return "external"
        if number <= self.collapsed:
            return self.base.owners.get(number, "external")
        return self.entry(number).operation_id


def collapse(history: ResourceHistory, bound: int, undone: AbstractSet[int]) -> Base:
    """The base after all entries up to `bound` went into it, without those that are undone by now."""
    old = [entry for entry in history.entries if entry.number <= bound]
    tree = without(old, undone, history.contract, history.base.tree)
    return Base(tree=tree, owners={number: history.owner_of(number) for number in sorted(_owners(tree))})


def _owners(node: Node) -> set[int]:
    owners = {node.owner} if isinstance(node, Leaf | Object | Gone) and node.owner > 0 else set()
    if isinstance(node, Object):
        for member in node.members.values():
            owners |= _owners(member)
    return owners
