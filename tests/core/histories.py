"""Random histories of one resource, for hypothesis: some tell the truth about what was there before, some anything at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconciler.json_form import complete_action
from reconciler.records import Action
from reconciler.values.json_value import Json

RESOURCE = "crm/contact/42"

NAMES = st.sampled_from(["a", "b", "c", "", "a/b", "~"])
SCALARS = st.sampled_from([None, True, 0, 1, 1.0, "1", "", "x"])
VALUES: st.SearchStrategy[Json] = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=2) | st.just({}),
    lambda inner: st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "".join("/" + _escape(name) for name in names))


def make_action(number: int, **fields: Any) -> Action:
    """An action of a step of its own."""
    given = {
        "stage": "succeeded",
        "run_id": "run",
        "step_id": f"step-{number}",
        "occurred_at": number * 1_000_000,
        "resource": RESOURCE,
        "operation": "update",
    }
    return complete_action(Action(**(given | {"action_id": f"action-{number}"} | fields)))


@st.composite
def wild_actions(draw: st.DrawFn, max_size: int = 8) -> list[Action]:
    """Actions whose `before` may say anything."""
    actions = []
    for number in range(1, draw(st.integers(1, max_size)) + 1):
        operation = draw(st.sampled_from(["create", "update", "update", "update", "update", "delete", "effect"]))
        set_ = draw(st.dictionaries(PATHS, VALUES, max_size=3)) if operation in ("create", "update") else {}
        drawn = draw(st.lists(PATHS, max_size=2, unique=True)) if operation == "update" else []
        unset = [path for path in drawn if path not in set_]
        before = draw(
            st.none() | st.dictionaries(PATHS | st.sampled_from([*set_, *unset] or ["/a"]), VALUES, max_size=3)
        )
        if operation == "create":
            before = None
        actions.append(make_action(number, operation=operation, set=set_, unset=unset, before=before))
    return actions
