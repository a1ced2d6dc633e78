"""Writing into a resource's history from within: reversals of our own, and values of others' that are taken as expected."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.entry import ADOPTION_PREFIX, Entry, Facts
from reconciler.history.members import STEPPED
from reconciler.history.resource import MAX_OPERATIONS, collapse
from reconciler.history.tree import Editor, known_value, node_of
from reconciler.machines.head import ACTION_PREFIX, BASE_ENTRY, Adopted, Head, encode, history_of
from reconciler.machines.protocol import AppendHistory, DropHistory, Effect, EmitAction, HistoryReader
from reconciler.records import Action, Actor
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Json, canonical
from reconciler.values.pointer import tokens_of

_COLLAPSED_AT_ONCE: Final = 100  # the history is rewritten once for so many operations beyond the bound
MOST_ENTRIES: Final = MAX_OPERATIONS + _COLLAPSED_AT_ONCE
"""What a history holds at most."""

OURSELVES: Final = Actor(id="reconciler", kind="service")


class Stepped(NamedTuple):
    """A new head and what is to happen."""

    head: Head
    effects: tuple[Effect, ...] = ()


def digest(*inputs: Json) -> str:
    """An id that is a function of its inputs (BLAKE2b, 16 bytes, hex)."""
    return hashlib.blake2b(canonical(list(inputs)), digest_size=16).hexdigest()


class _Later:
    """A history as it will be after some effects of the step that is under way."""

    def __init__(self, history: HistoryReader, effects: Sequence[Effect]) -> None:
        self._history = history
        self._changed: dict[str, bytes | None] = {}
        for effect in effects:
            if isinstance(effect, AppendHistory):
                self._changed[effect.entry_id] = effect.value
            elif isinstance(effect, DropHistory):
                self._changed |= dict.fromkeys(effect.entry_ids)

    def get(self, entry_id: str) -> bytes | None:
        """One entry."""
        return self._changed[entry_id] if entry_id in self._changed else self._history.get(entry_id)

    def entries(self) -> Iterator[tuple[str, bytes]]:
        """All entries by id."""
        for entry_id, value in self._history.entries():
            if entry_id not in self._changed:
                yield entry_id, value
        yield from ((entry_id, value) for entry_id, value in self._changed.items() if value is not None)


def then(stepped: Stepped, history: HistoryReader, following: Callable[[Head, HistoryReader], Stepped]) -> Stepped:
    """One part of a step after another, each of which sees what the one before wrote into the history."""
    after = following(stepped.head, _Later(history, stepped.effects) if stepped.effects else history)
    return Stepped(after.head, stepped.effects + after.effects)


def record_reversals(head: Head, actions: Sequence[Action], history: HistoryReader, contract: Contract) -> Stepped:
    """Writes reversals of our own down, in the history and in the ledger. Those that the history has already are left out."""
    new = [action for action in actions if history.get(ACTION_PREFIX + action.action_id) is None]
    if not new:
        return Stepped(head)
    whole = history_of(head, history, contract)
    effects: list[Effect] = []
    for entry in whole.take_reversals(new):
        effects += (AppendHistory(ACTION_PREFIX + entry.action.action_id, encode(entry)), EmitAction(entry.action))
    after = msgspec.structs.replace(head, tree=whole.tree, entries=whole.last_number, undone=sorted(whole.undone))
    return then(Stepped(after, tuple(effects)), history, lambda now, later: collapsed(now, later, contract))


def record_adoption(head: Head, fields: Sequence[Adopted], identity: str, now: Instant, contract: Contract) -> Stepped:
    """Takes values that are there as expected: an entry of the history that holds nothing but external writes."""
    number = head.entries + 1
    editor = Editor(head.tree)
    was: dict[str, list[Json]] = {}
    for field in sorted(fields, key=lambda item: tokens_of(item.path)):
        tokens = tokens_of(field.path)
        if contract.rule(field.path).kind in STEPPED:
            expected = known_value(editor.node(tokens))
            was[field.path] = [] if expected is ABSENT else [expected]
        editor.write(tokens, node_of(field.value, -number), -number)
    facts = Facts(
        external_set={field.path: field.value for field in fields if field.value is not ABSENT},
        external_unset=[field.path for field in fields if field.value is ABSENT],
        was=was,
    )
    entry = Entry(number=number, action=_adoption(head.resource, identity, now), facts=facts)
    after = msgspec.structs.replace(head, tree=editor.root, entries=number)
    return Stepped(after, (AppendHistory(ACTION_PREFIX + entry.action.action_id, encode(entry)),))


def _adoption(resource: str, identity: str, now: Instant) -> Action:
    """The action in whose stead an adoption stands in the history: it writes nothing itself."""
    name = f"{ADOPTION_PREFIX}{identity}"
    return Action(
        stage="succeeded",
        run_id="reconciler",
        step_id="adopt",
        occurred_at=now,
        resource=resource,
        operation="effect",
        operation_id=name,
        action_id=name,
        actor=OURSELVES,
    )


def is_too_long(head: Head) -> bool:
    """Whether the history holds so many entries beyond the bound that it is worth rewriting it."""
    return head.entries - head.collapsed > MOST_ENTRIES


def collapsed(head: Head, history: HistoryReader, contract: Contract) -> Stepped:
    """The oldest entries become part of the base, where there are too many."""
    if not is_too_long(head):
        return Stepped(head)
    whole = history_of(head, history, contract)
    bound = head.entries - MAX_OPERATIONS
    base = collapse(whole, bound, frozenset(head.undone))
    dropped = tuple(ACTION_PREFIX + entry.action.action_id for entry in whole.entries if entry.number <= bound)
    after = msgspec.structs.replace(head, collapsed=bound, undone=[number for number in head.undone if number > bound])
    return Stepped(after, (AppendHistory(BASE_ENTRY, encode(base)), DropHistory(dropped)))
