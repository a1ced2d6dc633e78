"""Corrections, held against simulated targets: what a correction leaves is what the workflows wrote, and nobody else's field is
touched."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet, Existence, FieldRule
from reconciler.json_form import from_json
from reconciler.offline import diffed, folded
from reconciler.records import Command
from reconciler.targets.apply import Refusal, decide
from reconciler.values.json_value import ABSENT, Absent, Json, same
from tests.core.oracle import at, ends, obeyed, place, put
from tests.core.worlds import World, observed, worlds

CORRECTING = ContractSet(
    (
        Contract(
            name="*",
            fields={"/*": FieldRule(drift="correct")},
            existence=Existence(missing="correct", unexpected="correct"),
        ),
    )
)
REPORTING = ContractSet(())
WORLDS = worlds(telling=("written", "whole", "nothing"), externals=True)


@st.composite
def drifted(draw: st.DrawFn) -> World:
    """A world in which somebody changed, or took away, some of the fields that workflows wrote."""
    world = draw(WORLDS)
    for tokens in draw(st.lists(st.sampled_from(sorted(owned(world)) or [()]), max_size=3, unique=True)):
        if tokens and isinstance(at(world.actual, tokens[:-1]), dict):
            world.actual = put(world.actual, tokens, draw(st.sampled_from(["edited", ABSENT, None])))
    return world


def judged(world: World, actual: Json | Absent, contracts: ContractSet = CORRECTING) -> dict[str, Any]:
    (line,) = diffed(world.actions, [observed(actual, 1_000_000)], contracts)
    return line


def command_of(line: dict[str, Any]) -> Command | None:
    return None if line["command"] is None else from_json(Command, line["command"])


def owned(world: World) -> dict[tuple[str, ...], Json]:
    """The fields that a workflow's write still determines, and what it wrote."""
    (line,) = folded(world.actions, REPORTING)
    return {
        place(path): value
        for path, value in line["fields"].items()
        if any(owner != "external" for owner in line["owners"].get(path, ()))
    }


@given(drifted())
def test_a_correction_leaves_what_the_workflows_wrote(world: World) -> None:
    line = judged(world, world.actual)
    command = command_of(line)
    assert (command is None) is (line["verdict"] in ("in_sync", "unknown"))
    if command is None:
        return
    after = obeyed(world.actual, command)
    for tokens, value in owned(world).items():
        if after is not ABSENT:
            assert same(at(after, tokens), value) or (value == {} and isinstance(at(after, tokens), dict)), tokens
    if after != {}:  # which says nothing
        assert judged(world, after)["verdict"] == "in_sync"
    once = decide(world.actual, "v9", command)
    assert not isinstance(once, Refusal) and same(once, after)
    twice = decide(once, "v10", command)
    assert not isinstance(twice, Refusal) and same(twice, after), "a second application changes something"


@given(drifted())
def test_a_correction_touches_nothing_but_what_has_drifted(world: World) -> None:
    line = judged(world, world.actual)
    command = command_of(line)
    if command is None or command.action != "patch":
        return
    after = obeyed(world.actual, command)
    drifted = [place(change["path"]) for change in line["changes"]]
    assert drifted == [place(change.path) for change in command.changes]
    for tokens, value in ends(world.actual):
        if not any(tokens[: len(other)] == other or other[: len(tokens)] == tokens for other in drifted):
            assert same(at(after, tokens), value), tokens


@given(drifted())
def test_no_change_can_be_taken_out_of_a_correction(world: World) -> None:
    command = command_of(judged(world, world.actual))
    if command is None or command.action != "patch" or len(command.changes) < 2:
        return
    for left_out in command.changes:
        changes = [change for change in command.changes if change is not left_out]
        fewer = obeyed(world.actual, msgspec.structs.replace(command, changes=changes))
        line = judged(world, fewer)
        assert line["verdict"] == "unknown" or [change["path"] for change in line["changes"]] == [left_out.path]


@given(WORLDS)
def test_what_is_only_reported_is_the_same_and_makes_no_command(world: World) -> None:
    correcting, reporting = judged(world, world.actual), judged(world, world.actual, REPORTING)
    assert reporting["command"] is None
    assert reporting["verdict"] == correcting["verdict"]
    assert [change["path"] for change in reporting["changes"]] == [change["path"] for change in correcting["changes"]]
    assert {change["policy"] for change in reporting["changes"]} <= {"report"}


@given(WORLDS, st.sampled_from([None, {}]))
def test_what_wasnt_really_observed_is_never_drift(world: World, nothing: Any) -> None:
    """`None`: it could not be observed; `{}`: it is said to be there, with nothing in it."""
    seen = observed({}, 1_000_000)
    if nothing is None:
        seen = msgspec.structs.replace(seen, exists=None)
    (line,) = diffed(world.actions, [seen], CORRECTING)
    if nothing is None or owned(world):
        assert (line["verdict"], line["changes"], line["command"]) == ("unknown", [], None)
