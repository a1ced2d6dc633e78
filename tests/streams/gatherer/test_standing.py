"""Standing questions: to whom an action is told, and the bound on what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.records import Action, GatherQuery, Selector
from streams.gatherer.standing import Standing, StandingQuestions
from tests.core.histories import make_action


def standing(name: str, *, after: int | None = 10, after_ms: int = 0, **fields: Any) -> Standing:
    query = GatherQuery(rollback_id=name, round=1, partition=0, standing=True, occurred_at=0, **fields)
    return Standing(name, query, after, after_ms)


def told(questions: StandingQuestions, action: Action, offset: int = 10, timestamp_ms: int = 0) -> list[str]:
    return sorted(questions.asking(action, offset, timestamp_ms))


def test_it_is_told_to_those_who_asked_for_it() -> None:
    questions = StandingQuestions()
    questions.add(standing("by-run", select=Selector(run_id="run")))
    questions.add(standing("by-name", operations=["run/step-1"]))
    questions.add(standing("by-selection", select=Selector(operations=["run/step-1", "run/step-2"])))
    questions.add(standing("in-a-window", select=Selector(system="crm", from_at=5, to_at=6)))
    questions.add(standing("other", select=Selector(run_id="another")))
    assert told(questions, make_action(1)) == ["by-name", "by-run", "by-selection"]
    assert told(questions, make_action(2)) == ["by-run", "by-selection"]
    assert told(questions, make_action(3, run_id="third")) == []


def test_only_what_came_after_the_answer_is_later() -> None:
    questions = StandingQuestions()
    questions.add(standing("rb", select=Selector(run_id="run"), after=10))
    assert told(questions, make_action(1), offset=9) == []
    assert told(questions, make_action(1), offset=10) == ["rb"]


def test_where_the_offset_is_lost_the_timestamp_decides() -> None:
    questions = StandingQuestions()
    questions.add(standing("rb", select=Selector(run_id="run"), after=None, after_ms=100))
    assert told(questions, make_action(1), timestamp_ms=99) == []
    assert told(questions, make_action(1), timestamp_ms=100) == ["rb"]


def test_a_question_is_asked_once_and_until_it_is_removed() -> None:
    questions = StandingQuestions()
    for _ in range(2):
        questions.add(standing("rb", select=Selector(operations=["run/step-1"]), operations=["run/step-1"]))
    assert told(questions, make_action(1)) == ["rb"]
    assert len(questions) == 1
    questions.remove("rb")
    questions.remove("rb")
    assert (told(questions, make_action(1)), len(questions), questions.get("rb")) == ([], 0, None)


def test_the_oldest_make_room(caplog: pytest.LogCaptureFixture) -> None:
    questions = StandingQuestions(most_terms=3)
    questions.add(standing("first", operations=["run/step-1", "run/step-2"]))
    questions.add(standing("second", operations=["run/step-1", "run/step-2"]))
    assert told(questions, make_action(1)) == ["second"]
    assert "late actions are no longer told to first" in caplog.text


def test_a_selector_that_selects_nothing_asks_for_nothing() -> None:
    questions = StandingQuestions()
    questions.add(standing("rb", select=Selector()))
    assert told(questions, make_action(1)) == []
