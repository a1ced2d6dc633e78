"""Running a scenario: what the commands `fold`, `diff`, `plan` and `apply` compute of it, held against what is expected.

A plan is shown here as people speak of it: its commands as `patch crm/contact/42`, what is blocked by operation and rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.json_form import to_json
from reconciler.offline import applied, diffed, folded, latest_observations, planned
from reconciler.plan.model import Plan
from reconciler.records import Command, Observation
from reconciler.scenarios.difference import Difference, differences, exact
from reconciler.scenarios.form import Scenario, operation_id
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, Json


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a scenario: it holds where there are no differences and nothing ``refused``."""

    scenario: Scenario
    differences: tuple[Difference, ...] = ()
    refused: str | None = None
    """Why there was nothing to compare: the sentence of an input error."""

    @property
    def holds(self) -> bool:
        """Whether all is as expected."""
        return not self.differences and self.refused is None


def try_scenario(scenario: Scenario, contracts: ContractSet) -> Verdict:
    """Runs a scenario under contracts."""
    try:
        return Verdict(scenario=scenario, differences=tuple(_differences(scenario, contracts)))
    except InputError as error:
        return Verdict(scenario=scenario, refused=str(error))


def _differences(scenario: Scenario, contracts: ContractSet) -> Iterator[Difference]:
    expect = scenario.expect
    if "fold" in expect:
        yield from _lines(expect["fold"], folded(scenario.actions, contracts), "fold")
    if "diff" in expect:
        yield from _lines(expect["diff"], diffed(scenario.actions, scenario.observations, contracts), "diff")
    if scenario.request is None or not expect.keys() & {"plan", "after"}:
        return
    plan = planned(scenario.actions, scenario.observations, scenario.request, contracts, scenario.now)
    yield from _plan_differences(expect.get("plan", {}), plan)
    if "after" in expect:
        yield from _after_differences(expect["after"], plan, latest_observations(scenario.observations))


def _lines(expected: dict[str, Json], lines: Iterable[dict[str, Json]], place: str) -> Iterator[Difference]:
    """Results of a line a resource: all of them are compared, those that nobody expected too."""
    by_resource = {line["resource"]: line for line in lines}
    for resource in {**expected, **by_resource}:
        yield from differences(expected.get(resource, ABSENT), by_resource.get(resource, ABSENT), f"{place} {resource}")


def _after_differences(expected: dict[str, Json], plan: Plan, before: dict[str, Observation]) -> Iterator[Difference]:
    """What the resources hold when the plan was carried out; those of which nothing is said must be untouched."""
    refusals: list[str] = []
    after = applied(plan, before, refusals)
    if refusals:
        yield Difference("after", [], list(refusals))
    for resource in {**expected, **after}:
        place = f"after {resource}"
        actual = _held(after.get(resource))
        if resource in expected:
            yield from exact(expected[resource], actual, place)
        elif after[resource] != before[resource]:
            yield Difference(place, _held(before[resource]), actual)


def _held(observation: Observation | None) -> Json | Absent:
    if observation is None:
        return ABSENT
    return observation.fields if observation.exists else None


# -- a plan, as people speak of it


def _plan_differences(expected: dict[str, Json], plan: Plan) -> Iterator[Difference]:
    shown = to_json(plan)
    commands = [command for wave in plan.waves for command in wave]
    for name, value in expected.items():
        place = f"plan.{name}"
        if name in ("notes", "story"):
            yield from _mentioned(value, shown[name], place)
        elif name in _VIEWS:
            yield from _VIEWS[name](value, plan, commands, place)
        else:
            yield from differences(value, shown.get(name, ABSENT), place)


def _mentioned(expected: Json, actual: Json, place: str) -> Iterator[Difference]:
    """Texts of which each must stand somewhere in a text, or in one of several."""
    told = actual if isinstance(actual, list) else [actual]
    for text in expected if isinstance(expected, list) else [expected]:
        if not any(str(text) in item for item in told):
            yield Difference(place, text, actual)


def _waves(expected: Json, plan: Plan, _commands: list[Command], place: str) -> Iterator[Difference]:
    told = [[f"{command.action} {command.resource}" for command in wave] for wave in plan.waves]
    yield from differences(expected, told, place)


def _changes(expected: Json, _plan: Plan, commands: list[Command], place: str) -> Iterator[Difference]:
    """The changes of all commands: by resource, or where there is one command as its list."""
    told = {
        command.resource: [to_json(change) for change in command.changes] for command in commands if command.changes
    }
    if isinstance(expected, list):
        listed = [change for changes in told.values() for change in changes]
        yield from differences(expected, listed, place)
        return
    for resource in {**(expected or {}), **told}:
        yield from differences(
            (expected or {}).get(resource, ABSENT), told.get(resource, ABSENT), f"{place} {resource}"
        )


def _blocked(expected: Json, plan: Plan, _commands: list[Command], place: str) -> Iterator[Difference]:
    """The rules by operation. A list of whole entries is compared as it is."""
    if not isinstance(expected, dict):
        yield from differences(expected, [to_json(item) for item in plan.blocked], place)
        return
    named = {operation_id(name): rule for name, rule in expected.items()}
    told: dict[str, Json] = {item.operation_id: item.rule for item in plan.blocked}
    for name in {**named, **told}:
        yield from differences(named.get(name, ABSENT), told.get(name, ABSENT), f"{place} {name}")


def _unchanged(expected: Json, plan: Plan, _commands: list[Command], place: str) -> Iterator[Difference]:
    yield from differences(expected, [item.path for item in plan.unchanged], place)


def _operations(expected: Json, plan: Plan, _commands: list[Command], place: str) -> Iterator[Difference]:
    named = [operation_id(name) if isinstance(name, str) else name for name in expected or []]
    yield from differences(named, plan.operations, place)


def _compensations(expected: Json, _plan: Plan, commands: list[Command], place: str) -> Iterator[Difference]:
    told = {
        command.compensation.name: command.compensation.arguments
        for command in commands
        if command.compensation is not None
    }
    yield from exact(expected, told, place)


_VIEWS: Final[dict[str, Callable[[Json, Plan, list[Command], str], Iterator[Difference]]]] = {
    "waves": _waves,
    "changes": _changes,
    "blocked": _blocked,
    "unchanged": _unchanged,
    "operations": _operations,
    "compensations": _compensations,
}
