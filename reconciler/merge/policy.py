"""Who wins a conflict: the contract's resolvers in their order, then the strategy of the path."""

from __future__ import annotations

from reconciler.contracts.cel import resolve
from reconciler.contracts.model import Contract, FieldRule
from reconciler.history.members import merged
from reconciler.merge.three_way import Conflict, Resolved
from reconciler.records import Action, Actor, Observation
from reconciler.values.instant import format_instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import path_of

_MANUAL = Resolved("manual")
_EXPECTED = Resolved("expected")
_ACTUAL = Resolved("actual")


def decide(
    conflict: Conflict, contract: Contract, undone: Action | None, observed: Observation, notes: list[str] | None = None
) -> Resolved:
    """Decides a conflict. ``undone`` is the action whose write is to be undone there. ``notes`` collects a sentence for each
    rule that gave no answer."""
    answer = resolve(contract, _context(conflict, undone, observed), notes) if contract.resolvers else None
    if answer == "expected":
        return _EXPECTED
    if answer == "actual":
        return _ACTUAL
    if answer == "manual":
        return _MANUAL
    rule = contract.rule(path_of(conflict.tokens))
    match rule.conflict:
        case "manual":
            return _MANUAL
        case "expected_wins":
            return _EXPECTED
        case "actual_wins":
            return _ACTUAL
        case "latest_wins":
            return _latest(undone, observed)
        case "source_priority":
            return _best_source(rule, undone, observed)
        case "merge":
            return _merge(rule, conflict)


def _latest(undone: Action | None, observed: Observation) -> Resolved:
    if observed.modified_at is None or undone is None:
        return _MANUAL
    return _ACTUAL if observed.modified_at > undone.occurred_at else _EXPECTED


def _best_source(rule: FieldRule, undone: Action | None, observed: Observation) -> Resolved:
    ours = _rank(rule, None if undone is None else undone.actor)
    theirs = _rank(rule, observed.modified_by)
    if ours is None or theirs is None or ours == theirs:
        return _MANUAL
    return _EXPECTED if ours < theirs else _ACTUAL


def _rank(rule: FieldRule, actor: Actor | None) -> int | None:
    """The place of a writer in the ranked sources, by id or by kind, whichever is better; None for an unknown one."""
    if actor is None:
        return None
    places = [place for place, source in enumerate(rule.sources) if source in (actor.id, actor.kind)]
    return min(places) if places else None


def _merge(rule: FieldRule, conflict: Conflict) -> Resolved:
    result = merged(rule, conflict.before, conflict.after, conflict.actual)
    return _MANUAL if result is None else Resolved("merged", result[0])


def _context(conflict: Conflict, undone: Action | None, observed: Observation) -> dict[str, Json]:
    """What a resolver can ask about. Members that are absent are left out, for `has()`."""
    actor = None if undone is None else undone.actor
    expected = _side(conflict.after, actor) | (
        {} if undone is None else {"written_at": format_instant(undone.occurred_at)}
    )
    actual = _side(conflict.actual, observed.modified_by) | {"exists": observed.exists is True}
    if observed.modified_at is not None:
        actual["modified_at"] = format_instant(observed.modified_at)
    context: dict[str, Json] = {
        "path": path_of(conflict.tokens),
        "actual": actual,
        "expected": expected,
        "after": expected,
    }
    context["before"] = _side(conflict.before, actor)
    return context


def _side(value: Json | Absent, owner: Actor | None) -> dict[str, Json]:
    side: dict[str, Json] = {}
    if value is not ABSENT:
        side["value"] = value
    if owner is not None:
        side |= {"owner": owner.id, "owner_kind": owner.kind}
    return side
