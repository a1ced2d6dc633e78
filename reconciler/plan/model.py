"""What a plan is: values, in the order in which they are shown."""

from __future__ import annotations

from typing import Literal, TypeAlias

from reconciler.merge.three_way import Resolution
from reconciler.plan.story import Story
from reconciler.records import Command, Compensation, Record
from reconciler.values.json_value import ABSENT, Absent, Json

PlanStatus: TypeAlias = Literal["executable", "needs_approval", "rejected", "nothing_to_do"]

BlockRule: TypeAlias = Literal[
    "unobserved",  # the plan needs the resource's actual state, and doesn't have it
    "expired",  # too old to be undone, by the contract or by the bound of the history
    "unknown_pre_state",  # nobody knows what was there before
    "irreversible",  # an effect without a compensation
    "dependants",  # operations outside of the selection stand on this one
    "outcome_unknown",  # the step, or a neighbour of it, began and nobody said how it ended
    "immutable",  # the undo would change a field that the contract calls immutable
    "unknown_operation",  # the request names an operation that nobody has heard of
    "forbidden",  # a `forbid` of a contract: it rejects the whole plan
]


class PlannedConflict(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A field that somebody else changed since, and how that was decided."""

    resource: str
    path: str
    before: Json | Absent = ABSENT
    after: Json | Absent = ABSENT
    actual: Json | Absent = ABSENT
    resolution: Resolution
    is_decided: bool = False
    """Whether a person decided it, and not the contract."""


class Kept(Record, frozen=True, kw_only=True):
    """A field that a selected operation wrote and a later write still determines."""

    resource: str
    path: str
    value: Json | Absent = ABSENT
    owner: str


class Blocked(Record, frozen=True, kw_only=True):
    """An operation that can't be undone, with the rule and a sentence for the person who asked."""

    operation_id: str
    rule: BlockRule
    reason: str


class Unchanged(Record, frozen=True, kw_only=True):
    """A field that already is what the undo would make it."""

    resource: str
    path: str


class ApprovalNeeded(Record, frozen=True, kw_only=True):
    """Consent that is still missing."""

    contract: str
    roles: list[str]
    count: int


class Plan(Record, frozen=True, kw_only=True):
    """What a rollback would do."""

    rollback_id: str
    status: PlanStatus
    waves: list[list[Command]]
    conflicts: list[PlannedConflict]
    kept: list[Kept]
    blocked: list[Blocked]
    unchanged: list[Unchanged]
    approvals_needed: list[ApprovalNeeded]
    operations: list[str]
    """What would be undone: the selection, with what cascades and without what is blocked."""
    notes: list[str]
    """What a careful reader wants to know: cycles, rules that failed, pre-states taken from observations."""
    contracts: dict[str, str]
    """The digests of the contracts that the plan is pinned to."""
    plan_hash: str = ""
    story: str = ""
    """For people, in Markdown."""
    story_parts: Story = Story()
    """The same in parts, without markup."""


class FallbackCompensation(Record, frozen=True, kw_only=True):
    """What makes good an undone action whose undo was refused, where the contract wants that."""

    action_id: str
    operation_id: str
    compensation: Compensation


class PlannedStep(Record, frozen=True, kw_only=True):
    """What a plan has to order of one resource: the undo of its entries, or the compensation of one effect."""

    resource: str
    wave: int
    operations: list[str]
    numbers: list[int]
    action_id: str | None = None
    """The effect that is made good; None for an undo."""
    command: Command | None = None
    """None where nothing changes at the target: what is expected changes all the same."""
    is_held: bool = False
    """Whether a conflict that a person must decide keeps it from being done."""
    is_behind: bool = False
    """Whether it must wait for one that is held."""
    is_undecided: bool = False
    """Whether a person must decide some field of it, though the rest could be done without that."""
    is_behind_undecided: bool = False
    """Whether it must wait for one that is undecided."""
    fallback: list[FallbackCompensation]


class Planned(Record, frozen=True, kw_only=True):
    """A plan and its steps, in the order of the waves. Every step of a wave that the plan shows has that wave's number."""

    plan: Plan
    steps: list[PlannedStep]
    cascades: list[str]
    """Operations that are undone as well because others are."""
    removals: list[str]
    """Resources that would go."""
