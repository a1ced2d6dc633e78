"""The form of a scenario file: a YAML list of cases, read as strictly as a contract.

What is usual is short: an action needs a `step`, the rest has defaults; instants are seconds after START, or whole ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from reconciler.contracts.errors import ContractError, Fault
from reconciler.contracts.loader import Source
from reconciler.contracts.shapes import BAD, Items, Key, Keys, Reading, Shape, Text, shown
from reconciler.contracts.yaml_tree import Node, UnreadableError, place_of, plain, read_tree
from reconciler.json_form import action_from_json, observation_from_json
from reconciler.plan.model import Plan
from reconciler.plan.request import request_from_json
from reconciler.records import Action, Observation, RollbackRequest
from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND, Instant, format_instant, parse_instant
from reconciler.values.json_value import Json
from reconciler.values.words import nearest

START: Final = parse_instant("2026-05-03T10:00:00Z")
"""The instant from which seconds count."""
STEP_S: Final = 60
"""How long after the one before it an action happens that says nothing else."""
OBSERVED_S: Final = 100_000
"""When the actual state was observed, if nothing else is said: long after every write."""

RUN: Final = "run-1"
ROLLBACK: Final = "rollback-1"
UNOBSERVED: Final = "unobserved"

_R = TypeVar("_R")


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One case, ready to be run. ``expect`` holds, by what was computed, what is expected of it."""

    file: str
    line: int
    name: str
    actions: tuple[Action, ...]
    observations: tuple[Observation, ...]
    request: RollbackRequest | None
    now: Instant | None
    expect: dict[str, Json]


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case as it stands in the file."""

    name: str
    why: str = ""
    actions: tuple[Node, ...] = ()
    actual: Node | None = None
    seen: Node | None = None
    observations: tuple[Node, ...] = ()
    undo: Node | None = None
    now: Node | None = None
    expect: Node


class _Raw(Shape):
    """A mapping or list that is read later."""

    def __init__(self, *kinds: type) -> None:
        self._kinds = kinds

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if type(node.value) in self._kinds:
            return node
        wanted = " or ".join(_KINDS[kind] for kind in self._kinds)
        return reading.refuse(node.place, f"{name} must be {wanted}, not {shown(node)}")


_KINDS: Final = {dict: "a mapping", list: "a list", int: "seconds", float: "seconds", str: "an instant"}

_CASES: Final = Items(
    Keys(
        _Case,
        {
            "name": Key(Text(), "What happens, and what comes of it.", True),
            "why": Key(Text(longest=2_000), "The reason why it must be so."),
            "actions": Key(Items(_Raw(dict), most=10_000), "What workflows did, in order."),
            "actual": Key(_Raw(dict), "What the targets hold, by resource."),
            "seen": Key(_Raw(dict), "More about these observations, by resource."),
            "observations": Key(Items(_Raw(dict), most=10_000), "Earlier observations."),
            "undo": Key(_Raw(list, dict), "The operations to undo, or a whole request."),
            "now": Key(_Raw(int, float, str), "When the plan is made."),
            "expect": Key(_Raw(dict), "What must come of it.", True),
        },
    ),
    least=1,
    most=10_000,
)
_LINE_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "fold": ("exists", "fields", "owners"),
    "diff": ("verdict", "changes", "command"),
}
"""What can be expected of a line of `fold` and `diff`."""
_PLAN_KEYS: Final = (*Plan.__struct_fields__, "changes", "compensations")
"""What can be expected of a plan: what it has, and two views of its commands."""
_PARTS: Final = (*_LINE_KEYS, "plan", "after")


def scenarios_of(source: Source) -> list[Scenario]:
    """The scenarios of a file. Raises ContractError with all of its faults."""
    faults: list[Fault] = []
    try:
        tree = read_tree(source.text, source.file, faults)
    except UnreadableError as error:
        raise ContractError([error.fault]) from None
    reading = Reading(source.file, faults)
    cases = _CASES.read(tree, "a scenario file", reading)
    scenarios = []
    if cases is not BAD:
        assert isinstance(tree.value, list)
        scenarios = [_scenario(case, node, reading) for case, node in zip(cases, tree.value, strict=True)]
        _no_name_twice(cases, tree.value, reading)
    if faults:
        raise ContractError(sorted(faults))
    return scenarios


def _no_name_twice(cases: tuple[_Case, ...], nodes: list[Node], reading: Reading) -> None:
    seen: dict[str, int] = {}
    for case, node in zip(cases, nodes, strict=True):
        line = place_of(node, "name")[0]
        if case.name in seen:
            reading.refuse(
                place_of(node, "name"),
                f"the name {case.name!r} stands in line {seen[case.name]} as well; give each its own",
            )
        seen.setdefault(case.name, line)


def _scenario(case: _Case, node: Node, reading: Reading) -> Scenario:
    return Scenario(
        file=reading.file,
        line=place_of(node, "name")[0],
        name=case.name,
        actions=tuple(_actions(case, reading)),
        observations=tuple(_observations(case, reading)),
        request=None if case.undo is None else _request(case.undo, reading),
        now=None if case.now is None else _instant(case.now, "now", reading),
        expect=_expectation(case, reading),
    )


def _expectation(case: _Case, reading: Reading) -> dict[str, Json]:
    expect = case.expect
    assert isinstance(expect.value, dict)
    if not expect.value:
        reading.refuse(expect.place, f"expect must say something; use {', '.join(_PARTS)}")
    for name in expect.value:
        if name not in _PARTS:
            reading.refuse(expect.keys[name], f"expect has no key {name!r}; {nearest(name, _PARTS)}")
        elif name in ("plan", "after") and case.undo is None:
            reading.refuse(expect.keys[name], f"expect.{name} needs undo, which says what is undone")
        elif not isinstance(expect.value[name].value, dict):
            reading.refuse(
                expect.keys[name], f"expect.{name} must be a mapping, not {shown(expect.value[name])}; write {{a: b}}"
            )
        else:
            _check_keys(name, expect.value[name], reading)
    return {name: plain(member) for name, member in expect.value.items()}


def _check_keys(part: str, node: Node, reading: Reading) -> None:
    """A misspelt key would be a comparison that never fails."""
    assert isinstance(node.value, dict)
    if part == "plan":
        _no_other_keys("expect.plan", node, _PLAN_KEYS, reading)
    elif part in _LINE_KEYS:
        for resource, line in node.value.items():
            if isinstance(line.value, dict):
                _no_other_keys(f"expect.{part} of {resource}", line, _LINE_KEYS[part], reading)
            else:
                reading.refuse(
                    line.place, f"expect.{part} of {resource} must be a mapping with {', '.join(_LINE_KEYS[part])}"
                )


def _no_other_keys(name: str, node: Node, known: tuple[str, ...], reading: Reading) -> None:
    assert isinstance(node.value, dict)
    for key in node.value:
        if key not in known:
            reading.refuse(node.keys[key], f"{name} has no key {key!r}; {nearest(key, known)}")


# -- what happened


def _actions(case: _Case, reading: Reading) -> list[Action]:
    actions = []
    at = START
    for node in case.actions:
        assert isinstance(node.value, dict)
        at += STEP_S * SECOND
        if "at" in node.value:
            at = _instant(node.value["at"], "at", reading) or at
        action = _read(node, partial(_action, at), reading, _ACTION_KEYS)
        if action is not None:
            actions.append(action)
    return actions


_ACTION_KEYS: Final = {"run_id": "run", "step_id": "step", "operation": "op", "occurred_at": "at"}


def _action(at: Instant, data: dict[str, Json]) -> Action:
    """The action of which the file has the short form; names of the long one may stand in it."""
    rest = {name: value for name, value in data.items() if name not in ("run", "step", "op", "at")}
    short = {
        "stage": "succeeded",
        "run_id": data.get("run", RUN),
        "operation": data.get("op", "update"),
        "occurred_at": format_instant(at),
    }
    return action_from_json(short | ({"step_id": data["step"]} if "step" in data else {}) | rest)


def _observations(case: _Case, reading: Reading) -> list[Observation]:
    result = []
    for node in case.observations:
        result.append(_observation(node, {"exists": True}, plain(node), reading))
    seen = {} if case.seen is None else case.seen.value
    assert isinstance(seen, dict)
    actual = {} if case.actual is None else case.actual.value
    assert isinstance(actual, dict)
    for resource, node in seen.items():
        if resource not in actual or not isinstance(node.value, dict):
            assert case.seen is not None
            reading.refuse(
                case.seen.keys[resource], f"seen must tell more about a resource of actual, not {resource!r}"
            )
    for resource, node in actual.items():
        data: dict[str, Json] = {"resource": resource, "exists": True, "at": OBSERVED_S}
        if node.value == UNOBSERVED:
            data |= {"exists": None, "reason": "the scenario says so"}
        elif node.value is None:
            data["exists"] = False
        elif isinstance(node.value, dict):
            data["fields"] = plain(node)
        else:
            reading.refuse(
                node.place,
                f"the actual state of {resource} must be its fields, null or {UNOBSERVED}, not {shown(node)}",
            )
            continue
        more = seen.get(resource)
        about = node if more is None else more
        extra = plain(more) if more is not None and isinstance(more.value, dict) else {}
        result.append(_observation(about, data, extra, reading))
    return [observation for observation in result if observation is not None]


def _observation(node: Node, usual: dict[str, Json], said: dict[str, Json], reading: Reading) -> Observation | None:
    data = usual | said
    members = node.value if isinstance(node.value, dict) else {}
    data["observed_at"] = data.pop("at", OBSERVED_S)
    for name, key in (("observed_at", "at"), ("modified_at", "modified_at")):
        if isinstance(data.get(name), int | float):
            data[name] = _instant(Node(data[name], members[key].place if key in members else node.place), key, reading)
            data[name] = None if data[name] is None else format_instant(data[name])
    return _read(node, lambda _: observation_from_json(data), reading, {"observed_at": "at"})


def _request(node: Node, reading: Reading) -> RollbackRequest | None:
    def read(data: Json) -> RollbackRequest:
        if isinstance(data, list):
            data = {"select": {"operations": [_operation(name) for name in data]}}
        return request_from_json({"rollback_id": ROLLBACK, **data})

    return _read(node, read, reading, {})


def _operation(name: Json) -> Json:
    return operation_id(name) if isinstance(name, str) else name


def operation_id(name: str) -> str:
    """An operation by its whole name, or by its step alone."""
    return name if "/" in name else f"{RUN}/{name}"


def _instant(node: Node, name: str, reading: Reading) -> Instant | None:
    value = node.value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10:
        return START + round(value * SECOND)
    try:
        if isinstance(value, str):
            return parse_instant(value)
    except InputError:
        pass
    reading.refuse(node.place, f"{name} must be seconds after {format_instant(START)} or an instant, not {shown(node)}")
    return None


def _read(node: Node, read: Callable[[Any], _R], reading: Reading, keys: dict[str, str]) -> _R | None:
    """Reads a record of a node's plain value; what is wrong with it is a fault at the key that is to blame."""
    try:
        return read(plain(node))
    except InputError as error:
        first = error.field.partition(".")[0].partition("[")[0]
        key = keys.get(first, first)
        is_there = isinstance(node.value, dict) and key in node.value
        place = place_of(node, key) if is_there else node.place
        reading.refuse(place, f"{error.field.replace(first, key, 1)}: {error.message}" if first else error.message)
    return None
