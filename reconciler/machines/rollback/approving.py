"""Consent: who may give it, to what, and for how long.

An approval is one person's word on one plan, named by its hash. It never counts from whoever asked for the rollback or
decided one of its conflicts, nor on another plan, nor after its time.
"""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.machines.rollback.head import Head
from reconciler.machines.rollback.turn import Refused, Turn
from reconciler.plan.model import ApprovalNeeded
from reconciler.records import Approval, RollbackRequest
from reconciler.values.instant import SECOND, Instant

CONSENT_HOURS: Final = 72
"""How long a plan waits for consent, and how long consent holds."""

_APPROVALS_REMEMBERED: Final = 100
_CONSENT: Final = CONSENT_HOURS * 3_600 * SECOND


def valid_approvals(turn: Turn) -> list[Approval]:
    """The approvals that count on the plan that holds now."""
    facts = turn.head.plan
    if facts is None:
        return []
    return [
        item
        for item in turn.head.approvals
        if item.plan_hash == facts.plan_hash and _may_approve(turn.head, item.by.id) and _is_young(item, turn.now)
    ]


def missing_approvals(turn: Turn) -> list[ApprovalNeeded]:
    """The consents that the plan still needs."""
    facts = turn.head.plan
    if facts is None or facts.is_covered:
        return []
    given = valid_approvals(turn)
    missing = []
    for needed in facts.approvals:
        people = {item.by.id for item in given if not needed.roles or set(needed.roles) & set(item.roles)}
        if len(people) < needed.count:
            missing.append(msgspec.structs.replace(needed, count=needed.count - len(people)))
    return missing


def expires_at(turn: Turn) -> Instant | None:
    """Until when the plan waits for consent; None where it doesn't wait."""
    return consent_ends_at(turn.head) if turn.head.status == "needs_approval" else None


def consent_ends_at(head: Head) -> Instant | None:
    """When the time for consent to the plan that holds now is up."""
    return None if head.plan is None else head.plan.planned_at + _CONSENT


def take_approvals(turn: Turn, request: RollbackRequest) -> None:
    """Takes a person's consent. Raises Refused where it can't count."""
    facts = turn.head.plan
    if facts is None:
        raise Refused("approves a plan that isn't there yet; wait for the plan, read it, and approve it by its hash")
    given = request.approvals or _own_word(request)
    if not given:
        raise Refused("approves, and doesn't say who does; name the person as requested_by", "requested_by")
    for item in given:
        plan_hash = item.plan_hash or request.plan_hash
        if plan_hash is None:
            raise Refused("approves no plan in particular; name the plan by its hash", "plan_hash")
        if plan_hash != facts.plan_hash:
            raise Refused("approves another plan than the one that holds now; read the new one first", "plan_hash")
        if request.requested_by is not None and request.requested_by.id != item.by.id:
            raise Refused("gives the consent of somebody else; everybody approves for himself", "approvals")
        if not _may_approve(turn.head, item.by.id):
            raise Refused(
                f"is the consent of {item.by.id}, who asked for this or decided a part of it; somebody else must approve",
                "approvals",
            )
        add_approval(turn, item, plan_hash)


def add_approval(turn: Turn, item: Approval, plan_hash: str) -> None:
    """Keeps an approval; the same person's second one on a plan takes the place of the first."""
    at = turn.now if item.approved_at is None else min(item.approved_at, turn.now)
    kept = [other for other in turn.head.approvals if (other.by.id, other.plan_hash) != (item.by.id, plan_hash)]
    approval = msgspec.structs.replace(item, plan_hash=plan_hash, approved_at=at)
    turn.change(approvals=[*kept, approval][-_APPROVALS_REMEMBERED:])


def _own_word(request: RollbackRequest) -> list[Approval]:
    if request.requested_by is None:
        return []
    return [Approval(by=request.requested_by, roles=request.roles)]


def _may_approve(head: Head, person: str) -> bool:
    asked = None if head.request is None or head.request.requested_by is None else head.request.requested_by.id
    return person != asked and person not in head.deciders


def _is_young(item: Approval, now: Instant) -> bool:
    return item.approved_at is not None and now - item.approved_at < _CONSENT
