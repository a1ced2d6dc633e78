"""What people say to a rollback: request, approve, cancel, resume, resolve."""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.masking import masked
from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.machines.rollback.approving import add_approval, missing_approvals, take_approvals
from reconciler.machines.rollback.driving import finish, halt, proceed, start, withdraw
from reconciler.machines.rollback.gathering import begin, forget
from reconciler.machines.rollback.head import DECIDED, DONE, ENDED, LEFT_BEHIND, OPEN_OTHERWISE, Driving, Head
from reconciler.machines.rollback.telling import tell
from reconciler.machines.rollback.turn import Refused, Turn, digest
from reconciler.plan.model import Plan
from reconciler.plan.resolving import check_resolutions
from reconciler.plan.selection import check
from reconciler.records import Resolution, RollbackRequest
from reconciler.values.errors import InputError
from reconciler.values.json_value import same

_REQUESTS_REMEMBERED: Final = 200


def identity_of(request: RollbackRequest) -> str:
    """By what a request is known when it comes again."""
    return request.request_id or digest(msgspec.to_builtins(request))


def take_request(turn: Turn, request: RollbackRequest) -> None:
    """Takes what a person says. Raises Refused for what can't be done, with a sentence."""
    if identity_of(request) in turn.head.requests:
        return
    if turn.head.request is None:
        if request.verb != "request":
            raise Refused(f"is the first word on the rollback {request.rollback_id}; request it first", "verb")
        _begin(turn, request)
    else:
        _continue(turn, request)
    turn.change(requests=[*turn.head.requests, identity_of(request)][-_REQUESTS_REMEMBERED:])


def _begin(turn: Turn, request: RollbackRequest) -> None:
    if request.requested_by is None:
        raise Refused("doesn't say who asks; name the person", "requested_by")
    try:
        check(request.select)
    except InputError as error:
        raise Refused(error.message, error.field or "select") from None
    kept = msgspec.structs.replace(request, approvals=[], resolutions=[])
    # A default is left out of the stored bytes only if it is the very object: a word that was read somewhere else is not.
    turn.change(request=kept, mode="execute" if request.mode == "execute" else "plan")
    for item in request.approvals:
        if item.plan_hash is not None:  # consent to no plan in particular is none
            add_approval(turn, item, item.plan_hash)
    begin(turn)


def _continue(turn: Turn, request: RollbackRequest) -> None:
    head = turn.head
    if request.verb == "request":
        raise Refused(
            f"asks for the rollback {head.rollback_id} once more, in other words; choose an id of its own",
            "rollback_id",
        )
    if request.requested_by is None:
        raise Refused(f"doesn't say who wants to {request.verb}; name the person", "requested_by")
    if head.status in ENDED:
        raise Refused(f"speaks of a rollback that is over ({head.status}); ask for a new one", "rollback_id")
    if head.then is not None and request.verb != "cancel":
        raise Refused("comes while the steps under way are being awaited; say it again when they have ended", "verb")
    match request.verb:
        case "approve":
            _approve(turn, request)
        case "cancel":
            _cancel(turn, request)
        case "resume":
            _resume(turn, request)
        case "resolve":
            _resolve(turn, request)


def _take_mode(turn: Turn, request: RollbackRequest) -> None:
    """A plan becomes the real thing as soon as somebody says so."""
    if request.mode == "execute" and turn.head.mode != "execute":
        _check_role(turn.head, request)
        turn.change(mode="execute")


def _check_role(head: Head, request: RollbackRequest) -> None:
    """Whoever lets a plan be carried out must be one who may ask for it."""
    refusal = refusal_of(head, request.roles)
    if refusal is not None:
        raise Refused(refusal, "roles")


def refusal_of(head: Head, roles: list[str]) -> str | None:
    """Why somebody with these roles may not ask for what is planned; None where he may."""
    requesters = {} if head.plan is None else head.plan.requesters
    for contract, needed in sorted(requesters.items()):
        if not set(needed) & set(roles):
            return f"The contract {contract} lets only {' or '.join(needed)} ask for this."
    return None


# -- the verbs


def _approve(turn: Turn, request: RollbackRequest) -> None:
    if turn.head.status not in ("executable", "needs_approval"):
        raise Refused(f"approves what is {turn.head.status}, where no plan waits for consent", "verb")
    take_approvals(turn, request)
    was_mode = turn.head.mode
    _take_mode(turn, request)
    go_on(turn, is_fresh=was_mode == "execute")


def _cancel(turn: Turn, request: RollbackRequest) -> None:
    turn.change(by=request.requested_by, halted_for=request.reason, gathering=None)
    forget(turn)
    if turn.head.then == "cancel":
        return
    if turn.under_way:
        withdraw(turn)
        turn.change(then="cancel")
        tell(turn, "halted")
    else:
        turn.change(then=None)
        tell(turn, "cancelled")


def _resume(turn: Turn, request: RollbackRequest) -> None:
    head = turn.head
    if head.status not in ("halted", "executable", "needs_approval"):
        raise Refused(f"resumes what is {head.status} and goes on by itself", "verb")
    if request.plan_hash is not None and head.plan is not None and request.plan_hash != head.plan.plan_hash:
        raise Refused("resumes another plan than the one that holds now; read the new one first", "plan_hash")
    _check_role(head, request)
    _take_mode(turn, request)
    turn.change(budgets={})  # somebody has looked at the systems that failed
    is_only_undecided = head.undecided > 0 and not turn.count(*OPEN_OTHERWISE)
    turn.change(leaves_undecided=head.leaves_undecided or (head.status == "halted" and is_only_undecided))
    _plan_again(turn)


def _plan_again(turn: Turn) -> None:
    """Finds out anew what is there and what is left, once nothing is under way."""
    if turn.under_way:
        withdraw(turn)
        reason = f"{turn.under_way} steps are still under way; when they have ended, what is left is planned again."
        turn.change(then="replan", driving=_waiting(turn), halted_for=reason)
        tell(turn, "halted")
        return
    begin(turn)


def _waiting(turn: Turn) -> Driving | None:
    driving = turn.head.driving
    return None if driving is None else msgspec.structs.replace(driving, progress_at=turn.now)


def _resolve(turn: Turn, request: RollbackRequest) -> None:
    assert request.requested_by is not None
    if not request.resolutions:
        raise Refused("decides nothing; name the conflicts and what is to become of them", "resolutions")
    _check_role(turn.head, request)
    try:
        check_resolutions(request.resolutions)
    except InputError as error:
        raise Refused(error.message, error.field or "resolutions") from None
    is_current = turn.head.plan is not None and request.plan_hash == turn.head.plan.plan_hash
    for item in [_meant(turn, item, is_current) for item in request.resolutions]:
        decided = [other for other in turn.resolutions(item.resource) if other.path != item.path]
        turn.store(DECIDED + item.resource, [*decided, item])
        turn.put_conflicts(item.resource, [it for it in turn.conflicts(item.resource) if it.path != item.path])
    turn.change(leaves_undecided=False)
    if request.requested_by.id not in turn.head.deciders:
        turn.change(deciders=[*turn.head.deciders, request.requested_by.id])
    _take_mode(turn, request)
    if turn.head.status in ("halted", "executable", "needs_approval"):
        if turn.head.undecided:
            tell(turn, turn.head.status)
        else:
            _plan_again(turn)


def _meant(turn: Turn, item: Resolution, is_current: bool) -> Resolution:
    """A decision on a conflict that is open, made by somebody who has seen what is there, if need be under a mask."""
    conflict = next((it for it in turn.conflicts(item.resource) if it.path == item.path), None)
    place = f"{item.path or 'the record'} of {item.resource}"
    if conflict is None:
        raise Refused(f"decides {place}, where no conflict is open", "resolutions")
    shown = masked(turn.contracts.for_resource(item.resource), item.path, conflict.actual)
    if is_current and same(item.seen, shown):
        return msgspec.structs.replace(item, seen=conflict.actual)
    if not same(conflict.actual, item.seen):
        raise Refused(f"decides {place} on another value than the one that is there; look again", "resolutions")
    return item


# -- after a plan


def planned(turn: Turn, plan: Plan) -> None:
    """A plan was made: publishes it, and goes on as far as is allowed."""
    head, facts = turn.head, turn.head.plan
    assert facts is not None and head.request is not None
    refusal = refusal_of(head, head.request.roles)
    if plan.status == "rejected" or refusal is not None:
        reject(turn, refusal or next((item.reason for item in plan.blocked if item.rule == "forbidden"), ""), plan)
    elif facts.steps:
        tell(turn, "needs_approval" if missing_approvals(turn) else "executable", plan=plan)
        go_on(turn, is_fresh=True, is_told=True)
    elif head.undecided:
        tell(turn, "executable", plan=plan)
        if head.mode == "execute":
            halt(turn, "Others changed what was to be undone; decide each of these fields, and it goes on.")
    elif turn.count("applied"):
        turn.change(driving=Driving(is_ordered=True, progress_at=turn.now))
        tell(turn, "verifying", plan=plan)
    elif turn.count(*DONE, *LEFT_BEHIND):
        tell(turn, "verifying", plan=plan)
        finish(turn)
    else:
        tell(turn, "nothing_to_do", plan=plan)


def reject(turn: Turn, reason: str, plan: Plan | None = None) -> None:
    """What was asked for isn't allowed, or makes no sense. Where a part of it was done before, that is no end of it."""
    turn.change(halted_for=reason)
    if turn.count(*DONE, *LEFT_BEHIND):
        halt(turn, reason, plan)
    else:
        tell(turn, "rejected", plan=plan)


def go_on(turn: Turn, *, is_fresh: bool, is_told: bool = False) -> None:
    """Carries the plan out where that is wanted and enough people agree. A plan that was made for reading alone, or under
    other contracts, is made anew first; if it turns out the same, the consent to it holds."""
    facts = turn.head.plan
    assert facts is not None
    missing = missing_approvals(turn)
    if turn.head.mode == "execute" and not missing:
        if is_fresh and _holds(turn):
            start(turn)
        else:
            begin(turn)
    elif not is_told:
        tell(turn, "needs_approval" if missing else "executable")


def _holds(turn: Turn) -> bool:
    """Whether the contracts are those of the plan."""
    facts = turn.head.plan
    assert facts is not None
    now = {contract.name: contract.digest for contract in (DEFAULT_CONTRACT, *turn.contracts.contracts)}
    return all(now.get(name) == value for name, value in facts.contracts.items())


__all__ = ["go_on", "identity_of", "planned", "proceed", "refusal_of", "reject", "take_request"]
