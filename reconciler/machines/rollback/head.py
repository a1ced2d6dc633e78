"""The head of a rollback: what the rollback machine knows, but for what grows with the number of resources.

That stands in the rollback's history, one value each, so that a rollback of ten thousand resources has a head of a few
kilobytes:

    d:<resource>                   the dossier of a resource, until the plan is made
    m:<round>:<partition>:<part>   the operations that a partition matched, until the next selection
    q:<round>                      what partitions were asked about beyond the selection
    s:<step_id>                    a step and what became of it
    w:<plan>:<wave>:<chunk>        the ids of a wave's steps, in their order
    c:<resource>                   conflicts that a person has yet to decide
    r:<resource>                   what persons decided about conflicts
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from reconciler.plan.model import ApprovalNeeded, FallbackCompensation
from reconciler.plan.story import Story
from reconciler.records import (
    Actor,
    Approval,
    Resolution,
    RollbackRequest,
    RollbackStatus,
    Selector,
    StepConflict,
    StepStatus,
    UndoStep,
)
from reconciler.values.instant import Instant

DOSSIER: Final = "d:"
MATCHED: Final = "m:"
ASKED: Final = "q:"
STEP: Final = "s:"
WAVE: Final = "w:"
CONFLICTS: Final = "c:"
DECIDED: Final = "r:"
EARLIER: Final = "e:"
"""The operations of the run that aren't meant, because they came no later than the step after which it is undone."""

CARRIED_OUT: Final[frozenset[RollbackStatus]] = frozenset({"completed", "partial", "nothing_to_do"})
"""The statuses in which all that could be done is done."""
ENDED: Final[frozenset[RollbackStatus]] = CARRIED_OUT | {"rejected", "cancelled"}
"""The statuses in which nothing more happens, unless a late action has to be reversed."""

StepState: TypeAlias = (
    StepStatus
    | Literal[
        "held",  # a conflict must be decided first
        "behind",  # must wait for one that is held
        "planned",  # not ordered yet
        "ordered",  # the resource was told, and hasn't answered
        "skipped",  # failed for good, and the contract says to go on
        "compensated",  # failed for good, and is made good in another way
        "replaced",  # not done, and a later plan has taken its place
    ]
)

UNDER_WAY: Final[tuple[StepState, ...]] = ("ordered", "sent", "retrying")
DONE: Final[tuple[StepState, ...]] = ("applied", "verified", "unchanged")
"""The undo has happened."""
LEFT_BEHIND: Final[tuple[StepState, ...]] = ("contradicted", "skipped", "compensated")
"""Over, and not what was wanted."""
OPEN_OTHERWISE: Final[tuple[StepState, ...]] = ("planned", "conflict", "outdated", "failed", "withdrawn")
OPEN: Final[tuple[StepState, ...]] = ("held", "behind", *OPEN_OTHERWISE)
"""Nothing has happened, and nothing will unless somebody resumes: what a new plan replaces."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what is stored."""


class Round(Value, frozen=True, kw_only=True):
    """One question to all partitions, and who has answered."""

    number: int
    parts: dict[int, int] = {}
    """How many parts a partition's answer has, of those from which anything came."""
    seen: dict[int, list[int]] = {}
    """The parts that came, of answers that are not whole yet."""


class Gathering(Value, frozen=True, kw_only=True):
    """What is being found out before a plan is made."""

    select: Selector
    first_round: int
    rounds: list[Round]
    """Those not fully answered."""
    since_at: Instant
    is_late_work: bool = False
    """Whether this is about late actions of what was undone already."""


class Asked(Value, frozen=True, kw_only=True):
    """What partitions were asked about, beyond the selection itself."""

    operations: list[str] = []
    depended_on: list[str] = []
    referenced: list[str] = []


class PlanFacts(Value, frozen=True, kw_only=True):
    """What the head keeps of the plan that holds now."""

    number: int
    """Plans of one rollback count from 1."""
    plan_hash: str
    planned_at: Instant
    status: Literal["executable", "needs_approval", "rejected", "nothing_to_do"]
    waves: int
    steps: int
    commands: int
    blocked: int = 0
    conflicts: int = 0
    kept: int = 0
    unchanged: int = 0
    contracts: dict[str, str] = {}
    requesters: dict[str, list[str]] = {}
    """The roles of which one is needed to ask for this, by contract."""
    approvals: list[ApprovalNeeded] = []
    """The consents that the contracts ask for, given ones included."""
    is_covered: bool = False
    """Whether it does nothing that an approved plan didn't."""
    patience_s: float = 0.0
    """How long nothing may be heard of a step before people are told."""
    story: Story = Story()


class Driving(Value, frozen=True, kw_only=True):
    """How far a plan has been carried out."""

    wave: int = 0
    """The wave at work, from 1."""
    next_chunk: int = 0
    """The chunk of the wave from which steps are ordered next."""
    is_ordered: bool = False
    """Whether all steps of the wave were ordered."""
    progress_at: Instant = 0
    """When something was last heard or ordered."""


AfterUnderWay: TypeAlias = Literal["cancel", "replan"]


class Head(Value, frozen=True, kw_only=True):
    """The state of a rollback. One that nobody has asked for yet has no ``request``."""

    rollback_id: str
    request: RollbackRequest | None = None
    """The first request, without its approvals."""
    status: RollbackStatus = "gathering"
    mode: Literal["plan", "execute"] = "plan"
    sequence: int = 0
    """How many events were published."""
    requests: list[str] = []
    """The ids of the requests that were taken."""
    approvals: list[Approval] = []
    deciders: list[str] = []
    """The ids of those who decided conflicts: they can't approve what they made themselves."""
    round: int = 0
    """The last question to partitions."""
    gathering: Gathering | None = None
    positions: dict[int, int] = {}
    """By partition of the ledger, up to where the selection is complete."""
    plan: PlanFacts | None = None
    plans: int = 0
    approved_plans: list[int] = []
    """The plans that people, or rules that ask for nobody, let be carried out."""
    is_watched: bool = False
    """Whether partitions were asked to tell of late actions."""
    driving: Driving | None = None
    counts: dict[str, int] = {}
    """How many steps are in each state."""
    command_counts: dict[str, int] = {}
    """The same of those steps that change something at a target."""
    kept_by_conflict: int = 0
    """Fields that were left to others although the undo would have changed them, in steps that are done."""
    blocked_before: int = 0
    """Operations that were blocked in plans before the late work."""
    leaves_undecided: bool = False
    """Whether fields that nobody decided are left to others, where the contract lets the rest of a resource be undone."""
    undecided: int = 0
    """Conflicts that a person has yet to decide."""
    troubles: list[str] = []
    """The first steps that aren't as they should be, for the story."""
    budgets: dict[str, float] = {}
    """Retry tokens left, of the systems that have used any."""
    late: list[str] = []
    """Operations of late actions that are to be reversed as soon as the work at hand is done."""
    told_late: list[str] = []
    """Operations of late actions that people were told of and that nobody reverses, the last of them."""
    after_sequence: int = 0
    """Where only what came after a step of a run is undone: that step's place in the run."""
    ended_at: Instant | None = None
    """When it was carried out to its end for the first time; late work comes after that."""
    late_resources: list[str] = []
    """Where they were, the first of them, for the story."""
    halted_for: str = ""
    """Why it was stopped."""
    then: AfterUnderWay | None = None
    """What happens as soon as nothing is under way any more."""
    by: Actor | None = None
    """Who cancelled it, or refused."""


class Step(Value, frozen=True, kw_only=True):
    """One step and what became of it."""

    order: UndoStep
    state: StepState
    plan: int
    attempt: int = 0
    """The last attempt that its resource told of."""
    spent: float = 0.0
    """Retry tokens that it has cost."""
    kept: int = 0
    """Conflicts on it that were decided for what is there."""
    fallback: list[FallbackCompensation] = []
    conflicts: list[StepConflict] = []
    error: str | None = None
    command_id: str | None = None


Stored: TypeAlias = Asked | Step | list[str] | list[StepConflict] | list[Resolution]

_head_decoder: Final = msgspec.json.Decoder(Head)
_encoder: Final = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """The JSON text of a stored value; the same value gives the same bytes."""
    return _encoder.encode(value)


def decode_head(value: bytes) -> Head:
    """The head of a table value. Raises msgspec.DecodeError for bytes that no machine wrote."""
    return _head_decoder.decode(value)


def fences_of(head: Head) -> list[str]:
    """The runs of which no action may begin any more, because of this rollback: from its first request on, also where
    nothing of the run is known yet. A run of which only the end is undone may go on when that is done."""
    request = head.request
    if request is None or request.select is None or request.select.run_id is None or head.mode != "execute":
        return []
    if head.status in ("rejected", "cancelled"):
        return []
    if request.select.after_step is not None and head.status in ENDED:
        return []
    return [request.select.run_id]
