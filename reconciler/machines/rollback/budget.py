"""The retry budget that a rollback has at each system: a system that answers no more isn't hammered by ten thousand steps."""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.machines.rollback.head import Step
from reconciler.machines.rollback.turn import Turn
from reconciler.records import StepReport

TOKENS: Final = 500.0
RETRY_COST: Final = 5.0
TIMEOUT_COST: Final = 10.0
_REFUND: Final = 1.0  # for a success at the first attempt; a later one gives back what its retries had cost


def pay(turn: Turn, step: Step, report: StepReport) -> tuple[Step, bool]:
    """A step is tried once more. Says whether the system's budget still allows that."""
    cost = TIMEOUT_COST if report.is_timeout else RETRY_COST
    system = system_of(step.order.resource)
    left = turn.head.budgets.get(system, TOKENS) - cost
    turn.change(budgets={**turn.head.budgets, system: max(left, 0.0)})
    return msgspec.structs.replace(step, spent=step.spent + cost), left > 0


def refund(turn: Turn, step: Step) -> None:
    """A step has succeeded."""
    system = system_of(step.order.resource)
    if system in turn.head.budgets:
        left = min(turn.head.budgets[system] + (step.spent or _REFUND), TOKENS)
        budgets = {**turn.head.budgets, system: left}
        if left >= TOKENS:
            del budgets[system]
        turn.change(budgets=budgets)


def system_of(resource: str) -> str:
    """The system of a resource, as its key writes it."""
    return resource.partition("/")[0]
