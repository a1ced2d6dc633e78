"""What one partition of the ledger answers to a rollback's question, by looks into an index and without a scan.

Every action is found under a few *terms* (`terms_of`), and a question comes to a few terms as well. An index is whatever
gives the postings of a term in the order of the log: `ActionIndex` in memory, a RocksDB in the running system. What is
made of postings is said once, in `matches`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.plan.dependants import referred_key
from reconciler.records import Action, GatherQuery, Selector, Stage, operation_of
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.json_value import Json
from reconciler.values.pointer import tokens_of, value_at

TermKind: TypeAlias = Literal["operation", "run", "workflow", "actor", "system", "resource", "depends_on", "refers_to"]


class Term(NamedTuple):
    """What actions are found under."""

    kind: TermKind
    value: str


class Posting(NamedTuple):
    """An action under a term."""

    offset: int
    operation_id: str
    """The operation that the action is a part of (`operation_of`)."""
    resource: str
    action_id: str
    occurred_at: Instant
    stage: Stage


Postings: TypeAlias = Callable[[Term], Iterable[Posting]]
"""The postings of a term, in the order of the log."""


class Matches(msgspec.Struct, frozen=True):
    """What a partition knows of what was asked, in the order of the log: `operations` are those that the selector matched,
    `resources` all that must be told."""

    operations: list[str]
    resources: list[str]


def terms_of(action: Action, contracts: ContractSet) -> list[Term]:
    """Under what an action is found. Depends on the contracts' ``references`` alone: with others, an index is made anew."""
    terms = [
        Term("operation", operation_of(action)),
        Term("run", action.run_id),
        Term("system", action.resource.partition("/")[0]),
        Term("resource", action.resource),
    ]
    if action.workflow_id:
        terms.append(Term("workflow", action.workflow_id))
    if action.actor is not None:
        terms.append(Term("actor", action.actor.id))
    terms += [Term("depends_on", name) for name in dict.fromkeys(action.depends_on)]
    terms += [Term("refers_to", key) for key in dict.fromkeys(referred_by(action, contracts))]
    return terms


def posting_of(action: Action, offset: int) -> Posting:
    """An action as it stands under each of its terms."""
    return Posting(offset, operation_of(action), action.resource, action.action_id, action.occurred_at, action.stage)


def referred_by(action: Action, contracts: ContractSet) -> Iterator[str]:
    """The resources that an action's values, new or old, refer to; some of them more than once."""
    for path, referred in contracts.for_resource(action.resource).references.items():
        tokens = tokens_of(path)
        for values in (action.set, action.before or {}):
            for place, value in _above(values, path):
                key = referred_key(referred, value_at(value, tokens[len(tokens_of(place)) :]))
                if key is not None:
                    yield key


def _above(values: dict[str, Json], path: str) -> Iterator[tuple[str, Json]]:
    """The values at a path or above it."""
    for place, value in values.items():
        if path == place or path.startswith(place + "/"):
            yield place, value


def term_of(selector: Selector) -> Term | None:
    """The term of a selector; None for one that lists operations. Raises InputError for one that is none."""
    if selector.run_id is not None:
        return Term("run", selector.run_id)
    if selector.workflow_id is not None:
        return Term("workflow", selector.workflow_id)
    if selector.actor is not None:
        return Term("actor", selector.actor)
    if selector.system is not None:
        return Term("system", selector.system)
    if selector.resource is not None:
        return Term("resource", selector.resource)
    if selector.operations is not None:
        return None
    raise InputError("must say what to undo", field="select")


def is_in_window(selector: Selector, occurred_at: Instant) -> bool:
    """Whether an instant is among those that a selector means. A partition can't know which steps of a run came after
    another: for ``after_step`` it matches the whole run, and the planner narrows it."""
    if selector.resource is not None:
        return selector.to_at is None or occurred_at > selector.to_at
    if selector.run_id is not None or selector.operations is not None:
        return True
    return (selector.from_at is None or occurred_at >= selector.from_at) and (
        selector.to_at is None or occurred_at < selector.to_at
    )


def matches(query: GatherQuery, postings: Postings) -> Matches:
    """What an index knows of a question."""
    selected = [
        name
        for name in dict.fromkeys(_selected(query.select, postings))
        if not is_own(query, name) and not _has_failed(name, postings)
    ]
    operations = dict.fromkeys((*selected, *query.operations))
    for name in query.depended_on:
        operations.update(dict.fromkeys(posting.operation_id for posting in postings(Term("depends_on", name))))
    resources = {posting.resource: None for name in operations for posting in postings(Term("operation", name))}
    for key in query.referenced:
        resources.update(dict.fromkeys(posting.resource for posting in postings(Term("refers_to", key))))
    for key in query.resources:
        if any(True for _ in postings(Term("resource", key))):
            resources[key] = None
    return Matches(selected, list(resources))


def _has_failed(operation_id: str, postings: Postings) -> bool:
    """Whether an operation came to nothing on each of its resources here: there is nothing to undo then."""
    has_failed: dict[str, bool] = {}
    for posting in postings(Term("operation", operation_id)):
        if posting.stage in ("succeeded", "reversed"):
            return False
        has_failed[posting.resource] = posting.stage == "failed"
    return all(has_failed.values()) and bool(has_failed)


def _selected(selector: Selector | None, postings: Postings) -> Iterator[str]:
    if selector is None:
        return
    term = term_of(selector)
    if term is None:
        for name in selector.operations or ():
            if any(True for _ in postings(Term("operation", name))):
                yield name
        return
    for posting in postings(term):
        if is_in_window(selector, posting.occurred_at):
            yield posting.operation_id


def is_own(query: GatherQuery, operation_id: str) -> bool:
    """Whether an operation is what the rollback that asks has done itself: else it would undo its own undo."""
    return operation_id.startswith(f"{query.rollback_id}/")


def is_told_later(query: GatherQuery, action: Action) -> bool:
    """Whether an action that arrives after the answer to a standing query is to be told. Work that only begins is told when
    it has ended, and what failed isn't. A run, or an operation, is meant whole; whoever selects by time means what had
    happened when he asked, not all that ever will."""
    if not query.standing or action.stage not in ("succeeded", "reversed"):
        return False
    operation_id = operation_of(action)
    if is_own(query, operation_id):
        return False
    if operation_id in query.operations:
        return True
    selector = query.select
    if selector is None:
        return False
    term = term_of(selector)
    if term is None:
        return operation_id in (selector.operations or ())
    if selector.run_id is None and action.occurred_at > query.occurred_at:
        return False
    return term in terms_of(action, _NO_REFERENCES) and is_in_window(selector, action.occurred_at)


_NO_REFERENCES = ContractSet(())


class ActionIndex:
    """The index of one partition, in memory."""

    def __init__(self, contracts: ContractSet) -> None:
        self._contracts = contracts
        self._postings: dict[Term, list[Posting]] = {}

    def take(self, action: Action, offset: int) -> None:
        """Takes the next action of the partition, whatever its stage."""
        posting = posting_of(action, offset)
        for term in terms_of(action, self._contracts):
            self._postings.setdefault(term, []).append(posting)

    def postings(self, term: Term) -> list[Posting]:
        """What is found under a term."""
        return self._postings.get(term, [])

    def matches(self, query: GatherQuery) -> Matches:
        """What is known of a question."""
        return matches(query, self.postings)

    def offsets_of(self, resource: str) -> dict[str, int]:
        """Where each action on a resource stands: where it came first."""
        return offsets_of(self.postings(Term("resource", resource)))


def offsets_of(postings: Iterable[Posting]) -> dict[str, int]:
    """Where each of some actions came first."""
    offsets: dict[str, int] = {}
    for posting in postings:
        offsets.setdefault(posting.action_id, posting.offset)
    return offsets
