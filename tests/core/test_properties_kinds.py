"""Values whose members stand on their own: undoing some writers takes out what was theirs, whatever others did before and since.

A target holds a counter, a set, a keyed list and a map. Steps of workflows and people in between change them, each its own
part; what must remain after an undo is said by sums and set differences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet, FieldRule
from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import Node, equal, known_value
from reconciler.history.undo import NOTHING_UNDONE, without
from reconciler.offline import applied, planned
from reconciler.records import Action, RollbackRequest, Selector
from reconciler.values.json_value import canonical
from tests.core.dice import Dice
from tests.core.histories import RESOURCE, make_action
from tests.core.worlds import observed

CONTRACT = Contract(
    name="*",
    fields={
        "/counter": FieldRule(kind="counter", conflict="merge"),
        "/tags": FieldRule(kind="set", conflict="merge"),
        "/lines": FieldRule(kind="keyed", key="/id", conflict="merge"),
        "/prefs": FieldRule(kind="map", conflict="merge"),
    },
)


@dataclass
class Shared:
    """A target whose four values many write to, and what each of them did: by operation, or None for people."""

    counter: int = 0
    tags: dict[str, None] = field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    prefs: dict[str, Any] | None = None
    deltas: list[tuple[str | None, int]] = field(default_factory=list)
    memberships: list[tuple[str | None, str, bool]] = field(default_factory=list)
    members: list[tuple[str | None, str, str]] = field(default_factory=list)
    entries: list[tuple[str | None, str]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "counter": self.counter,
            "tags": [*self.tags],
            "lines": [{"id": key, **member} for key, member in self.lines.items()],
        }
        if self.prefs is not None:
            fields["prefs"] = dict(self.prefs)
        return fields

    def change(self, dice: Dice, who: str | None, number: int) -> list[str]:
        """One change of each of some values, by an operation or somebody; the names of those changed."""
        changed = dice.some(["counter", "tags", "lines", "prefs"], at_least=1)
        for name in changed:
            match name:
                case "counter":
                    delta = dice.below(9) - 4
                    self.counter += delta
                    self.deltas.append((who, delta))
                case "tags":
                    for member in dice.some([*self.tags])[:2]:
                        del self.tags[member]
                        self.memberships.append((who, member, False))
                    self.tags[f"by {number}"] = None
                    self.memberships.append((who, f"by {number}", True))
                case "lines":
                    # Whoever writes into a member that another made keeps it: that is for the scenarios.
                    member = dice.pick(["first", f"by {number}"])
                    self.lines.setdefault(member, {})[f"field {number}"] = number
                    self.members.append((who, member, f"field {number}"))
                case "prefs":
                    self.prefs = {**(self.prefs or {}), f"by {number}": number}
                    self.entries.append((who, f"by {number}"))
        return changed


@st.composite
def shared_values(draw: st.DrawFn) -> Shared:
    dice = Dice(draw)
    target = Shared(counter=dice.below(9), tags={"first": None}, lines={"first": {}})
    if dice.one_in(2):
        target.prefs = {"first": 0}
    for number in range(1, 2 + dice.below(6)):
        if dice.one_in(3):
            target.change(dice, None, 100 + number)  # noticed by the next action that writes the same
        before, who = target.fields(), f"run/step-{number}"
        changed = target.change(dice, who, number)
        after = target.fields()
        set_ = {f"/{name}": after[name] for name in changed if name != "prefs"}
        if "prefs" in changed:
            # A map is written as a whole by who makes it, and else, by each, one member.
            path = "/prefs" if "prefs" not in before else f"/prefs/by {number}"
            set_[path] = after["prefs"] if path == "/prefs" else number
        was = {path: before[path[1:]] for path in set_ if path[1:] in before}
        target.actions.append(make_action(number, operation_id=who, before=was, set=set_))
    if dice.one_in(2):
        target.change(dice, None, 200)
    return target


def history_of(target: Shared) -> ResourceHistory:
    history = ResourceHistory(RESOURCE, CONTRACT)
    for action in target.actions:
        history.take(action)
    return history


def _written(target: Shared) -> set[str]:
    return {path for action in target.actions for path in action.set}


def _numbers(target: Shared, operations: set[str]) -> set[int]:
    return {number for number, action in enumerate(target.actions, 1) if action.operation_id in operations}


@given(shared_values(), st.data())
def test_what_others_did_stays(target: Shared, data: st.DataObject) -> None:
    chosen = sorted(data.draw(st.sets(st.sampled_from([action.operation_id for action in target.actions]), min_size=1)))
    request = RollbackRequest(rollback_id="rollback-1", select=Selector(operations=chosen))
    plan = planned(target.actions, [observed(target.fields(), 1_000_000)], request, ContractSet((CONTRACT,)))
    assert plan.blocked == []
    assert {item.resolution for item in plan.conflicts} <= {"merged"}
    refusals: list[str] = []
    left = applied(plan, {RESOURCE: observed(target.fields(), 1)}, refusals)[RESOURCE].fields
    assert refusals == []

    # Reality that already is what the undo would make of it is left alone, for whatever reason it is so.
    after = without(history_of(target).entries, _numbers(target, set(chosen)), CONTRACT)
    is_so = _counter_in(after) == target.counter if "/counter" in _written(target) else True
    steps = [] if is_so else [delta for who, delta in target.deltas if who in chosen]
    assert left["counter"] == target.counter - sum(steps)

    members = set(target.tags)
    for who, member, is_added in target.memberships:
        if who in chosen and is_added:
            members.discard(member)
    # Nobody else adds a member that another took out, so what was taken out by the undone comes back.
    own = {member for who, member, is_added in target.memberships if who in chosen and is_added}
    members |= {member for who, member, is_added in target.memberships if who in chosen and not is_added} - own
    assert set(left["tags"]) == members and len(left["tags"]) == len(members)

    assert {item["id"]: item for item in left["lines"]} == _list_without(target, set(chosen))
    assert left.get("prefs") == _map_without(target, set(chosen))


def _list_without(target: Shared, undone: set[str]) -> dict[str, dict[str, Any]]:
    fields = {key: dict(member) for key, member in target.lines.items()}
    for who, member, name in target.members:
        if who in undone:
            del fields[member][name]
    return {key: {"id": key, **member} for key, member in fields.items() if member or key == "first"}


def _map_without(target: Shared, undone: set[str]) -> dict[str, Any] | None:
    if target.prefs is None:
        return None
    own = {name for who, name in target.entries if who in undone}
    left = {name: value for name, value in target.prefs.items() if name not in own}
    was_there = "first" in target.prefs
    return left if left or was_there or not own else None


@given(shared_values(), st.data())
def test_steps_are_replayed_alike_whatever_was_reversed_before(target: Shared, data: st.DataObject) -> None:
    """A reversal in the middle of the log: what others do after it starts from what it left."""
    history = history_of(target)
    assert equal(without(history.entries, NOTHING_UNDONE, CONTRACT), history.tree)
    chosen = data.draw(st.permutations([action.operation_id for action in target.actions]))
    chosen = chosen[: data.draw(st.integers(0, len(chosen)))]
    numbers = {entry.number for entry in history.entries if entry.operation_id in chosen}
    for number, operation_id in enumerate(chosen):
        history.take(make_action(1_000 + number, operation_id=operation_id, stage="reversed"))
    assert equal(without(history.entries, numbers, CONTRACT), history.tree)


@st.composite
def counts(draw: st.DrawFn) -> tuple[list[Action], dict[str, int], int]:
    """A log of steps and reversals of a counter, the deltas of what remains by operation, and the deltas of people."""
    dice = Dice(draw)
    total = theirs = dice.below(5)
    actions: list[Action] = []
    deltas: dict[str, int] = {}
    for number in range(1, 3 + dice.below(6)):
        if deltas and dice.one_in(3):
            operation_id = dice.pick(sorted(deltas))
            total -= deltas.pop(operation_id)
            actions.append(make_action(number, operation_id=operation_id, stage="reversed"))
            continue
        if actions and dice.one_in(3):
            theirs, total = theirs + 100, total + 100
        delta = dice.below(9) - 4
        action = make_action(number, before={"/counter": total}, set={"/counter": total + delta})
        deltas[action.operation_id] = delta
        total += delta
        actions.append(action)
    return actions, deltas, theirs


@given(counts(), st.data())
def test_a_counter_is_what_remains(case: tuple[list[Action], dict[str, int], int], data: st.DataObject) -> None:
    actions, deltas, theirs = case
    history = ResourceHistory(RESOURCE, CONTRACT)
    for action in actions:
        history.take(action)
    for operation_id in data.draw(st.permutations(sorted(deltas))):
        numbers = {entry.number for entry in history.entries if entry.operation_id == operation_id}
        after = history.without(numbers)
        history.take(make_action(1_000 + len(deltas), operation_id=operation_id, stage="reversed"))
        assert equal(after, history.tree)
        del deltas[operation_id]
        assert canonical(_counter_of(history)) == canonical(theirs + sum(deltas.values()))


def _counter_of(history: ResourceHistory) -> Any:
    return _counter_in(history.tree)


def _counter_in(tree: Node) -> Any:
    value = known_value(tree)
    assert isinstance(value, dict)
    return value["counter"]
