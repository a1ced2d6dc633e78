"""Conflicts in words: what somebody else changed meanwhile, and what became of it."""

from __future__ import annotations

from typing import Protocol

from reconciler.plan.model import PlannedConflict
from reconciler.plan.wording import Wording
from reconciler.values.json_value import ABSENT, Absent, Json


class _Conflict(Protocol):
    """What a planned conflict and one that a resource reports have in common."""

    @property
    def path(self) -> str: ...
    @property
    def before(self) -> Json | Absent: ...
    @property
    def after(self) -> Json | Absent: ...
    @property
    def actual(self) -> Json | Absent: ...


def found(wording: Wording, resource: str, conflict: _Conflict) -> str:
    """What is there now, and what it was and would be: sentences without the last period."""
    record, path = wording.record(resource), conflict.path
    if path == "":
        if conflict.actual is ABSENT:
            return f"{record} is gone: somebody else removed it meanwhile"
        if conflict.before is ABSENT:
            return f"{record} was removed, and somebody else made it anew, not quite as it had been"
    field = f"{record} — {wording.field(resource, path)}"
    now, then, back = (
        wording.value(resource, path, value) for value in (conflict.actual, conflict.before, conflict.after)
    )
    if any(wording.is_hidden(resource, path, value) for value in (conflict.actual, conflict.before, conflict.after)):
        return f"{field}: somebody else changed it meanwhile (what it holds isn't shown)"
    if conflict.before is ABSENT and conflict.after is ABSENT:
        return f"{field}: somebody else added it meanwhile ({now}), and undoing the work would take it away"
    if conflict.actual is ABSENT:
        return f"{field}: somebody else took it out meanwhile; the work had left {then}, and undoing it would put back {back}"
    undoing = "take it out" if conflict.after is ABSENT else f"put back {back}"
    left = "had taken it out" if conflict.before is ABSENT else f"had left {then}"
    return f"{field}: somebody else changed it to {now} meanwhile; the work {left}, and undoing it would {undoing}"


def decided(wording: Wording, conflict: PlannedConflict) -> str:
    """A conflict and how it was decided."""
    by = "A person decided" if conflict.is_decided else "The rules say"
    outcome = {
        "expected": f"{by} that it is undone all the same",
        "actual": f"{by} that their change stays",
        "merged": "A person gave the value to hold" if conflict.is_decided else "Both are kept",
        "manual": "Somebody must decide",
    }[conflict.resolution]
    return f"{found(wording, conflict.resource, conflict)}. {outcome}."
