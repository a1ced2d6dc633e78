"""The standing questions of one partition: what is to be told when an action arrives after the answer.

Kept in memory, by term, so that an action costs a look-up for each of its terms however many questions there are. What
they hold is bounded: the oldest make room, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from reconciler.plan.index import Term, TermKind, is_told_later, term_of
from reconciler.records import Action, GatherQuery, operation_of
from reconciler.values.errors import InputError

logger = logging.getLogger(__name__)

MOST_TERMS: Final = 200_000

_VALUE_OF: Final[Mapping[TermKind, Callable[[Action], str | None]]] = {
    "operation": operation_of,
    "run": lambda action: action.run_id,
    "workflow": lambda action: action.workflow_id,
    "actor": lambda action: None if action.actor is None else action.actor.id,
    "system": lambda action: action.resource.partition("/")[0],
    "resource": lambda action: action.resource,
}
"""Under what an action is found of what can be asked for."""


class Standing(msgspec.Struct, frozen=True):
    """A standing question, and after which offset of the ledger an action is later than its answer."""

    question: str
    query: GatherQuery
    after: int | None
    """None: not known any more; then the record's timestamp decides."""
    after_ms: int
    """An action whose record is older is no later one."""


class StandingQuestions:
    """Those of one partition."""

    def __init__(self, most_terms: int = MOST_TERMS) -> None:
        self._most_terms = most_terms
        self._by_kind: dict[TermKind, dict[str, dict[str, None]]] = {}
        self._questions: dict[str, Standing] = {}
        self._terms = 0

    def __len__(self) -> int:
        return len(self._questions)

    def get(self, question: str) -> Standing | None:
        """A question that is asked."""
        return self._questions.get(question)

    def add(self, standing: Standing) -> None:
        """From now on this is asked."""
        self.remove(standing.question)
        self._questions[standing.question] = standing
        for term in _terms_of(standing.query):
            self._by_kind.setdefault(term.kind, {}).setdefault(term.value, {})[standing.question] = None
            self._terms += 1
        while self._terms > self._most_terms and len(self._questions) > 1:
            oldest = next(iter(self._questions))
            logger.warning("there are too many standing questions; late actions are no longer told to %s", oldest)
            self.remove(oldest)

    def remove(self, question: str) -> None:
        """This is no longer asked."""
        standing = self._questions.pop(question, None)
        if standing is None:
            return
        for term in _terms_of(standing.query):
            by_value = self._by_kind[term.kind]
            del by_value[term.value][question]
            self._terms -= 1
            if not by_value[term.value]:
                del by_value[term.value]
            if not by_value:
                del self._by_kind[term.kind]

    def asking(self, action: Action, offset: int, timestamp_ms: int) -> list[str]:
        """The questions to which an action is to be told as a late one."""
        found: dict[str, None] = {}
        for kind, by_value in self._by_kind.items():
            value = _VALUE_OF[kind](action)
            if value in by_value:
                found |= by_value[value]
        return [question for question in found if self._is_for(self._questions[question], action, offset, timestamp_ms)]

    @staticmethod
    def _is_for(standing: Standing, action: Action, offset: int, timestamp_ms: int) -> bool:
        return _is_later(standing, offset, timestamp_ms) and is_told_later(standing.query, action)


def _is_later(standing: Standing, offset: int, timestamp_ms: int) -> bool:
    return timestamp_ms >= standing.after_ms if standing.after is None else offset >= standing.after


def _terms_of(query: GatherQuery) -> Iterator[Term]:
    """Under what an action is found that the question may want."""
    named = list(query.operations)
    if query.select is not None:
        named += query.select.operations or []
        try:
            term = term_of(query.select)
        except InputError:
            term = None  # it selects nothing; the answer said so
        if term is not None:
            yield term
    for operation in dict.fromkeys(named):
        yield Term("operation", operation)
