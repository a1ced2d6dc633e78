"""Everything that is known of an estate: the histories of its resources, and its operations by name and by run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.history.entry import Entry
from reconciler.history.resource import ResourceHistory
from reconciler.records import Action, Observation, operation_of


class Operation(msgspec.Struct, frozen=True):
    """One operation: its actions in the order of the log, with their positions there."""

    operation_id: str
    first_position: int
    actions: list[Action]

    @property
    def order(self) -> tuple[int, int]:
        """Later operations compare greater: by their sequence in the run, then by the log."""
        return max(action.sequence for action in self.actions), self.first_position


class Estate:
    """The histories of all resources, made from actions in the order of the log."""

    def __init__(self, contracts: ContractSet) -> None:
        self.contracts = contracts
        self.histories: dict[str, ResourceHistory] = {}
        self.operations: dict[str, Operation] = {}
        self.contradicted: list[Action] = []
        """Actions that came again with another body: reported, never folded."""
        self.collapsed: set[str] = set()
        """Operations of which something is no longer in the histories, because it collapsed into a base."""
        self._position = 0

    def take(self, action: Action, seen: Observation | None = None) -> None:
        """Takes the next action of the log."""
        self._position += 1
        history = self.histories.get(action.resource)
        if history is None:
            history = ResourceHistory(action.resource, self.contracts.for_resource(action.resource))
            self.histories[action.resource] = history
        taken = history.take(action, seen)
        if taken == "contradicted":
            self.contradicted.append(action)
        elif taken != "repeated":
            name = operation_of(action)
            operation = self.operations.get(name)
            if operation is None:
                operation = self.operations[name] = Operation(name, self._position, [])
            operation.actions.append(action)

    def entries_of(self, operation_id: str) -> list[tuple[ResourceHistory, Entry]]:
        """The live entries of an operation, over all its resources."""
        operation = self.operations.get(operation_id)
        if operation is None:
            return []
        result = []
        for resource in sorted({action.resource for action in operation.actions}):
            history = self.histories[resource]
            for number in sorted(history.numbers_of(operation_id)):
                result.append((history, history.entry(number)))
        return result

    def stands(self, operation_id: str, undone: Mapping[str, AbstractSet[int]]) -> bool:
        """Whether something that an operation did is in force, or may be because nobody said how it ended. ``undone``: the
        entries that are undone then, of the resources of which others are than now."""
        return self.is_outcome_unknown(operation_id) or any(
            entry.number not in undone.get(resource, self.histories[resource].undone)
            for resource in {action.resource for action in self.operations[operation_id].actions}
            for entry in self.histories[resource].entries_by(operation_id)
        )

    def is_outcome_unknown(self, operation_id: str) -> bool:
        """Whether an operation began, and nobody said how it ended."""
        operation = self.operations.get(operation_id)
        return operation is not None and any(
            operation_id in self.histories[action.resource].in_flight for action in operation.actions
        )


def estate_of(actions: Iterable[Action], contracts: ContractSet, observations: Sequence[Observation] = ()) -> Estate:
    """The estate that a log of actions describes. Observations from before an action serve as its pre-state where the
    action doesn't know it."""
    estate = Estate(contracts)
    seen: dict[str, list[Observation]] = {}
    for observation in observations:
        if observation.exists is not None and observation.observed_at is not None:
            seen.setdefault(observation.resource, []).append(observation)
    for action in actions:
        estate.take(action, _last_before(action, seen.get(action.resource, ())))
    return estate


def _last_before(action: Action, observations: Sequence[Observation]) -> Observation | None:
    if action.before is not None or action.operation not in ("update", "delete"):
        return None
    earlier = [item for item in observations if item.observed_at is not None and item.observed_at <= action.occurred_at]
    return max(earlier, key=lambda item: item.observed_at or 0, default=None)
