"""The records that travel between the parts: what section "Records" of docs/records.md describes, as frozen values.

Field names equal those of the Avro schemas and of the JSON form. Instants are integers of microseconds here and ISO 8601
in the JSON form (`reconciler.json_form`). Values of a resource's fields are plain JSON; a key that is left out means
absent, `None` is the JSON value null. Mappings inside a record are never changed after it was made.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

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


class Action(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What one workflow step did to one resource. Histories keep millions of them, without what is as usual.

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
    origin: str | None = None
    """The command of ours of which this is the echo: an automation at the target passed its mark on."""
    reverses: str | None = None
    """Of a `reversed` action: the action_id of the one action that was undone. None: all of the operation so far."""


class PlainUpdate(NamedTuple):
    """A `succeeded` update as nearly all actions are, not yet made an `Action` of: the texts of its record, each of which is
    what stands between the quotes of a JSON string, and the values of flat fields.

    It depends on nothing, and has no `unset`, compensation, versions, rule, trace or origin. Its ids are not empty.
    """

    resource: str
    occurred_at: Instant
    operation_id: str
    action_id: str
    run_id: str
    step_id: str
    sequence: int
    workflow_id: str
    workflow_version: str
    actor: tuple[str, str] | None
    """Its id and kind."""
    before: dict[str, Json]
    before_text: str
    """The JSON text of `before`, in its order."""
    before_canonical: str
    """The canonical one."""
    set: dict[str, Json]
    set_text: str
    set_canonical: str
    """Likewise."""


def operation_of(action: Action) -> str:
    """The operation that an action is a part of. That of a reversal isn't the one that it undoes, which its operation_id
    names, but the undo itself: ``run_id/step_id``."""
    return f"{action.run_id}/{action.step_id}" if action.stage == "reversed" else action.operation_id


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
    origin: str | None = None
    """The mark for the target to pass on to its automations; None: the command's id."""
    audit: Literal["archive"] | None = None
    """What becomes of the target's own audit entries about what is undone; None: they stay."""


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
    traceparent: str | None = None
    """The trace of the last step that wrote one of the fields."""


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


class Resolution(Record, frozen=True, kw_only=True):
    """A person's decision on one conflict: keep what is there, force what the undo wants, or set a value.

    Bound to what the person saw: where the target holds something else than ``seen`` by now, the decision doesn't count.
    """

    resource: str
    path: str
    take: Literal["keep", "force", "value"]
    value: Json | Absent = ABSENT
    seen: Json | Absent = ABSENT


class UndoStep(Record, frozen=True, kw_only=True):
    """An order from a rollback to a resource.

    ``undo``: leave these entries of the history (``numbers``, of ``operations``) out, and correct the target so, but do
    no more than ``planned``. ``compensate``: make good the effect that the action ``action_id`` had. ``withdraw``: forget
    the step ``step_id`` if its command hasn't been sent.
    """

    step_id: str
    rollback_id: str
    resource: str
    verb: Literal["undo", "compensate", "withdraw"] = "undo"
    operations: list[str] = []
    numbers: list[int] = []
    planned: list[Change] = []
    planned_action: CommandAction | None = None
    """The action of the planned command; None where the plan changes nothing at the target."""
    action_id: str | None = None
    compensation: Compensation | None = None
    resolutions: list[Resolution] = []
    wave: int = 1
    contract: str | None = None
    """The digest of the contract that the rollback is pinned to."""
    requested_by: Actor | None = None
    reason: str = ""
    occurred_at: Instant
    traceparent: str | None = None


StepStatus: TypeAlias = Literal[
    "sent",  # the command is on its way
    "retrying",  # it failed for a passing reason and will be sent again
    "applied",  # the target says that it did it, or had done it
    "unchanged",  # there was nothing to do at the target
    "verified",  # a later observation shows it
    "contradicted",  # a later observation shows something else
    "conflict",  # somebody changed a field that the plan didn't show as changed: nothing was done
    "outdated",  # more would have to be done than the plan said, or under another contract: nothing was done
    "failed",  # for good: nothing was done
    "withdrawn",
]


class StepConflict(Record, frozen=True, kw_only=True):
    """A field on which a person must decide."""

    path: str
    before: Json | Absent = ABSENT
    after: Json | Absent = ABSENT
    actual: Json | Absent = ABSENT


class StepReport(Record, frozen=True, kw_only=True):
    """What a resource says to a rollback about one of its steps. Its key is the rollback."""

    report_id: str
    rollback_id: str
    step_id: str
    resource: str
    status: StepStatus
    changes: list[Change] = []
    """What was sent, or was to be sent."""
    conflicts: list[StepConflict] = []
    """What must be decided; of ``sent`` and ``unchanged``, where what was there stays, by the contract or a person's word."""
    command_id: str | None = None
    attempt: int = 1
    is_timeout: bool = False
    """Of ``retrying``: no outcome came in time."""
    error: str | None = None
    occurred_at: Instant
    traceparent: str | None = None


class GatherQuery(Record, frozen=True, kw_only=True):
    """A rollback's question to one partition: which resources does this concern, and what is known of them?

    All that is named is added up: the selector's operations, those in ``operations``, those that name one in
    ``depended_on`` in their `depends_on`, and resources that refer to one in ``referenced`` or are in ``resources``.
    ``standing``: what the selector or ``operations`` match later is told as well, as it arrives.
    """

    rollback_id: str
    round: int
    partition: int
    select: Selector | None = None
    operations: list[str] = []
    depended_on: list[str] = []
    referenced: list[str] = []
    resources: list[str] = []
    standing: bool = False
    occurred_at: Instant


class Dossier(Record, frozen=True, kw_only=True):
    """All that a partition knows of one resource, for planning. ``base`` and ``entries`` are the JSON texts of the history's
    store (`reconciler.machines.head`), ``observation`` the last one that said anything."""

    resource: str
    base: str | None = None
    collapsed: int = 0
    entries: list[str] = []
    in_flight: dict[str, Instant] = {}
    observation: Observation | None = None
    is_held: bool = False
    partition: int = 0
    offsets: dict[str, int] = {}
    """Where each action stands in its partition of workflow.actions, by action_id."""


class Gathered(Record, frozen=True, kw_only=True):
    """One partition's answer to a GatherQuery, or a part of it. Its key is the rollback.

    ``parts`` says how many records the answer has; ``part`` counts from 1. ``complete_up_to`` is the offset of the
    partition of workflow.actions up to which the answer is complete. ``is_late``: it belongs to a standing query, and
    tells of actions that arrived after the answer.
    """

    rollback_id: str
    round: int
    partition: int
    part: int = 1
    parts: int = 1
    complete_up_to: int = 0
    matched: list[str] = []
    """The operations that the selector matched."""
    dossiers: list[Dossier] = []
    is_late: bool = False
    occurred_at: Instant


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


RequestVerb: TypeAlias = Literal["request", "approve", "cancel", "resume", "resolve"]


class RollbackRequest(Record, frozen=True, kw_only=True):
    """What a person says to a rollback. The first word on it is ``request``, which alone has a selector.

    ``approve`` carries ``approvals``; ``cancel`` and ``resume`` a reason; ``resolve`` the ``resolutions`` of conflicts.
    """

    rollback_id: str
    verb: RequestVerb = "request"
    request_id: str = ""
    """The same request twice is one; without an id, a digest of the content."""
    select: Selector | None = None
    reason: str = ""
    requested_by: Actor | None = None
    roles: list[str] = []
    mode: Literal["plan", "execute"] = "plan"
    approvals: list[Approval] = []
    resolutions: list[Resolution] = []
    plan_hash: str | None = None
    """The plan that the person saw."""
    requested_at: Instant | None = None
    traceparent: str | None = None


RollbackStatus: TypeAlias = Literal[
    "gathering",
    "executable",
    "needs_approval",
    "executing",
    "verifying",
    "nothing_to_do",
    "completed",
    "partial",
    "halted",
    "rejected",
    "cancelled",
]


class RollbackEvent(Record, frozen=True, kw_only=True):
    """One change of a rollback's status, with its story so far.

    ``plan`` is the object that `reconciler plan` prints, where this event brings a new one; ``counts`` are numbers for
    dashboards (resources, commands, applied, conflicts, kept, blocked, unchanged); ``wave`` counts from 1 and is None where
    the event is about the whole. ``complete_up_to`` says by partition of workflow.actions up to which offset the selection is
    complete: what stands there or later wasn't looked at.
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
    complete_up_to: dict[str, int] = {}
    error: str | None = None
    traceparent: str | None = None
