"""Whether a plan's waves respect every dependency, and whether nobody is left standing on what goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from urllib.parse import quote

from reconciler.plan.estate import Estate
from reconciler.plan.model import Plan, PlannedStep
from reconciler.records import Observation
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import tokens_of, value_at

Faults = Iterator[tuple[str, str]]


def order_faults(
    plan: Plan,
    steps: Sequence[PlannedStep],
    estate: Estate,
    observed: Mapping[str, Observation],
    after: Mapping[str, Json | Absent],
    put_away: AbstractSet[str],
    undone_then: Mapping[str, AbstractSet[int]],
) -> Faults:
    """Faults in the order, by rules 7 and 8. ``after``: what commands leave; ``put_away``: what is archived where it would go,
    so that nobody minds what it refers to then; ``undone_then``: which entries are undone once a resource's step is done."""
    look = _Order(plan, steps, estate, observed, after, put_away, undone_then)
    yield from look.waves()
    yield from look.dependants()


class _Order:
    def __init__(
        self,
        plan: Plan,
        steps: Sequence[PlannedStep],
        estate: Estate,
        observed: Mapping[str, Observation],
        after: Mapping[str, Json | Absent],
        put_away: AbstractSet[str],
        undone_then: Mapping[str, AbstractSet[int]],
    ) -> None:
        self._steps = steps
        self._estate = estate
        self._observed = observed
        self._after = after
        self._put_away = put_away
        self._undone_then = undone_then
        self._undone = frozenset(plan.operations)

    # -- waves

    def waves(self) -> Faults:
        """Whatever must be settled first is in an earlier wave, or in the same one where the two wait for each other."""
        edges = self._edges()
        together = {first: later & edges.keys() for first, later in edges.items()}
        for first, later in sorted(edges.items()):
            for second in sorted(later):
                one, other = self._steps[first], self._steps[second]
                if one.wave < other.wave or one.command is None or other.command is None:
                    continue
                if one.wave == other.wave and _reaches(second, first, together):
                    continue
                waves = f"and is in the wave {one.wave} while that is in {other.wave}"
                yield f"steps[{first}]", f"{one.resource} must be settled before {other.resource}, {waves}"

    def _edges(self) -> dict[int, set[int]]:
        """From the index of a step to those that must wait for it."""
        of_operation: dict[str, list[int]] = {}
        made_good = {step.action_id for step in self._steps}
        of_resource: dict[str, int] = {}
        for index, step in enumerate(self._steps):
            for name in step.operations:
                of_operation.setdefault(name, []).append(index)
            if step.action_id is None:
                of_resource[step.resource] = index
        for name in self._undone:
            for history, entry in self._estate.entries_of(name):
                # A step need not name what is undone by an undo that is in force again without what the step names.
                if entry.action.action_id not in made_good and history.resource in of_resource:
                    of_operation.setdefault(name, []).append(of_resource[history.resource])
        edges: dict[int, set[int]] = {index: set() for index in range(len(self._steps))}
        self._add_dependencies(of_operation, edges)
        self._add_effects(of_resource, edges)
        self._add_references(of_resource, edges)
        return edges

    def _add_dependencies(self, of_operation: Mapping[str, list[int]], edges: dict[int, set[int]]) -> None:
        for name, indexes in of_operation.items():
            for action in self._estate.operations[name].actions:
                for needed in action.depends_on:
                    for index in indexes:
                        edges[index].update(item for item in of_operation.get(needed, ()) if item != index)

    def _add_effects(self, of_resource: Mapping[str, int], edges: dict[int, set[int]]) -> None:
        """What was done to a resource last is undone first, effects too."""
        for index, step in enumerate(self._steps):
            undo = of_resource.get(step.resource)
            if step.action_id is not None and undo is not None:
                is_last = max(step.numbers) > max(self._steps[undo].numbers)
                first, second = (index, undo) if is_last else (undo, index)
                edges[first].add(second)

    def _add_references(self, of_resource: Mapping[str, int], edges: dict[int, set[int]]) -> None:
        for resource, index in of_resource.items():
            now, then = self._references(resource, self._actual), self._references(resource, self._then)
            if resource in self._put_away:
                then = frozenset()
            for key in now | then:
                other = of_resource.get(key)
                if other is None or other == index:
                    continue
                is_made = self._actual(key) is ABSENT and self._then(key) is not ABSENT
                if is_made and key in then:
                    edges[other].add(index)
                elif not is_made:
                    edges[index].add(other)

    # -- dependants

    def dependants(self) -> Faults:
        """Nothing outside of what is undone stands on it, unless the contract lets it be orphaned."""
        for name, operation in self._estate.operations.items():
            if name in self._undone:
                continue
            needed = {item for action in operation.actions for item in action.depends_on} & self._undone
            if needed and self._estate.stands(name, self._undone_then):
                for item in sorted(needed):
                    if not self._is_orphaning(item):
                        yield "operations", f"{name} depends on {item}, which is undone alone"
        going = {resource for resource, value in self._after.items() if value is ABSENT}
        if not going:
            return
        for resource in sorted(self._estate.histories.keys() | self._observed.keys()):
            if resource in going or resource in self._put_away:
                continue
            for key in sorted(self._references(resource, self._then) & going):
                if not any(self._is_orphaning(name) for name in self._creators(key)):
                    yield "waves", f"{resource} still refers to {key}, which is removed"

    def _creators(self, resource: str) -> list[str]:
        return [
            name
            for step in self._steps
            if step.resource == resource and step.action_id is None
            for name in step.operations
        ]

    def _is_orphaning(self, name: str) -> bool:
        actions = self._estate.operations[name].actions
        return {self._estate.histories[item.resource].contract.undo.dependants for item in actions} == {"orphan"}

    # -- references

    def _actual(self, resource: str) -> Json | Absent:
        seen = self._observed.get(resource)
        return seen.fields if seen is not None and seen.exists else ABSENT

    def _then(self, resource: str) -> Json | Absent:
        return self._after[resource] if resource in self._after else self._actual(resource)

    def _references(self, resource: str, state: Callable[[str], Json | Absent]) -> AbstractSet[str]:
        """The keys of the resources that one names, in a state."""
        rules = self._estate.contracts.for_resource(resource).references
        if not rules:
            return frozenset()
        fields = state(resource)
        found = set()
        for path, type_ in rules.items():
            value = value_at(fields, tokens_of(path))
            if type(value) is str and value.startswith(f"{type_}/"):
                found.add(value)
            elif type(value) in (str, int, float):
                found.add(f"{type_}/{quote(str(value), safe='@:')}")
        return found


def _reaches(start: int, goal: int, edges: Mapping[int, AbstractSet[int]]) -> bool:
    waiting, seen = [start], {start}
    while waiting:
        for following in edges.get(waiting.pop(), ()):
            if following == goal:
                return True
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return False
