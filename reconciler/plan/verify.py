"""The independent look at a plan before anybody sees it: every fault, with its path in the plan.

A fault is a bug of the planner, never of who asked. Nothing here uses how the planner works: it goes by the plan, a plain
replay of the histories, what was observed, and the text of the rules. What it checks holds for every plan:

    steps       undo all that is undone, once, and carry the commands that the plan shows, in its waves
    changes     expect what is there, change it, are no more than are needed, and stay where the undone work wrote
    results     are what would be there without the work, but for what conflicts and contracts say
    others      lose nothing without a decision; what is blocked or kept stays as it is
    order       dependents first (`reconciler.plan.verify_order`)
    consent     the status and the approvals say the same; the hash is of what the plan says
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry, undone_of
from reconciler.history.members import STEPPED
from reconciler.history.resource import ResourceHistory
from reconciler.plan.estate import Estate
from reconciler.plan.model import Plan, Planned, PlannedConflict, PlannedStep
from reconciler.plan.plain import (
    UNKNOWN,
    Known,
    Refused,
    Tree,
    base_in,
    changed,
    ends,
    known_at,
    member_of,
    obeyed,
    replayed,
    value_in,
)
from reconciler.plan.verify_order import order_faults
from reconciler.records import Change, Command, Observation, RollbackRequest
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, same
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at


class Fault(msgspec.Struct, frozen=True):
    """Something that a plan must not say. ``path`` is where it says so."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def verify(
    planned: Planned, request: RollbackRequest, estate: Estate, observations: Sequence[Observation]
) -> list[Fault]:
    """Every fault of a plan; none, if it is sound."""
    look = _Look(planned, request, estate, {item.resource: item for item in observations})
    return [Fault(path, problem) for path, problem in look.faults()]


class _Look:
    def __init__(
        self, planned: Planned, request: RollbackRequest, estate: Estate, observed: Mapping[str, Observation]
    ) -> None:
        self._plan: Plan = planned.plan
        self._steps = planned.steps
        self._undone = frozenset(planned.plan.operations)
        self._request = request
        self._estate = estate
        self._observed = observed
        self._commands = [
            (f"waves[{number}][{place}]", number + 1, command)
            for number, wave in enumerate(self._plan.waves)
            for place, command in enumerate(wave)
        ]
        self._before: dict[str, Known] = {}
        self._wanted: dict[str, tuple[Known, ...]] = {}
        numbers: dict[str, set[int]] = {}
        for step in planned.steps:
            if step.action_id is None:
                numbers.setdefault(step.resource, set()).update(step.numbers)
        self._undone_then = {
            resource: undone_of(estate.histories[resource].entries, found) for resource, found in numbers.items()
        }
        self._conflicts: dict[str, list[tuple[Tokens, PlannedConflict]]] = {}
        for item in self._plan.conflicts:
            self._conflicts.setdefault(item.resource, []).append((tokens_of(item.path), item))

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from self._consent()
        yield from self._operations()
        yield from self._step_faults()
        after: dict[str, Json | Absent] = {}
        for path, _, command in self._commands:
            if command.action != "compensate":
                yield from self._command(path, command, after)
        yield from self._kept(after)
        if self._plan.status != "rejected":
            undone = {step.resource: step for step in self._steps if step.action_id is None}
            for resource, step in sorted(undone.items()):
                yield from self._resource(resource, step, after)
            put_away = {resource for resource in undone if self._is_put_away(resource, after)}
            yield from order_faults(
                self._plan, self._steps, self._estate, self._observed, after, put_away, self._undone_then
            )

    # -- what the plan says of itself

    def _consent(self) -> Iterator[tuple[str, str]]:
        plan = self._plan
        is_forbidden = any(item.rule == "forbidden" for item in plan.blocked)
        if (plan.status == "rejected") is not is_forbidden:
            yield "status", "a plan is rejected where a contract forbids it, and nowhere else"
        if plan.status != "rejected" and (plan.status == "nothing_to_do") is not (not self._commands):
            yield "status", "there is nothing to do where there are no commands, and nowhere else"
        if (plan.status == "needs_approval") is not bool(plan.approvals_needed):
            yield "approvals_needed", "consent is needed where some is missing, and nowhere else"
        if is_forbidden and self._commands:
            yield "waves", "a rejected plan does nothing"
        if self._commands and not is_forbidden:
            yield from self._approvals()
        if plan.plan_hash != _digest(plan):
            yield "plan_hash", "it isn't the digest of what the plan says"

    def _approvals(self) -> Iterator[tuple[str, str]]:
        """Whoever a contract asks for in every case: given, or listed as missing."""
        asker = None if self._request.requested_by is None else self._request.requested_by.id
        for contract in self._touched_contracts():
            for rule in contract.approvals:
                if rule.when is not None:
                    continue
                givers = {
                    item.by.id
                    for item in self._request.approvals
                    if item.by.id != asker
                    and item.plan_hash in (None, self._plan.plan_hash)
                    and (not rule.roles or set(rule.roles) & set(item.roles))
                }
                missing = rule.count - len(givers)
                listed = [
                    item.count
                    for item in self._plan.approvals_needed
                    if item.contract == contract.name and item.roles == list(rule.roles)
                ]
                if missing > 0 and missing not in listed:
                    yield (
                        "approvals_needed",
                        f"{missing} consents that {contract.name} asks for are missing from the list",
                    )

    def _touched_contracts(self) -> list[Contract]:
        names = {self._estate.histories[command.resource].contract.name for _, _, command in self._commands}
        contracts = {item.contract.name: item.contract for item in self._estate.histories.values()}
        return [contracts[name] for name in sorted(names)]

    def _operations(self) -> Iterator[tuple[str, str]]:
        if len(self._undone) < len(self._plan.operations):
            yield "operations", "an operation is undone once"
        for index, item in enumerate(self._plan.blocked):
            if item.operation_id in self._undone:
                yield f"blocked[{index}]", f"{item.operation_id} is blocked and undone"
        select = self._request.select
        told = self._undone | {item.operation_id for item in self._plan.blocked}
        for name in (select.operations or ()) if select is not None else ():
            was_undone = name in self._estate.operations and not self._estate.entries_of(name)
            if name not in told and not was_undone:
                yield "operations", f"{name} was asked for, and is neither undone nor blocked"

    # -- steps

    def _step_faults(self) -> Iterator[tuple[str, str]]:
        if self._plan.status == "rejected":
            if self._steps:
                yield "steps", "a rejected plan has none"
            return
        shown = [(number, command.command_id) for _, number, command in self._commands]
        ordered = [(step.wave, step.command.command_id) for step in self._steps if step.command is not None]
        if shown != ordered:
            yield "steps", "their commands aren't those of the waves"
        if len({identity for _, identity in shown}) < len(shown):
            yield "waves", "two commands have the same id, so a target would take them for one"
        covered: dict[tuple[str, int], int] = {}
        for index, step in enumerate(self._steps):
            for number in step.numbers:
                covered[step.resource, number] = covered.get((step.resource, number), 0) + 1
            yield from self._step(f"steps[{index}]", step)
        for name in self._plan.operations:
            yield from self._covered(name, covered)

    def _step(self, path: str, step: PlannedStep) -> Iterator[tuple[str, str]]:
        history = self._estate.histories[step.resource]
        entries = _numbered(history)
        for number in step.numbers:
            entry = entries.get(number)
            if entry is None or entry.operation_id not in step.operations:
                yield path, f"the entry {number} of {step.resource} is of none of its operations"
            elif step.action_id is None and history.is_effect(entry):
                yield path, f"the entry {number} of {step.resource} changes nothing that could be put back"
            elif step.action_id is not None and not (history.is_effect(entry) or self._is_blind(history, entry)):
                yield path, f"the entry {number} of {step.resource} is undone as what it isn't"
            elif step.action_id is not None and entry.action.action_id != step.action_id:
                yield path, "it makes good another effect than it says"
        if not self._undone.issuperset(step.operations):
            yield path, f"it undoes {', '.join(sorted(set(step.operations) - self._undone))} as well"
        if step.action_id is not None and (step.command is None or step.command.action != "compensate"):
            yield path, "an effect is made good by a compensation"

    def _is_blind(self, history: ResourceHistory, entry: Entry) -> bool:
        """Whether nobody knows what would be there, where an entry wrote, without all that the plan undoes or makes good, or
        without what it undoes and this entry."""
        steps = [step for step in self._steps if step.resource == history.resource]
        together = {number for step in steps for number in step.numbers}
        alone = {number for step in steps if step.action_id is None for number in step.numbers} | {entry.number}
        states = [self._without(history, undone_of(history.entries, numbers)) for numbers in (together, alone)]
        return any(value_in(known_at(then, tokens)) is UNKNOWN for then in states for tokens, _ in entry.writes())

    def _covered(self, name: str, covered: Mapping[tuple[str, int], int]) -> Iterator[tuple[str, str]]:
        for history, entry in self._estate.entries_of(name):
            times = covered.get((history.resource, entry.number), 0)
            is_effect = history.is_effect(entry)
            if times > 1:
                yield "steps", f"what {name} did to {history.resource} is undone {times} times"
            elif times == 0 and (is_effect or not (self._may_stay(history) or self._is_undone_then(history, entry))):
                yield "steps", f"what {name} did to {history.resource} is undone by no step"

    def _is_undone_then(self, history: ResourceHistory, entry: Entry) -> bool:
        """Whether an entry is undone once the resource's step is done. No step need name it: an undo outside of the selection
        undid it, was undone itself by what the step names, and is in force again without that."""
        return entry.number in self._undone_then.get(history.resource, ())

    def _may_stay(self, history: ResourceHistory) -> bool:
        """Whether a contract keeps what was created, or what was deleted away."""
        rules = history.contract.undo
        return rules.create.by == "keep" or rules.delete.by == "keep"

    # -- commands

    def _command(self, path: str, command: Command, after: dict[str, Json | Absent]) -> Iterator[tuple[str, str]]:
        seen = self._observed.get(command.resource)
        if seen is None or seen.exists is None:
            yield path, f"nobody knows what {command.resource} holds"
            return
        if command.resource in after:
            yield path, f"{command.resource} has a command already"
        actual: Json | Absent = seen.fields if seen.exists else ABSENT
        if command.expect_exists is not (actual is not ABSENT):
            yield f"{path}.expect_exists", "the target is not so"
        if not command.changes:
            yield path, "it changes nothing"
        places = sorted(tokens_of(change.path) for change in command.changes)
        for upper, lower in pairwise(places):  # what is at or below a place follows it at once
            if lower[: len(upper)] == upper:
                yield path, f"{path_of(lower)!r} is changed by two changes"
        for index, change in enumerate(command.changes):
            yield from self._change(f"{path}.changes[{index}]", change, actual)
        try:
            after[command.resource] = obeyed(actual, command)
        except Refused as error:
            yield path, f"the target can't do it: {error}"
            return
        yield from self._action(path, command, actual, after[command.resource])
        yield from self._foreign(path, command.resource, actual, after[command.resource])

    def _change(self, path: str, change: Change, actual: Json | Absent) -> Iterator[tuple[str, str]]:
        there = value_at(actual, tokens_of(change.path))
        if not same(there, change.expect):
            yield f"{path}.expect", "it isn't what is there"
        match change.op:
            case "set":
                if change.value is ABSENT or same(there, change.value):
                    yield path, "it is there already"
                elif type(there) is dict and type(change.value) is dict:
                    yield path, "of an object, only the members that must change are set"
            case "unset":
                if there is ABSENT:
                    yield path, "it isn't there anyway"
            case "increment":
                if change.value == 0:
                    yield path, "it is there already"
            case "add":
                if type(there) is list and any(same(item, change.value) for item in there):
                    yield path, "it is there already"
            case "remove":
                if type(there) is list and not any(same(item, change.value) for item in there):
                    yield path, "it isn't there anyway"

    def _action(
        self, path: str, command: Command, actual: Json | Absent, then: Json | Absent
    ) -> Iterator[tuple[str, str]]:
        kind = "create" if actual is ABSENT else "delete" if then is ABSENT else "patch"
        if command.action != kind:
            yield f"{path}.action", f"what it does is a {kind}"
        contract = self._estate.histories[command.resource].contract
        if command.contract != f"{contract.name}@{contract.version}":
            yield f"{path}.contract", "it is another contract's"
        if self._plan.contracts.get(contract.name) != contract.digest:
            yield "contracts", f"the plan isn't pinned to {contract.name}"
        if any(
            item.resolution == "manual" and contract.conflict_scope == "resource"
            for _, item in self._conflicts.get(command.resource, ())
        ):
            yield path, "a conflict that a person must decide holds the resource"

    def _foreign(
        self, path: str, resource: str, actual: Json | Absent, then: Json | Absent
    ) -> Iterator[tuple[str, str]]:
        """What isn't as the workflows left it is somebody else's, and nobody's to change without a decision."""
        history = self._estate.histories[resource]
        expected = self._expected(history)
        allowed = self._archiving(resource)
        for tokens, old, new in changed(actual, then):
            for place, value in ends(old, tokens) if old is not ABSENT else [(tokens, ABSENT)]:
                if any(_overlap(place, item) for item in allowed) or _is_beyond_plain(history.contract, place):
                    continue
                if new is ABSENT and _generated(history, place):
                    continue
                if not _agree(history.contract, place, known_at(expected, place), value) and not self._is_decided(
                    resource, place
                ):
                    yield path, f"it would destroy what somebody else put at {path_of(place)!r} of {resource}"

    def _archiving(self, resource: str) -> list[Tokens]:
        rule = self._estate.histories[resource].contract.undo.create
        return [tokens_of(path) for path in rule.set] if rule.by == "archive" else []

    def _is_put_away(self, resource: str, after: Mapping[str, Json | Absent]) -> bool:
        """Whether it would be gone without the work, and is archived instead."""
        rule = self._estate.histories[resource].contract.undo.create
        then = after.get(resource, self._actual(resource))
        return (
            rule.by == "archive"
            and then is not ABSENT
            and any(state is ABSENT for state in self._expected_then(resource))
            and all(same(value_at(then, tokens_of(path)), value) for path, value in rule.set.items())
        )

    def _actual(self, resource: str) -> Json | Absent:
        seen = self._observed.get(resource)
        return seen.fields if seen is not None and seen.exists else ABSENT

    def _is_decided(self, resource: str, place: Tokens) -> bool:
        return any(
            item.resolution in ("expected", "merged") and _overlap(place, tokens)
            for tokens, item in self._conflicts.get(resource, ())
        )

    # -- results

    def _expected(self, history: ResourceHistory) -> Known:
        """What is expected now."""
        if history.resource not in self._before:
            self._before[history.resource] = self._without(history, undone_of(history.entries))
        return self._before[history.resource]

    def _expected_then(self, resource: str) -> tuple[Known, ...]:
        """What is expected without what its step undoes. Where values are written in steps, two states: what is left of a step
        without others may be nothing, and then it makes no object to stand in either."""
        if resource not in self._wanted:
            history, undone = self._estate.histories[resource], self._undone_then[resource]
            bare = frozenset(tokens_of(path) for path, kind in history.contract.kinds.items() if kind in STEPPED)
            states = [self._without(history, undone)]
            if bare:
                states.append(self._without(history, undone, bare))
            self._wanted[resource] = tuple(states)
        return self._wanted[resource]

    def _without(
        self, history: ResourceHistory, undone: AbstractSet[int], bare: AbstractSet[Tokens] = frozenset()
    ) -> Known:
        return replayed(history.entries, undone, base_in(history.base.tree), bare)

    def _resource(
        self, resource: str, step: PlannedStep, after: Mapping[str, Json | Absent]
    ) -> Iterator[tuple[str, str]]:
        """What is there in the end is what would be there without the undone writes, wherever these made a difference."""
        if step.is_held:
            if not any(item.resolution == "manual" for _, item in self._conflicts.get(resource, ())):
                yield f"steps of {resource}", "it is held, and no conflict says why"
            return
        found = [list(self._result(resource, wanted, after)) for wanted in self._expected_then(resource)]
        if all(found):
            yield from found[0]

    def _result(self, resource: str, wanted: Known, after: Mapping[str, Json | Absent]) -> Iterator[tuple[str, str]]:
        history, seen = self._estate.histories[resource], self._observed.get(resource)
        places = list(_differing((), self._expected(history), wanted))
        if seen is None or seen.exists is None:
            if places:
                yield f"steps of {resource}", "nobody knows what it holds"
            return
        actual = self._actual(resource)
        then = after.get(resource, actual)
        if self._archiving(resource) and wanted is ABSENT:
            return
        for place, node in places:
            if _is_beyond_plain(history.contract, place):
                continue
            if not _is_reached(history.contract, place, node, value_at(then, place)) and not any(
                _overlap(place, tokens) for tokens, _ in self._conflicts.get(resource, ())
            ):
                yield f"steps of {resource}", f"{path_of(place)!r} doesn't become what would be there without the work"
        for tokens, _, _ in changed(actual, then):
            if _is_beyond_plain(history.contract, tokens):
                continue
            if not any(_overlap(tokens, place) for place, _ in places) and not self._is_decided(resource, tokens):
                yield (
                    f"steps of {resource}",
                    f"{path_of(tokens)!r} is none of the places that the work made a difference to",
                )

    def _kept(self, after: Mapping[str, Json | Absent]) -> Iterator[tuple[str, str]]:
        """What is kept, unchanged or left to people isn't touched."""
        for index, kept in enumerate(self._plan.kept):
            if kept.owner in self._undone:
                yield f"kept[{index}]", "it is kept for an operation that is undone"
            place = tokens_of(kept.path)
            stands = kept.resource in after and same(value_at(after[kept.resource], place), kept.value)
            if not stands:  # where somebody else's value stands there, a person may have it put right
                yield from self._untouched(f"kept[{index}]", kept.resource, place, after)
        for index, item in enumerate(self._plan.unchanged):
            yield from self._untouched(f"unchanged[{index}]", item.resource, tokens_of(item.path), after)
        for index, conflict in enumerate(self._plan.conflicts):
            if conflict.resolution in ("manual", "actual"):
                place = tokens_of(conflict.path)
                seen = self._observed[conflict.resource]
                if not same(conflict.actual, value_at(seen.fields if seen.exists else ABSENT, place)):
                    yield f"conflicts[{index}].actual", "it isn't what is there"
                yield from self._untouched(f"conflicts[{index}]", conflict.resource, place, after)

    def _untouched(
        self, path: str, resource: str, place: Tokens, after: Mapping[str, Json | Absent]
    ) -> Iterator[tuple[str, str]]:
        seen = self._observed.get(resource)
        if seen is None or resource not in after:
            return
        old, new = value_at(seen.fields if seen.exists else ABSENT, place), value_at(after[resource], place)
        both_objects = type(old) is dict and type(new) is dict  # of an object, the members speak for themselves
        if not both_objects and not same(old, new) and not self._archiving(resource):
            yield path, "the plan changes it all the same"


def _digest(plan: Plan) -> str:
    """The digest of all that a plan would do and leave undone: everything but the status, the consent and the story."""
    told = ("status", "approvals_needed", "plan_hash", "story", "story_parts")
    blank = {"status": "executable", "approvals_needed": [], "plan_hash": "", "story": ""}
    content = msgspec.to_builtins(plan)
    content = {name: blank.get(name, {}) if name in told else value for name, value in content.items()}
    content["story_parts"] = {"opening": "", "sections": [], "counts": {}}
    return hashlib.blake2b(canonical(content), digest_size=32).hexdigest()


def _numbered(history: ResourceHistory) -> dict[int, Entry]:
    return {entry.number: entry for entry in history.entries}


def _is_beyond_plain(contract: Contract, place: Tokens) -> bool:
    """Whether there are values, at, above or below a place, that are written in steps: of these a plain replay can't say
    what they would be without some of the steps."""
    return any(kind in STEPPED and _overlap(place, tokens_of(path)) for path, kind in contract.kinds.items())


def _generated(history: ResourceHistory, place: Tokens) -> bool:
    return any(history.contract.rule(path_of(place[:length])).generated for length in range(1, len(place) + 1))


def _agree(contract: Contract, place: Tokens, node: Known, value: Json | Absent) -> bool:
    """Whether a value is what is expected at a place, as equal as the contract wants it."""
    return (type(node) is Tree and type(value) is dict) or _is_equivalent(contract, place, node, value)


def _is_equivalent(contract: Contract, place: Tokens, node: Known, value: Json | Absent) -> bool:
    whole = value_in(node)
    return whole is not UNKNOWN and equivalent(whole, value, contract.rule(path_of(place)).normalise)


def _differing(tokens: Tokens, before: Known, wanted: Known) -> Iterator[tuple[Tokens, Known]]:
    """The places at which two states say different things, and what the second says there."""
    if type(before) is Tree and type(wanted) is Tree:
        for name in sorted(before.members.keys() | wanted.members.keys()):
            yield from _differing((*tokens, name), member_of(before, name), member_of(wanted, name))
    elif type(before) is Tree or type(wanted) is Tree or UNKNOWN in (before, wanted):
        if before is not wanted:
            yield tokens, wanted
    elif not same(before, wanted):
        yield tokens, wanted


def _is_reached(contract: Contract, tokens: Tokens, node: Known, value: Json | Absent) -> bool:
    """Whether a value is what a state says where another was said before; of what it doesn't know, nothing is asked. Nor of
    what is absent in an object that wasn't one before: it was absent there as well, so what stands there is somebody's."""
    if node is UNKNOWN:
        return True
    if type(node) is Tree and type(value) is dict:
        return all(
            _is_reached(contract, (*tokens, name), member, value.get(name, ABSENT))
            for name, member in node.members.items()
            if member is not ABSENT
        )
    return _is_equivalent(contract, tokens, node, value)


def _overlap(one: Tokens, other: Tokens) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
