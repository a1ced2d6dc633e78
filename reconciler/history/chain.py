"""The hash chain of a resource: what makes a gap, an edit or a swap in its part of the ledger show.

Each record of `workflow.actions` that the resource's machine takes, at whatever stage, is a link: its digest covers the
link before it and the whole record. So the digest after the last record stands for all of them and their order, and whoever
has the records can compute it again. What the history has already, and comes again, is no link.
"""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import Final

import msgspec

from reconciler.records import Action
from reconciler.values.json_value import Json, canonical

FIRST: Final = ""
"""What the first link follows."""

DIGITS: Final = 40
"""Hexadecimal digits of a link: 160 bits of SHA-256, so that nobody finds two records that have one."""

_COVERED: Final = (
    "stage", "run_id", "step_id", "occurred_at", "resource", "operation", "operation_id", "action_id", "before", "set", "unset",
    "workflow_id", "workflow_version", "sequence", "actor", "rule", "depends_on", "compensation", "version_before",
    "version_after", "traceparent",
)  # fmt: skip
_LATER: Final = tuple(field for field in msgspec.structs.fields(Action) if field.name not in _COVERED)
"""Fields that actions were given later: covered where they are said, so that chains made before stay what they were."""
_later_of: Final = attrgetter(*(field.name for field in _LATER))
_UNSAID: Final = tuple(field.default for field in _LATER)


def linked(chain: str, action: Action) -> str:
    """The link of an action after another link.

    SHA-256, because processors have instructions for it: it takes half the time of BLAKE2b.
    """
    return hashlib.sha256(chain.encode() + content_of(action)).hexdigest()[:DIGITS]


def content_of(action: Action) -> bytes:
    """All that an action says, as canonical JSON: the same however its own JSON was ordered."""
    actor, compensation = action.actor, action.compensation
    content: list[Json] = [
        action.stage,
        action.run_id,
        action.step_id,
        action.occurred_at,
        action.resource,
        action.operation,
        action.operation_id,
        action.action_id,
        action.before,
        action.set,
        action.unset,
        action.workflow_id,
        action.workflow_version,
        action.sequence,
        None if actor is None else (actor.id, actor.kind),
        action.rule,
        action.depends_on,
        None if compensation is None else (compensation.name, compensation.arguments),
        action.version_before,
        action.version_after,
        action.traceparent,
    ]
    later = _later_of(action)
    if later != _UNSAID:
        content += (
            (field.name, msgspec.to_builtins(value))
            for field, value in zip(_LATER, later, strict=True)
            if value != field.default
        )
    return canonical(content)
