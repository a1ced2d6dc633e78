"""What the CEL rules of a contract decide.

A rule that gives no answer (it asks for what is not there, or would take too long) never loosens anything: a resolver leaves
the conflict to the next one, a `forbid` rejects, an approval is needed. ``notes`` collects a sentence for each such rule,
for the plan to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from reconciler.contracts.expressions import MAX_CONFLICT_WORK, EvaluationError, Facts, evaluate
from reconciler.contracts.model import ApprovalRule, Contract
from reconciler.values.json_value import Json

Context: TypeAlias = Mapping[str, Json] | Facts
"""What rules are asked about. Make one `Facts` of it where many rules are asked about the same."""


def resolve(
    contract: Contract, context: Context, notes: list[str] | None = None
) -> Literal["expected", "actual", "manual"] | None:
    """What the first resolver that answers takes; None where none does, or all that do pass."""
    facts = _facts(context)
    for resolver in contract.resolvers:
        try:
            is_true = evaluate(resolver.when, facts, MAX_CONFLICT_WORK)
        except EvaluationError as error:
            _note(notes, f"The resolver `{resolver.when}` of the contract {contract.name} gave no answer: {error}.")
            continue
        if is_true and resolver.take != "pass":
            return resolver.take
    return None


def forbidden(contract: Contract, context: Context, notes: list[str] | None = None) -> str | None:
    """Why a plan is rejected, or None. A rule that gives no answer rejects."""
    facts = _facts(context)
    for rule in contract.undo.forbid:
        try:
            is_true = evaluate(rule.when, facts)
        except EvaluationError as error:
            reason = f"A rule that can forbid this gave no answer: {error}. It says: {rule.because}"
            _note(
                notes, f"The rule `{rule.when}` of the contract {contract.name} gave no answer, so it rejects: {error}."
            )
            return reason
        if is_true:
            return rule.because
    return None


def approvals_needed(contract: Contract, context: Context, notes: list[str] | None = None) -> tuple[ApprovalRule, ...]:
    """The approvals that a plan needs, in the contract's order. Those whose rule gives no answer are needed."""
    facts = _facts(context)
    return tuple(rule for rule in contract.approvals if _is_needed(contract, rule, facts, notes))


def _is_needed(contract: Contract, rule: ApprovalRule, facts: Facts, notes: list[str] | None) -> bool:
    if rule.when is None:
        return True
    try:
        return evaluate(rule.when, facts)
    except EvaluationError as error:
        _note(
            notes,
            f"The rule `{rule.when}` of the contract {contract.name} gave no answer, so approval is needed: {error}.",
        )
        return True


def _facts(context: Context) -> Facts:
    return context if isinstance(context, Facts) else Facts(context)


def _note(notes: list[str] | None, note: str) -> None:
    if notes is not None and note not in notes:
        notes.append(note)


__all__ = ["Context", "Facts", "approvals_needed", "forbidden", "resolve"]
