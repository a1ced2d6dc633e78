"""Which operations a rollback's selector names."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.plan.estate import Estate
from reconciler.records import Action, Selector
from reconciler.values.errors import InputError

_ONE_OF = ("run_id", "operations", "workflow_id", "actor", "system", "resource")
_WITH_WINDOW = ("workflow_id", "actor", "system")


def check(selector: Selector | None) -> Selector:
    """The selector, if it is one. Raises InputError otherwise."""
    if selector is None:
        raise InputError("must say what to undo", field="select")
    named = [name for name in _ONE_OF if getattr(selector, name) is not None]
    if len(named) != 1:
        raise InputError(f"must name exactly one of {', '.join(_ONE_OF)}; it names {named or 'none'}", field="select")
    if selector.after_step is not None and selector.run_id is None:
        raise InputError("goes with run_id alone", field="select.after_step")
    if getattr(selector, named[0]) == "":
        raise InputError("must not be empty", field=f"select.{named[0]}")
    if selector.from_at is not None and named[0] not in _WITH_WINDOW:
        raise InputError(f"goes with {', '.join(_WITH_WINDOW)}; take it out", field="select.from")
    if selector.to_at is not None and named[0] not in (*_WITH_WINDOW, "resource"):
        raise InputError(f"goes with {', '.join(_WITH_WINDOW)}, resource; take it out", field="select.to")
    if selector.resource is not None and selector.to_at is None:
        raise InputError("a resource is restored to an instant: name it as `to`", field="select.to")
    if selector.from_at is not None and selector.to_at is not None and selector.from_at > selector.to_at:
        raise InputError("must not be before `from`", field="select.to")
    return selector


def selected(estate: Estate, selector: Selector | None) -> list[str]:
    """The operations that a selector names, in the order of the log. Raises InputError for a selector that isn't one."""
    selector = check(selector)
    if selector.operations is not None:
        return list(dict.fromkeys(selector.operations))
    matches = _matcher(estate, selector)
    return [
        name for name, operation in estate.operations.items() if any(matches(action) for action in operation.actions)
    ]


def _matcher(estate: Estate, selector: Selector) -> Callable[[Action], bool]:
    if selector.run_id is not None:
        if selector.after_step is None:
            return lambda action: action.run_id == selector.run_id
        return _after_step(estate, selector.run_id, selector.after_step)
    if selector.resource is not None:
        since = selector.to_at
        assert since is not None
        return lambda action: action.resource == selector.resource and action.occurred_at > since
    return lambda action: (
        _in_window(action, selector)
        and (
            action.workflow_id == selector.workflow_id
            if selector.workflow_id is not None
            else action.actor is not None and action.actor.id == selector.actor
            if selector.actor is not None
            else action.resource.partition("/")[0] == selector.system
        )
    )


def _in_window(action: Action, selector: Selector) -> bool:
    """From the first instant on, up to but without the second."""
    return (selector.from_at is None or action.occurred_at >= selector.from_at) and (
        selector.to_at is None or action.occurred_at < selector.to_at
    )


def _after_step(estate: Estate, run_id: str, step_id: str) -> Callable[[Action], bool]:
    orders = [
        operation.order
        for operation in estate.operations.values()
        for action in operation.actions
        if action.run_id == run_id and action.step_id == step_id
    ]
    if not orders:
        raise InputError(f"the run {run_id!r} has no step {step_id!r}", field="select.after_step")
    last = max(orders)
    return lambda action: action.run_id == run_id and estate.operations[action.operation_id].order > last
