"""Stories, held against texts that people have read: stories/*.md. A text that changes is read again before it is kept:

python -m tests.core.test_story      writes the files anew
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.contracts.loader import Source, contract_set
from reconciler.contracts.model import ContractSet
from reconciler.json_form import action_from_json, observation_from_json, to_json
from reconciler.offline import planned
from reconciler.plan.model import ApprovalNeeded, Plan
from reconciler.plan.progress import OpenStep, Progress, tell_progress
from reconciler.plan.request import request_from_json
from reconciler.plan.story import LINES_TOLD, Story, markdown
from reconciler.records import Actor, Approval, StepConflict
from reconciler.values.instant import parse_instant
from reconciler.values.json_value import ABSENT, Json, canonical

FOLDER = Path(__file__).parent / "stories"

ANA = {"id": "ana@example.com", "kind": "user"}
CONTRACTS: list[dict[str, Any]] = [
    {
        "contract": "crm/contact",
        "labels": {"resource": "contact", "/phone": "phone number", "/ssn": "social security number", "/address": "address"},
        "fields": {"/ssn": {"sensitive": True}, "/city": {"conflict": "actual_wins"}},
        "references": {"/account_id": "crm/account"},
        "approvals": [{"roles": ["data-steward"], "count": 2}],
    },
    {
        "contract": "crm/account",
        "labels": {"resource": "account"},
        "undo": {"create": {"by": "archive", "set": {"/status": "archived"}}},
    },
    {
        "contract": "billing/invoice",
        "labels": {"resource": "invoice"},
        "undo": {"compensations": {"send-invoice": {"by": "credit note"}}},
    },
]  # fmt: skip
ACTIONS: list[dict[str, Any]] = [
    {"step_id": "make-account", "operation": "create", "resource": "crm/account/7", "set": {"/name": "ACME", "/status": "new"}},
    {
        "step_id": "update-contact",
        "operation": "update",
        "resource": "crm/contact/42",
        "before": {"/phone": "0228 1", "/ssn": "111", "/address/zip": "53111", "/called_at": "2026-01-07T09:30:00Z"},
        "set": {"/phone": "0731 2", "/ssn": "222", "/address/zip": "89073", "/called_at": None},
    },
    {
        "step_id": "tidy-up",
        "operation": "update",
        "resource": "crm/contact/43",
        "before": {"/phone": "1", "/note": "asked for *two* offers", "/city": "Bonn"},
        "set": {"/phone": "2", "/city": "Ulm"},
        "unset": ["/note"],
    },
    {"step_id": "drop-duplicate", "operation": "delete", "resource": "crm/contact/44", "before": {"/phone": "5"}},
    {"step_id": "send-invoice", "operation": "effect", "resource": "billing/invoice/9", "set": {"/number": 9}},
    {"step_id": "text-message", "operation": "effect", "resource": "crm/contact/42"},
    {
        "step_id": "set-owner",
        "run_id": "run-8",
        "actor": ANA,
        "operation": "update",
        "resource": "crm/contact/43",
        "before": {"/phone": "2"},
        "set": {"/phone": "3"},
        "occurred_at": "2026-05-04T08:15:00Z",
    },
]  # fmt: skip
ACTUAL: dict[str, Any] = {
    "crm/account/7": {"name": "ACME", "status": "new"},
    "crm/contact/42": {"phone": "0731 2", "ssn": "333", "address": {"zip": "89073"}, "called_at": None},
    "crm/contact/43": {"phone": "3", "city": "Hof"},
    "crm/contact/44": None,
}


def contracts() -> ContractSet:
    return contract_set([Source(f"contract {index}", canonical(text).decode()) for index, text in enumerate(CONTRACTS)])


def plan_of(actions: list[dict[str, Any]], actual: dict[str, Any], **request: Json) -> Plan:
    told = [
        action_from_json(
            {
                "stage": "succeeded",
                "run_id": "run-7",
                "workflow_id": "lead intake",
                "occurred_at": f"2026-05-03T10:0{min(index, 9)}:00Z",
                **action,
            }
        )
        for index, action in enumerate(actions)
    ]
    observations = [
        observation_from_json({"resource": key, "exists": fields is not None, "fields": fields or {}})
        for key, fields in actual.items()
    ]
    data = {
        "rollback_id": "rollback-1",
        "select": {"run_id": "run-7"},
        "requested_by": "ben@example.com",
        "reason": "The wrong list was imported",
        **request,
    }
    return planned(told, observations, request_from_json(data), contracts())


def mixed() -> Plan:
    """Everything at once."""
    return plan_of(ACTIONS, ACTUAL)


def decided() -> Plan:
    decision = {"resource": "crm/contact/42", "path": "/ssn", "take": "keep", "seen": "333"}
    return plan_of(ACTIONS, ACTUAL, resolutions=[decision])


def many() -> Plan:
    actions = [
        {
            "step_id": f"import-{number}",
            "operation": "update",
            "resource": f"crm/contact/{number}",
            "before": {"/phone": "1", "/city": "Bonn"},
            "set": {"/phone": "2", "/city": "Ulm" if number % 2 else "Hof"},
        }
        for number in range(1, 41)
    ]
    later = [
        {
            "step_id": f"clean-{number}",
            "run_id": "run-8",
            "actor": ANA,
            "operation": "update",
            "resource": f"crm/contact/{number}",
            "before": {"/phone": "2"},
            "set": {"/phone": "3"},
        }
        for number in range(1, 21)
    ]
    actual = {
        f"crm/contact/{number}": {"phone": "3" if number < 21 else "2", "city": "Ulm" if number % 2 else "Hof"}
        for number in range(1, 41)
    }
    return plan_of([*actions, *later], actual)


def in_sync() -> Plan:
    before = {"phone": "0228 1", "ssn": "111", "address": {"zip": "53111"}, "called_at": "2026-01-07T09:30:00Z"}
    return plan_of(ACTIONS[1:2], {"crm/contact/42": before})


def unseen() -> Plan:
    return plan_of(ACTIONS[1:4], {})


PLANS = {"everything": mixed, "decided": decided, "many": many, "in_sync": in_sync, "unseen": unseen}

NEEDED = [ApprovalNeeded(contract="crm/contact", roles=["data-steward"], count=2)]
GIVEN = [
    Approval(
        by=Actor(id="eve@example.com", kind="user"),
        roles=["data-steward"],
        approved_at=parse_instant("2026-05-05T09:00:00Z"),
    ),
    Approval(by=Actor(id="max@example.com", kind="user"), roles=["data-steward"]),
]
CONFLICT = OpenStep(
    resource="crm/contact/43",
    kind="conflict",
    conflicts=[StepConflict(path="/note", before=ABSENT, after="asked for *two* offers", actual="call back")],
)
STATES: dict[str, dict[str, Any]] = {
    "gathering": {"status": "gathering", "plan": None, "mode": "execute"},
    "executable": {"status": "executable"},
    "needs_approval": {
        "status": "needs_approval",
        "approvals_needed": NEEDED,
        "expires_at": parse_instant("2026-05-08T10:00:00Z"),
    },
    "executing": {"status": "executing", "mode": "execute", "wave": 2, "waves": 3, "total": 5, "done": 2, "approvals": GIVEN},
    "verifying": {"status": "verifying", "mode": "execute", "waves": 3, "total": 5, "done": 5, "verified": 3, "approvals": GIVEN},
    "completed": {"status": "completed", "mode": "execute", "waves": 3, "total": 5, "done": 5, "verified": 5, "approvals": GIVEN},
    "halted": {
        "status": "halted",
        "mode": "execute",
        "wave": 2,
        "waves": 3,
        "total": 5,
        "done": 2,
        "open": [
            CONFLICT,
            OpenStep(resource="crm/account/7", kind="failed", error="the account is locked for the audit"),
            OpenStep(resource="crm/contact/42", kind="failed", error="duplicate key (ssn)=(222)"),
        ],
    },
    "partial": {
        "status": "partial",
        "mode": "execute",
        "waves": 3,
        "total": 5,
        "done": 4,
        "verified": 3,
        "open": [
            OpenStep(resource="crm/account/7", kind="skipped", error="the account is locked for the audit"),
            OpenStep(
                resource="crm/contact/42",
                kind="contradicted",
                conflicts=[StepConflict(path="/ssn", before="222", after="111", actual="444")],
            ),
        ],
    },
    "cancelled": {
        "status": "cancelled",
        "mode": "execute",
        "total": 5,
        "done": 2,
        "by": Actor(id="ben@example.com", kind="user"),
        "reason": "It was the right list after all",
    },
    "cancelled_early": {"status": "cancelled", "total": 5, "by": Actor(id="ben@example.com", kind="user")},
    "rejected": {
        "status": "rejected",
        "plan": None,
        "reason": "ben@example.com may not ask for this: it takes the role operator",
    },
    "gathering_again": {"status": "gathering", "mode": "execute", "total": 5, "done": 2},
    "halted_silent": {
        "status": "halted",
        "mode": "execute",
        "total": 5,
        "done": 2,
        "reason": "crm fails too often; see whether it is well, then resume.",
    },
    "nothing_to_do": {"status": "nothing_to_do", "plan": "in_sync"},
}  # fmt: skip


def progress_of(name: str) -> Story:
    fields = {"plan": "decided"} | STATES[name]
    if fields["plan"] is not None:
        fields["plan"] = PLANS[fields["plan"]]().story_parts
    return tell_progress(Progress(**fields), contracts())


def stories() -> dict[str, Story]:
    told = {f"plan_{name}": make().story_parts for name, make in PLANS.items()}
    return told | {f"progress_{name}": progress_of(name) for name in STATES}


@pytest.mark.parametrize("name", [*(f"plan_{name}" for name in PLANS), *(f"progress_{name}" for name in STATES)])
def test_a_story_is_as_it_was_read(name: str) -> None:
    kind, _, name_of_kind = name.partition("_")
    told = PLANS[name_of_kind]().story_parts if kind == "plan" else progress_of(name_of_kind)
    assert markdown(told) + "\n" == (FOLDER / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STATES)
def test_the_opening_names_nobody_and_nothing(name: str) -> None:
    opening = progress_of(name).opening
    for word in ("run-7", "rollback-1", "crm", "contact", "42", "_", "wave", "hash", "null"):
        assert name == "rejected" or word not in opening, opening


def test_sensitive_values_are_in_no_story() -> None:
    for name, told in stories().items():
        text = markdown(told) + canonical(to_json(told)).decode()
        assert not {"111", "222", "333", "444"} & set(re.findall(r"\w+", text)), name


def test_a_plan_s_story_is_its_parts_in_markdown() -> None:
    plan = mixed()
    assert plan.story == markdown(plan.story_parts)
    assert to_json(plan)["story_parts"]["opening"] == plan.story_parts.opening


def test_long_lists_are_folded_and_the_rest_is_counted() -> None:
    told = many().story_parts
    assert told.counts["records"] == 40
    for section in told.sections:
        assert len(section.lines) <= LINES_TOLD + 1


def test_people_s_texts_are_no_markup() -> None:
    wild = "a*b* <b>c</b> [d](e) `f`\n\n# g \u202e"
    plan = plan_of(
        [{"step_id": "a", "operation": "update", "resource": "x/y/1", "before": {"/t": wild}, "set": {"/t": "z"}}],
        {"x/y/1": {"t": "z"}},
        reason=wild,
    )
    assert "a\\*b\\* \\<b\\>c\\</b\\> \\[d\\](e) \\`f\\` # g" in plan.story
    assert "\u202e" not in plan.story
    assert all(line.startswith(("- ", "**")) or not line for line in plan.story.splitlines()[1:])


def test_the_same_facts_give_the_same_text() -> None:
    assert markdown(mixed().story_parts) == markdown(mixed().story_parts)
    assert msgspec.to_builtins(progress_of("halted")) == msgspec.to_builtins(progress_of("halted"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for title, story in stories().items():
        (FOLDER / f"{title}.md").write_text(markdown(story) + "\n", encoding="utf-8")
