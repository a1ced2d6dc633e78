"""Which selectors are none: what would be ignored is refused, so that nothing more is undone than was meant."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.plan.selection import check
from reconciler.records import Selector
from reconciler.values.errors import InputError

DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "select"),
        ({"run_id": "r", "system": "crm"}, "select"),
        ({"run_id": ""}, "select.run_id"),
        ({"workflow_id": ""}, "select.workflow_id"),
        ({"system": "crm", "after_step": "a"}, "select.after_step"),
        ({"run_id": "r", "from_at": DAY}, "select.from"),
        ({"operations": ["r/a"], "from_at": DAY}, "select.from"),
        ({"resource": "crm/contact/1", "from_at": DAY, "to_at": 2 * DAY}, "select.from"),
        ({"run_id": "r", "to_at": DAY}, "select.to"),
        ({"operations": ["r/a"], "to_at": DAY}, "select.to"),
        ({"run_id": "r", "after_step": "a", "to_at": DAY}, "select.to"),
        ({"resource": "crm/contact/1"}, "select.to"),
        ({"actor": "ana", "from_at": 2 * DAY, "to_at": DAY}, "select.to"),
    ],
)
def test_what_is_no_selector_is_refused_where_it_says_so(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as refused:
        check(Selector(**given))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "given",
    [
        {"run_id": "r"},
        {"run_id": "r", "after_step": "a"},
        {"operations": ["r/a"]},
        {"resource": "crm/contact/1", "to_at": DAY},
        *({name: "x", "from_at": DAY, "to_at": 2 * DAY} for name in ("workflow_id", "actor", "system")),
        {"system": "crm"},
    ],
)
def test_what_is_a_selector_is_taken(given: dict[str, Any]) -> None:
    selector = Selector(**given)
    assert check(selector) is selector
