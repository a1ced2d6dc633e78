"""What the expressions of a contract can speak about: variables, their members, functions; and samples to try them on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from reconciler.values.json_value import Json

FUNCTIONS: Final = frozenset(
    {
        "has", "size", "contains", "startsWith", "endsWith", "matches",
        "int", "uint", "double", "string", "timestamp", "duration",
        "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
        "getHours", "getMinutes", "getSeconds", "getMilliseconds",
    }
)  # fmt: skip
"""All that exist in the engine and whose work is in proportion to what they are given."""

_ANY: Final = None
_SCALAR: Final[frozenset[str]] = frozenset()


class Vocabulary(msgspec.Struct, frozen=True):
    """``members`` gives the variables with the members that each has: none for a scalar, None where anything goes.

    ``elements`` does so for the members of lists. ``is_typed``: every fact has one type, so that a rule that fails on a
    sample fails always. ``free``: the member of variables that can be any JSON at all, where there is one.
    """

    name: str
    members: Mapping[str, frozenset[str] | None]
    elements: Mapping[str, frozenset[str]]
    samples: tuple[Mapping[str, Json], ...]
    is_typed: bool
    free: str | None = None


_OPERATION: Final[dict[str, Any]] = {
    "operation_id": "run-1/step-1",
    "run_id": "run-1",
    "step_id": "step-1",
    "workflow_id": "intake",
    "actor": {"id": "ana@example.com", "kind": "user"},
    "occurred_at": "2026-05-03T10:00:00Z",
    "resource": "crm/contact/42",
    "operation": "update",
    "age_s": 60.5,
}


def _plan(operations: list[dict[str, Any]]) -> dict[str, Json]:
    age_s = max((operation["age_s"] for operation in operations), default=0.0)
    return {
        "operations": operations,
        "resources": len(operations),
        "destructive": 0,
        "fields": len(operations),
        "actor": {"id": "ben@example.com", "kind": "user"},
        "age_s": age_s,
        "age": age_s,
    }


PLAN: Final = Vocabulary(
    name="a plan",
    members={
        "operations": _SCALAR,
        "resources": _SCALAR,
        "destructive": _SCALAR,
        "fields": _SCALAR,
        "actor": frozenset({"id", "kind"}),
        "age_s": _SCALAR,
        "age": _SCALAR,
    },
    elements={"operations": frozenset(_OPERATION)},
    samples=(_plan([_OPERATION]), _plan([])),
    is_typed=True,
)
"""``operations``, counts of ``resources``, ``destructive`` commands and changed ``fields``, the requester as ``actor``, and the
oldest operation's age in seconds as ``age_s``, or ``age``."""


_SIDE: Final = frozenset({"value", "owner", "owner_kind", "written_at"})


def _conflicts() -> Iterator[dict[str, Json]]:
    owner = {"owner": "ana@example.com", "owner_kind": "user"}
    for value in ("text", 1, 1.5, True, None, [], ["text"], {}, {"name": "text"}):
        expected = {"value": value, **owner, "written_at": "2026-05-03T10:00:00Z"}
        actual = {"value": value, **owner, "modified_at": "2026-05-03T11:00:00Z", "exists": True}
        yield {"path": "/phone", "before": expected, "after": expected, "expected": expected, "actual": actual}


CONFLICT: Final = Vocabulary(
    name="a conflict",
    members={
        "path": _SCALAR,
        "before": _SIDE,
        "after": _SIDE,
        "expected": _SIDE,
        "actual": frozenset({"value", "owner", "owner_kind", "modified_at", "exists"}),
    },
    elements={},
    samples=tuple(_conflicts()),
    is_typed=False,
    free="value",
)
"""The ``path``; what was expected ``before`` the undo and is ``after`` it (also called ``expected``); and ``actual``."""
