"""The records that travel between the parts: what section "Records" of docs/records.md describes, as frozen values.

Field names equal those of the Avro schemas and of the JSON form. Instants are integers of microseconds here and ISO 8601
in the JSON form (`reconciler.json_form`). Values of a resource's fields are plain JSON; a key that is left out means
absent, `None` is the JSON value null. Mappings inside a record are never changed after it was made.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json

Stage: TypeAlias = Literal["initiated", "succeeded", "failed", "reversed"]
Operation: TypeAlias = Literal["create", "update", "delete", "effect"]
ActorKind: TypeAlias = str  # "user", "workflow", "service", …: an open vocabulary, which `source_priority` ranks
CommandAction: TypeAlias = Literal["patch", "create", "delete", "compensate"]
ChangeOp: TypeAlias = Literal["set", "unset", "increment", "add", "remove"]
OutcomeStatus: TypeAlias = Literal["applied", "already_applied", "conflict", "transient", "permanent", "rejected"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records."""


class Actor(Record, frozen=True, kw_only=True):
    """Who did something."""

    id: str
    kind: ActorKind = "workflow"


class Compensation(Record, frozen=True, kw_only=True):
    """What makes good an effect that can't be taken back."""

    name: str
    arguments: dict[str, Json] = {}


class Action(Record, frozen=True, kw_only=True):
    """What one workflow step did to one resource.

    ``operation_id`` and ``action_id`` are never empty here: `reconciler.json_form.action_from_json` and the codec fill in
    their defaults. ``before`` is None where the pre-state is unknown.
    """

    stage: Stage
    run_id: str
    step_id: str
    occurred_at: Instant
    resource: str
    operation: Operation
    operation_id: str = ""
    action_id: str = ""
    before: dict[str, Json] | None = None
    set: dict[str, Json] = {}
    unset: list[str] = []
    workflow_id: str = ""
    workflow_version: str = ""
    sequence: int = 0
    actor: Actor | None = None
    rule: str = ""
    depends_on: list[str] = []
    compensation: Compensation | None = None
    version_before: str | None = None
    version_after: str | None = None
    traceparent: str | None = None


class Observation(Record, frozen=True, kw_only=True):
    """What a target said about a resource at one instant.

    ``exists`` is None where it could not be observed; ``reason`` then says why. ``fields`` is the plain nested tree of
    the resource (the JSON form also accepts paths as keys), empty unless it exists.
    """

    resource: str
    exists: bool | None
    fields: dict[str, Json] = {}
    version: str | None = None
    observed_at: Instant | None = None
    modified_at: Instant | None = None
    modified_by: Actor | None = None
    reason: str | None = None


class Change(Record, frozen=True, kw_only=True):
    """One change of a command. ``expect`` is the value that the target must still hold there; ABSENT: nothing may be there.

    ``value`` is ABSENT for ``unset``; for ``increment`` the number to add; for ``add`` and ``remove`` one member of the
    set at the path. These three may leave ``expect`` out, and then apply to whatever is there.
    The path ``""`` is the resource: ``set`` there is the whole of a ``create``, ``unset`` there is a ``delete``.
    """

    path: str
    op: ChangeOp
    value: Json | Absent = ABSENT
    expect: Json | Absent = ABSENT


class Command(Record, frozen=True, kw_only=True):
    """The minimal corrective command for one resource."""

    command_id: str
    resource: str
    action: CommandAction
    changes: list[Change] = []
    expect_exists: bool = True
    expect_version: str | None = None
    compensation: Compensation | None = None
    reason: str = ""
    rollback_id: str | None = None
    drift_id: str | None = None
    contract: str | None = None
    epoch: int = 0
    attempt: int = 1
    issued_at: Instant | None = None
    expires_at: Instant | None = None
    traceparent: str | None = None


class Outcome(Record, frozen=True, kw_only=True):
    """What the target's service says became of a command."""

    command_id: str
    resource: str
    status: OutcomeStatus
    occurred_at: Instant
    observed: Observation | None = None
    error: str | None = None
    retry_after_s: float | None = None
    traceparent: str | None = None


DriftStatus: TypeAlias = Literal["opened", "changed", "closed", "held"]
Policy: TypeAlias = Literal["correct", "adopt", "report", "ignore"]
Verdict: TypeAlias = Literal["in_sync", "drifted", "missing", "unexpected", "unknown", "settling"]


class FieldDrift(Record, frozen=True, kw_only=True):
    """One field that drifted."""

    path: str
    policy: Policy
    expected: Json | Absent = ABSENT
    actual: Json | Absent = ABSENT


class DriftEvent(Record, frozen=True, kw_only=True):
    """A change in what is known about a resource's drift."""

    drift_id: str
    resource: str
    status: DriftStatus
    verdict: Verdict
    changes: list[FieldDrift] = []
    occurred_at: Instant
    observed_at: Instant | None = None
    command_id: str | None = None
    reason: str = ""
    contract: str | None = None


class Alert(Record, frozen=True, kw_only=True):
    """An escalation for people. ``subject`` is what it is about: a resource, a target, a partition."""

    alert_id: str
    subject: str
    kind: str
    message: str
    occurred_at: Instant
    severity: Literal["warning", "critical"] = "warning"


class Timer(Record, frozen=True, kw_only=True):
    """A resource's own reminder, come due: the machine looks at what its state says is due at ``due_at``."""

    resource: str
    due_at: Instant


class Decision(Record, frozen=True, kw_only=True):
    """A person's word on a held resource.

    ``release`` ends the hold and lets detection go on; ``adopt`` takes the actual value as expected; ``expected`` puts
    the expected value back. ``path`` None means the whole resource. Bound to what the person saw by ``version_seen``.
    """

    decision_id: str
    resource: str
    verb: Literal["hold", "release", "adopt", "expected"]
    path: str | None = None
    version_seen: str | None = None
    decided_by: Actor
    reason: str = ""
    occurred_at: Instant


class UndoStep(Record, frozen=True, kw_only=True):
    """An order from a rollback to a resource: leave these operations out of the history, and correct the target so."""

    rollback_id: str
    resource: str
    operations: list[str]
    wave: int = 0
    contract: str | None = None
    reason: str = ""
    occurred_at: Instant
    traceparent: str | None = None


class Approval(Record, frozen=True, kw_only=True):
    """One person's consent to a plan, bound to its hash."""

    by: Actor
    roles: list[str] = []
    plan_hash: str | None = None
    approved_at: Instant | None = None


class Selector(Record, frozen=True, kw_only=True, rename={"from_at": "from", "to_at": "to"}):
    """What a rollback undoes: one of run_id (with after_step), operations, workflow_id, actor, system or resource."""

    run_id: str | None = None
    after_step: str | None = None
    operations: list[str] | None = None
    workflow_id: str | None = None
    actor: str | None = None
    system: str | None = None
    resource: str | None = None
    from_at: Instant | None = None
    to_at: Instant | None = None


class RollbackRequest(Record, frozen=True, kw_only=True):
    """A request to undo operations."""

    rollback_id: str
    select: Selector
    reason: str = ""
    requested_by: Actor | None = None
    roles: list[str] = []
    mode: Literal["plan", "execute"] = "plan"
    approvals: list[Approval] = []
    requested_at: Instant | None = None


RollbackStatus: TypeAlias = Literal[
    "requested",
    "executable",
    "needs_approval",
    "rejected",
    "nothing_to_do",
    "executing",
    "verifying",
    "completed",
    "partially_completed",
    "halted",
    "cancelled",
    "failed",
]


class RollbackEvent(Record, frozen=True, kw_only=True):
    """One change of a rollback's status, with its story so far.

    ``plan`` is the object that `reconciler plan` prints, where this event brings a new one; ``counts`` are numbers for
    dashboards (resources, commands, applied, conflicts, kept, blocked, unchanged); ``wave`` counts from 1 and is None where
    the event is about the whole.
    """

    event_id: str
    rollback_id: str
    status: RollbackStatus
    occurred_at: Instant
    sequence: int = 1
    mode: Literal["plan", "execute"] = "plan"
    select: Selector | None = None
    reason: str = ""
    requested_by: Actor | None = None
    story: str = ""
    plan_hash: str | None = None
    plan: dict[str, Json] | None = None
    contracts: list[str] = []
    approvals: list[Approval] = []
    approvals_needed: int = 0
    wave: int | None = None
    waves: int = 0
    counts: dict[str, int] = {}
    error: str | None = None
    traceparent: str | None = None
