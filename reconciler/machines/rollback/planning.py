"""From what was gathered to a plan: what it does, whether it may be done, and its steps one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from reconciler.contracts.model import Contract
from reconciler.machines.rollback.dossiers import Known
from reconciler.machines.rollback.gathering import forget, known, matched_by_partition, widen
from reconciler.machines.rollback.head import CONFLICTS, DONE, EARLIER, OPEN, WAVE, PlanFacts, Step, StepState
from reconciler.machines.rollback.turn import Turn, digest
from reconciler.plan.build import build
from reconciler.plan.model import Plan, Planned, PlannedConflict, PlannedStep
from reconciler.plan.verify import Fault, verify
from reconciler.records import Change, RollbackRequest, Selector, StepConflict, UndoStep
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Json, canonical

CHUNK: Final = 100
"""How many steps are ordered at a time."""

_SLACK_S: Final = 900.0  # what a person may take to restart something, on top of the times that contracts name

_NEVER_ORDERED: Final[tuple[StepState, ...]] = ("held", "behind", "planned")


class FaultyPlan(Exception):
    """The independent look at a plan found it wrong: a bug of the planner, never an error of who asked."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults, the first: {faults[0]}")


def consider(turn: Turn) -> Plan | None:
    """Makes the plan, once everything that was asked is answered; None where more had to be asked. Raises InputError for a
    request that can't be planned, and FaultyPlan."""
    gathering, request = turn.head.gathering, turn.head.request
    assert gathering is not None and request is not None
    found = known(turn)
    selection = _selection(turn, found, gathering.select)
    left = [] if gathering.is_late_work else _left_behind(turn, selection)
    if widen(turn, found, [*selection, *left], ()):
        return None
    selection += _owed(turn, found, left)
    asking = msgspec.structs.replace(request, approvals=[], resolutions=turn.resolutions())
    planned = build(asking, found.estate, found.observations, turn.now, selection)
    if widen(turn, found, [*selection, *planned.cascades], planned.removals):
        return None
    faults = verify(planned, _meant(turn, asking, gathering.select), found.estate, found.observations)
    if faults:
        raise FaultyPlan(faults)
    forget(turn)
    _take(turn, planned, request)
    return planned.plan


def _selection(turn: Turn, found: Known, select: Selector) -> list[str]:
    """The operations that are meant and have left anything to undo, in the order of the log."""
    estate = found.estate
    by_partition = matched_by_partition(turn)
    matched: set[str] = set().union(*by_partition.values())
    estate.collapsed |= found.collapsed(by_partition)
    if select.operations is not None:
        names = list(dict.fromkeys(select.operations))
    else:
        names = [*sorted(estate.collapsed - estate.operations.keys())]
        names += [name for name in estate.operations if name in matched]
    if select.run_id is not None and select.after_step is not None:
        names = _after_step(turn, found, names, select.run_id, select.after_step)
    live = {
        entry.operation_id
        for history in estate.histories.values()
        for entry in history.entries
        if entry.number not in history.undone
    }
    return [
        name
        for name in names
        if name not in turn.head.told_late
        # What nobody knows is asked for all the same: that it is unknown has to be said.
        if name in live or estate.is_outcome_unknown(name) or name in estate.collapsed or name not in matched
    ]


def _left_behind(turn: Turn, selection: Sequence[str]) -> list[str]:
    """What plans before would have undone beside the selection, in steps that weren't carried out."""
    names = (name for step in turn.steps() if step.state in (*OPEN, "replaced") for name in step.order.operations)
    selected = frozenset(selection)
    return [name for name in dict.fromkeys(names) if name not in selected]


def _done(turn: Turn) -> set[str]:
    return {name for step in turn.steps() if step.state in DONE for name in step.order.operations}


def _owed(turn: Turn, found: Known, left: Sequence[str]) -> list[str]:
    """Of what was left behind, what was undone in part, or still stands on something that this rollback has undone: it cascaded
    because of that, and isn't forgotten because that is done."""
    done = _done(turn) if left else frozenset()
    operations = found.estate.operations
    return [
        name
        for name in left
        if name in operations
        and name not in turn.head.told_late
        and found.estate.stands(name, {})
        and (name in done or any(needed in done for action in operations[name].actions for needed in action.depends_on))
    ]


def _meant(turn: Turn, asking: RollbackRequest, select: Selector) -> RollbackRequest:
    """The request for what is planned now: where work came late, for that alone; and without operations of which more came
    late, that people were told of and that nobody undoes any more."""
    if select.operations is not None:
        left = [name for name in select.operations if name not in turn.head.told_late]
        select = msgspec.structs.replace(select, operations=left)
    return msgspec.structs.replace(asking, select=select)


def _after_step(turn: Turn, found: Known, names: Sequence[str], run_id: str, step_id: str) -> list[str]:
    operations = found.estate.operations
    orders = [
        operation.order
        for operation in operations.values()
        for action in operation.actions
        if action.run_id == run_id and action.step_id == step_id
    ]
    if not orders:
        raise InputError(f"the run {run_id!r} has no step {step_id!r}", field="select.after_step")
    last = max(orders)
    earlier = dict.fromkeys(name for name in names if name in operations and operations[name].order <= last)
    # When more of them comes late, it isn't meant either.
    turn.store(EARLIER, list(earlier))
    turn.change(after_sequence=last[0])
    # Where the order of work isn't known, because it goes on or is no longer kept, it has to be said.
    return [name for name in names if name not in earlier or found.estate.is_outcome_unknown(name)]


# -- taking a plan over


def _take(turn: Turn, planned: Planned, request: RollbackRequest) -> None:
    """Lets a new plan take the place of the one before."""
    gathering = turn.head.gathering
    assert gathering is not None
    number = turn.head.plans + 1
    plan = planned.plan
    is_covered = _is_covered(turn, planned, gathering.select if gathering.is_late_work else None)
    blocked_before = turn.head.blocked_before
    if gathering.is_late_work and turn.head.plan is not None:
        blocked_before += turn.head.plan.blocked
    _replace(turn)
    contracts = [turn.contracts.for_resource(step.resource) for step in planned.steps]
    facts = PlanFacts(
        number=number,
        plan_hash=plan.plan_hash,
        planned_at=turn.now,
        status=plan.status,
        waves=max((step.wave for step in planned.steps), default=0),
        steps=sum(_is_ready(turn, step) for step in planned.steps),
        commands=sum(len(wave) for wave in plan.waves),
        blocked=len(plan.blocked),
        conflicts=len(plan.conflicts),
        kept=len(plan.kept),
        unchanged=len(plan.unchanged),
        contracts=plan.contracts,
        requesters={
            contract.name: list(contract.requesters.roles) for contract in contracts if contract.requesters.roles
        },
        approvals=plan.approvals_needed,
        is_covered=is_covered,
        patience_s=max(map(_patience_s, contracts), default=0.0) + _SLACK_S,
        story=plan.story_parts,
    )
    turn.change(plan=facts, plans=number, gathering=None, driving=None, blocked_before=blocked_before)
    _store_conflicts(turn, planned)
    _store_steps(turn, planned, request, number)


def _patience_s(contract: Contract) -> float:
    """The longest that a resource may rightly take over a step: to be looked at, every attempt and every wait, and to be
    looked at again."""
    retry, timing = contract.retry, contract.timing
    waits = sum(min(retry.first_s * retry.factor**attempt, retry.cap_s) for attempt in range(min(retry.attempts, 100)))
    return waits + retry.attempts * contract.service.ack_within_s + timing.settle_s + 2 * timing.sample_every_s


def _replace(turn: Turn) -> None:
    """What the plan before has not done is left to the new one."""
    turn.drop_all(WAVE)
    for entry_id, _ in list(turn.entries(CONFLICTS)):
        turn.put_conflicts(entry_id.removeprefix(CONFLICTS), [])
    for step in list(turn.steps()):
        if step.state in _NEVER_ORDERED:
            turn.forget_step(step)
        elif step.state in OPEN:
            turn.put_step(msgspec.structs.replace(step, state="replaced"), step.state)


def _waits(turn: Turn, step: PlannedStep) -> StepState | None:
    """Why a step isn't ordered yet. Where a contract lets the rest of a resource be undone without a field that is in
    conflict, people are asked about that field first all the same; if they let it go on, it is left as it is."""
    is_left = turn.head.leaves_undecided and step.command is not None
    if step.is_held or (step.is_undecided and not is_left):
        return "held"
    if step.is_behind or (step.is_behind_undecided and not turn.head.leaves_undecided):
        return "behind"
    return None


def _is_ready(turn: Turn, step: PlannedStep) -> bool:
    return _waits(turn, step) is None


def _store_conflicts(turn: Turn, planned: Planned) -> None:
    by_resource: dict[str, list[StepConflict]] = {}
    held = {step.resource for step in planned.steps if _waits(turn, step) == "held"}
    for item in planned.plan.conflicts:
        if item.resolution == "manual" and item.resource in held:
            conflict = StepConflict(path=item.path, before=item.before, after=item.after, actual=item.actual)
            by_resource.setdefault(item.resource, []).append(conflict)
    for resource, conflicts in by_resource.items():
        turn.put_conflicts(resource, conflicts)


def _store_steps(turn: Turn, planned: Planned, request: RollbackRequest, number: int) -> None:
    kept: dict[str, int] = {}
    for item in planned.plan.conflicts:
        if item.resolution in ("actual", "manual") or _is_kept_by_value(turn, item):
            kept[item.resource] = kept.get(item.resource, 0) + 1
    waves: dict[int, list[str]] = {}
    for planned_step in planned.steps:
        order = _order(turn, planned_step, request, number)
        state: StepState = _waits(turn, planned_step) or "planned"
        turn.put_step(
            Step(
                order=order,
                state=state,
                plan=number,
                kept=0 if order.verb == "compensate" else kept.get(order.resource, 0),
                fallback=planned_step.fallback,
            ),
            None,
        )
        if state == "planned":
            waves.setdefault(planned_step.wave, []).append(order.step_id)
    for wave, step_ids in waves.items():
        for chunk, start in enumerate(range(0, len(step_ids), CHUNK)):
            turn.store(wave_key(number, wave, chunk), step_ids[start : start + CHUNK])


def _is_kept_by_value(turn: Turn, item: PlannedConflict) -> bool:
    """Whether a person gave a value to what was to be taken away: then it stays, with all that it is a part of."""
    return item.after is ABSENT and any(
        decision.path == item.path and decision.take == "value" for decision in turn.resolutions(item.resource)
    )


def wave_key(plan: int, wave: int, chunk: int) -> str:
    """Where the ids of some steps of a wave stand."""
    return f"{WAVE}{plan}:{wave}:{chunk}"


def _order(turn: Turn, step: PlannedStep, request: RollbackRequest, number: int) -> UndoStep:
    rollback_id, command = turn.head.rollback_id, step.command
    return UndoStep(
        step_id=digest(rollback_id, number, step.resource, step.action_id),
        rollback_id=rollback_id,
        resource=step.resource,
        verb="undo" if step.action_id is None else "compensate",
        operations=step.operations,
        numbers=step.numbers,
        planned=[] if command is None else command.changes,
        planned_action=None if command is None else command.action,
        action_id=step.action_id,
        compensation=None if command is None else command.compensation,
        resolutions=turn.resolutions(step.resource) if step.action_id is None else [],
        wave=step.wave,
        contract=turn.contracts.for_resource(step.resource).digest,
        requested_by=request.requested_by,
        reason=request.reason or f"Rollback {rollback_id}.",
        occurred_at=turn.now,
        traceparent=request.traceparent,
    )


# -- what people have agreed to already


def _is_covered(turn: Turn, planned: Planned, late: Selector | None) -> bool:
    """Whether a plan does nothing that isn't part of one that people let be carried out, or is the reversal of late actions
    of the very run or operations that they meant."""
    if not turn.head.approved_plans:
        return False
    if late is not None:
        select = None if turn.head.request is None else turn.head.request.select
        meant = set(late.operations or ())
        return (
            select is not None
            and (select.run_id is not None or select.operations is not None)
            and all(meant.issuperset(step.operations) for step in planned.steps)
        )
    approved: dict[str, set[bytes]] = {}
    for step in turn.steps():
        if step.plan in turn.head.approved_plans:
            approved.setdefault(_place(step.order), set()).update(_signatures(step.order))
    return all(
        _signatures(order) <= approved.get(_place(order), set())
        for order in (_order_of(step) for step in planned.steps if step.command is not None)
    )


def _order_of(step: PlannedStep) -> UndoStep:
    """As much of an order as says what is done."""
    command = step.command
    return UndoStep(
        step_id="",
        rollback_id="",
        resource=step.resource,
        planned=[] if command is None else command.changes,
        planned_action=None if command is None else command.action,
        action_id=step.action_id,
        compensation=None if command is None else command.compensation,
        occurred_at=0,
    )


def _place(order: UndoStep) -> str:
    return f"{order.resource} {order.action_id or ''}"


def _signatures(order: UndoStep) -> set[bytes]:
    """What an order does at its target, whatever it expects to find there."""
    if order.planned_action is None:
        return set()
    changes = {canonical([order.planned_action, *_change(change)]) for change in order.planned}
    compensation = None if order.compensation is None else msgspec.to_builtins(order.compensation)
    return changes or {canonical([order.planned_action, compensation])}


def _change(change: Change) -> Iterable[Json]:
    content = msgspec.to_builtins(change)
    return change.path, change.op, content.get("value"), "value" in content
