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
    """What is there now, and what it was and would be: half a sentence."""
    record, path = wording.record(resource), conflict.path
    if path == "":
        if conflict.actual is ABSENT:
            return f"{record} is gone: somebody else removed it meanwhile"
        if conflict.before is ABSENT:
            return f"{record} was removed, and somebody else made it anew, not quite as it had been"
    field = f"{record}: {wording.field(resource, path)}"
    now, then, back = (
        wording.value(resource, path, value) for value in (conflict.actual, conflict.before, conflict.after)
    )
    if conflict.before is ABSENT and conflict.after is ABSENT:
        return f"{field} was added by somebody else ({now}), and would be lost"
    if conflict.actual is ABSENT:
        return f"{field} was taken away by somebody else (the work had left {then}); undoing it would put back {back}"
    if conflict.after is ABSENT:
        return f"{field} was changed by somebody else to {now} (the work had left {then}); undoing it would take it out"
    return f"{field} was changed by somebody else to {now} (the work had left {then}); undoing it would put back {back}"


def decided(wording: Wording, conflict: PlannedConflict) -> str:
    """A conflict and how it was decided."""
    by = "a person decided" if conflict.is_decided else "the rules say"
    outcome = {
        "expected": f"{by} that it is undone all the same",
        "actual": f"{by} that their change stays",
        "merged": "a person gave the value to hold" if conflict.is_decided else "both are kept",
        "manual": "somebody must decide",
    }[conflict.resolution]
    return f"{found(wording, conflict.resource, conflict)}; {outcome}."
