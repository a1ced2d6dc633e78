"""The whole history of one resource in memory: what the offline commands and the tests work on.

The stream keeps the same things apart, the tree hot in the head and the entries cold in the store; both are made by the
same functions.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry
from reconciler.history.fold import fold_into
from reconciler.history.tree import UNKNOWN, Editor, Node
from reconciler.history.undo import without
from reconciler.json_form import action_digest
from reconciler.records import Action, Observation
from reconciler.values.instant import SECOND, Instant

Taken: TypeAlias = Literal["folded", "noted", "repeated", "contradicted"]
"""What became of an action: it changed the history, was noted (initiated, failed), had been taken before, or had been
taken before with another body, which is somebody's error and never folded."""

MAX_OPERATIONS: Final = 1_000
"""What goes beyond this many operations of one resource, oldest first, can't be undone any more (`expired`)."""


class ResourceHistory:
    """One resource: its expected state, its entries in order, and which of them were undone."""

    def __init__(self, resource: str, contract: Contract) -> None:
        self.resource = resource
        self.contract = contract
        self._editor = Editor(UNKNOWN)
        self.entries: list[Entry] = []
        self.undone: set[int] = set()
        self.in_flight: dict[str, Action] = {}
        """Operations of which we know that they began, and not how they ended."""
        self.last_write_at: Instant | None = None
        self._taken: dict[str, Action] = {}

    @property
    def tree(self) -> Node:
        """The expected state as of the last action taken; the next one may change it in place."""
        return self._editor.root

    def take(self, action: Action, seen: Observation | None = None) -> Taken:
        """Takes an action of whatever stage, in the order of the log."""
        known = self._taken.get(action.action_id)
        if known is not None:
            return "repeated" if action_digest(known) == action_digest(action) else "contradicted"
        self._taken[action.action_id] = action
        if action.stage == "initiated":
            if all(entry.operation_id != action.operation_id for entry in self.entries):
                self.in_flight[action.operation_id] = action
            return "noted"
        self.in_flight.pop(action.operation_id, None)
        if action.stage == "failed":
            return "noted"
        if action.stage == "reversed":
            self.undone |= {entry.number for entry in self.entries if entry.operation_id == action.operation_id}
            self._editor = Editor(without(self.entries, self.undone, self.contract))
        else:
            if seen is not None and not self._is_young_enough(action, seen):
                seen = None
            self.entries.append(fold_into(self._editor, len(self.entries) + 1, action, self.contract, seen))
        if action.operation != "effect":
            self.last_write_at = max(action.occurred_at, self.last_write_at or action.occurred_at)
        return "folded"

    def _is_young_enough(self, action: Action, seen: Observation) -> bool:
        if seen.exists is None or seen.observed_at is None:
            return False
        age = action.occurred_at - seen.observed_at
        return 0 <= age <= self.contract.timing.pre_state_max_age_s * SECOND

    def numbers_of(self, operation_id: str) -> set[int]:
        """The numbers of the live entries of an operation."""
        return {
            entry.number
            for entry in self.entries
            if entry.operation_id == operation_id and entry.number not in self.undone
        }

    def owner_of(self, number: int) -> str:
        """The name of an owner: an operation, or `external`."""
        return self.entries[number - 1].operation_id if number > 0 else "external"
