"""Actions of one resource, and random logs of them whose `before` may say anything at all."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from reconciler.json_form import complete_action
from reconciler.records import Action, operation_of
from reconciler.values.json_value import Json
from tests.core.dice import Dice

RESOURCE = "crm/contact/42"


def make_action(number: int, **fields: Any) -> Action:
    """An action of a step of its own."""
    given: dict[str, Any] = {
        "stage": "succeeded",
        "run_id": "run",
        "step_id": f"step-{number}",
        "occurred_at": number * 1_000_000,
        "resource": RESOURCE,
        "operation": "update",
    }
    return complete_action(Action(**(given | {"action_id": f"action-{number}"} | fields)))


def pointer(tokens: tuple[str, ...]) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def make_reversal(number: int, undone: str, by: str = "", reverses: str | None = None) -> Action:
    """What a rollback `by` writes when it undoes an operation; without `by`, what somebody writes who just says that it is
    undone."""
    run_id, step_id = (by, "undo") if by else undone.split("/", 1)
    return make_action(number, stage="reversed", operation_id=undone, run_id=run_id, step_id=step_id, reverses=reverses)


@st.composite
def logs_with_undos(draw: st.DrawFn, max_size: int = 6) -> list[Action]:
    """Wild actions, some of them retries of one operation, and among them undos, also of undos."""
    dice = Dice(draw)
    log: list[Action] = []
    for action in draw(wild_actions(max_size)):
        name = dice.pick(log).operation_id if log and dice.one_in(4) else action.operation_id
        log.append(msgspec.structs.replace(action, operation_id=name))
        for _ in range(dice.below(3)):
            undone = dice.pick(log)
            by = dice.pick(["", "undo-a", "undo-b"])
            reverses = undone.action_id if dice.one_in(2) else None
            log.append(make_reversal(100 + len(log), operation_of(undone), by, reverses))
    return log


@st.composite
def wild_actions(draw: st.DrawFn, max_size: int = 8) -> list[Action]:
    """Actions whose `before` may say anything."""
    dice = Dice(draw)
    actions = []
    for number in range(1, 2 + dice.below(max_size)):
        operation = dice.pick(["update", "update", "update", "update", "create", "delete", "effect"])
        set_, unset, before = {}, [], None
        if operation in ("create", "update"):
            set_ = {pointer(dice.anywhere()): dice.value() for _ in range(dice.below(4))}
            if dice.one_in(10):
                set_[""] = dice.object()
        if operation == "update":
            unset = sorted({pointer(dice.anywhere()) for _ in range(dice.below(3))} - set_.keys())
        if operation != "create" and not dice.one_in(4):
            named = [pointer(dice.anywhere()) for _ in range(dice.below(3))]
            written = dice.some([*set_, *unset])
            before = {path: dice.value() if path else dice.object() for path in [*named, *written]}
            if dice.one_in(6):
                before[""] = dice.object()
        actions.append(make_action(number, operation=operation, set=set_, unset=unset, before=before))
    return actions


@st.composite
def flat_updates(draw: st.DrawFn, max_size: int = 8) -> list[Action]:
    """Updates of three members of a resource, most of which say truly what was there before."""
    dice = Dice(draw)
    actions: list[Action] = []
    known: dict[str, Json] = {}
    for number in range(1, 2 + dice.below(max_size)):
        set_ = {path: dice.value() for path in dice.some(["/a", "/b", "/c"])}
        before = {path: known[path] for path in set_ if path in known}
        if dice.one_in(4):
            before |= {path: dice.value() for path in dice.some(["/a", "/b", "/d"])}
        known |= set_
        actions.append(make_action(number, set=set_, before=before))
    return actions
