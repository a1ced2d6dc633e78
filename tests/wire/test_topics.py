"""Topic names and settings."""

from __future__ import annotations

import pytest

from reconciler.values.errors import InputError
from reconciler.wire.codec import MAX_RECORD_BYTES, MAX_STATE_BYTES
from reconciler.wire.conversion import RECORDS
from reconciler.wire.topics import MAX_DEAD_LETTER_BYTES, TopicNames

DAY_MS = 86_400_000


def test_names_carry_the_prefix() -> None:
    names = TopicNames("staging.")
    assert names.actions == "staging.workflow.actions"
    assert names.reversal("crm") == "staging.reversal.crm"
    assert all(spec.name.startswith("staging.") for spec in names.specs(("crm",)))


def test_settings() -> None:
    found = {spec.name: (spec.cleanup, spec.retention_ms) for spec in TopicNames().specs(("crm", "billing"))}
    delete, compact, both = ("delete",), ("compact",), ("compact", "delete")
    assert found == {
        "workflow.actions": (delete, -1),
        "state.observations": (delete, 7 * DAY_MS),
        "state.expected": (compact, None),
        "drift.events": (both, 90 * DAY_MS),
        "reversal.crm": (delete, 14 * DAY_MS),
        "reversal.billing": (delete, 14 * DAY_MS),
        "reversal.outcomes": (delete, 14 * DAY_MS),
        "rollback.requests": (delete, -1),
        "rollback.events": (delete, 365 * DAY_MS),
        "reconciler.alerts": (delete, 30 * DAY_MS),
        "reconciler.dead-letters": (delete, 30 * DAY_MS),
        "reconciler.internal.history": (compact, None),
        "reconciler.internal.timers": (delete, 7 * DAY_MS),
        "reconciler.internal.undo-steps": (delete, 90 * DAY_MS),
        "reconciler.internal.decisions": (delete, -1),
        "reconciler.internal.gather-queries": (delete, 90 * DAY_MS),
        "reconciler.internal.gathered": (delete, 90 * DAY_MS),
        "reconciler.internal.step-reports": (delete, 90 * DAY_MS),
        "reconciler.internal.rollbacks": (compact, None),
        "reconciler.internal.rollback-history": (compact, None),
        "reconciler.internal.rollback-timers": (delete, 7 * DAY_MS),
    }


def test_every_record_travels_somewhere() -> None:
    assert {spec.record for spec in TopicNames().specs(("crm",))} == {*RECORDS.values(), None}


def test_what_may_be_larger_than_kafkas_default_says_so() -> None:
    limits = {spec.name: spec.config().get("max.message.bytes") for spec in TopicNames().specs()}
    assert limits["state.expected"] == limits["reconciler.internal.history"] == str(MAX_STATE_BYTES)
    assert int(limits["reconciler.dead-letters"] or 0) == MAX_DEAD_LETTER_BYTES >= MAX_RECORD_BYTES + 2**16
    assert limits["workflow.actions"] is None


@pytest.mark.parametrize("system", ["a b", "é", "crm/x", "x" * 250])
def test_a_system_that_makes_no_topic_name_is_an_error(system: str) -> None:
    with pytest.raises(InputError, match="is no name for a topic"):
        TopicNames().reversal(system)


def test_a_system_called_outcomes_is_an_error() -> None:
    with pytest.raises(InputError, match="can't be called 'outcomes'"):
        TopicNames("p.").reversal("outcomes")


def test_a_prefix_that_makes_no_topic_name_is_an_error() -> None:
    with pytest.raises(InputError, match="is no name for a topic"):
        TopicNames("my topics/")
