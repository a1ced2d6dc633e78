"""The undo of some operations on one resource: its history without them, merged with what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from reconciler.history.entry import Entry
from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import Gone, Leaf, Node, Object, equal, known_value, member_of, node_at
from reconciler.merge.policy import decide
from reconciler.merge.three_way import Conflict, Merged, Resolved, merge
from reconciler.plan.resolving import of_resource, resolved
from reconciler.records import Action, Observation, Resolution
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens, path_of, value_at


class ResourceUndo(msgspec.Struct, frozen=True, kw_only=True):
    """What undoing some of a resource's entries means for it."""

    history: ResourceHistory
    numbers: frozenset[int]
    undone: frozenset[int]
    """All entries that are undone then. An undo that is undone takes away what it had put back, and the other way round."""
    before: Node
    after: Node
    observed: Observation | None
    merged: Merged | None
    """None where nothing changes, or where the actual state isn't known."""
    decided: frozenset[Tokens] = frozenset()
    """The places of conflicts that a person decided."""
    notes: tuple[str, ...] = ()
    """About rules of the contract that gave no answer."""
    kept: Literal["made", "removed"] | None = None
    """What the contract keeps: a record that the undo would unmake, or that one is gone which it would make again."""

    @property
    def is_needed(self) -> bool:
        """Whether the undo changes what is expected."""
        return not equal(self.before, self.after)

    def changes(self, entry: Entry) -> bool:
        """Whether the writes of an entry go, or come back."""
        return (entry.number in self.undone) is not (entry.number in self.history.undone)

    @property
    def is_undecided(self) -> bool:
        """Whether a person must decide a conflict."""
        return self.merged is not None and any(resolution == "manual" for _, resolution in self.merged.conflicts)

    @property
    def is_held(self) -> bool:
        """Whether a conflict that a person must decide keeps the whole resource as it is."""
        return (
            self.merged is not None
            and self.history.contract.conflict_scope == "resource"
            and any(resolution == "manual" for _, resolution in self.merged.conflicts)
        )

    @property
    def is_kept(self) -> bool:
        """Whether the contract leaves the resource as it is."""
        return self.kept is not None


def undo_resource(
    history: ResourceHistory,
    numbers: AbstractSet[int],
    observed: Observation | None,
    resolutions: Sequence[Resolution] = (),
) -> ResourceUndo:
    """Undoes entries of a history, against what was observed of the resource, if anything was. ``resolutions``: people's
    decisions, which count where the contract leaves a conflict to people."""
    decisions = of_resource(resolutions, history.resource)
    decided: set[Tokens] = set()
    before = history.tree
    after = history.without(numbers)
    merged = None
    notes: list[str] = []
    if observed is not None and observed.exists is not None and not equal(before, after):
        known = observed
        actual: Json | Absent = known.fields if known.exists else ABSENT

        def resolve(conflict: Conflict) -> Resolved:
            undone = _undone_action(history, numbers, conflict.tokens)
            by_contract = decide(conflict, history.contract, undone, known, notes)
            if by_contract.resolution != "manual":
                return by_contract
            by_person = resolved(conflict, decisions)
            if by_person is None:
                return by_contract
            decided.add(conflict.tokens)
            return by_person

        merged = merge(before, after, actual, history.contract, resolve)
    undo = ResourceUndo(
        history=history,
        numbers=frozenset(numbers),
        undone=frozenset(history.undone_with(numbers)),
        before=before,
        after=after,
        observed=observed,
        merged=merged,
        decided=frozenset(decided),
        notes=tuple(notes),
    )
    return _left_as_it_is(undo)


def _left_as_it_is(undo: ResourceUndo) -> ResourceUndo:
    """The undo, without whatever is to be done, decided or known where the contract keeps the resource as it is."""
    merged, observed, rules = undo.merged, undo.observed, undo.history.contract.undo
    if merged is None or observed is None:
        return undo
    kept: Literal["made", "removed"]
    # Also where later writes of others would keep a part of what was made anyhow.
    if rules.create.by == "keep" and observed.exists and (merged.removal or any(unmade(undo, n) for n in undo.numbers)):
        kept = "made"
    elif rules.delete.by == "keep" and merged.creation:
        kept = "removed"
    else:
        return undo
    nothing = msgspec.structs.replace(merged, wanted=(), conflicts=(), unchanged=(), unknown=())
    return msgspec.structs.replace(undo, merged=nothing, decided=frozenset(), notes=(), kept=kept)


def _undone_action(history: ResourceHistory, numbers: AbstractSet[int], tokens: Tokens) -> Action | None:
    """The action whose write is undone at a place: the one that owns it, else the last one undone."""
    node = node_at(history.tree, tokens)
    if isinstance(node, Leaf | Object | Gone) and node.owner in numbers:
        return history.entry(node.owner).action
    return history.entry(max(numbers)).action if numbers else None


def blind_entries(undo: ResourceUndo) -> list[Entry]:
    """The undone entries that wrote a place of which nobody knows what was there before."""
    if undo.merged is None or not undo.merged.unknown:
        return []
    blind = []
    for number in sorted(undo.numbers):
        if any(_overlap(place, tokens) for place in undo.merged.unknown for tokens in _places(undo, number)):
            blind.append(undo.history.entry(number))
    without_before = [entry for entry in blind if entry.action.before is None and entry.action.operation != "create"]
    return without_before or blind


def immutable_entries(undo: ResourceUndo) -> dict[str, list[Entry]]:
    """The immutable fields that the undo would change in a resource that stays, with the entries that wrote them."""
    if undo.merged is None or undo.merged.removal or undo.merged.creation:
        return {}
    rule = undo.history.contract.rule
    places = {
        place
        for wanted in undo.merged.wanted
        for place in _changed(wanted.tokens, wanted.actual, wanted.value)
        if rule(path_of(place)).immutable
    }
    return {
        path_of(place): [
            undo.history.entry(number)
            for number in sorted(undo.numbers)
            if any(_overlap(place, tokens) for tokens in _places(undo, number))
        ]
        for place in sorted(places)
    }


def _places(undo: ResourceUndo, number: int) -> list[Tokens]:
    """The places where undoing an entry takes writes away, or puts them back."""
    return [tokens for entry in undo.history.written_by(number) for tokens, _ in entry.writes()]


def _changed(tokens: Tokens, old: Json | Absent, new: Json | Absent) -> Iterator[Tokens]:
    """Every place whose node changes where `old` is replaced by `new`."""
    if same(old, new):
        return
    if type(old) is not dict or type(new) is not dict:
        yield tokens
    members = {**(old if type(old) is dict else {}), **(new if type(new) is dict else {})}
    for name in members:
        yield from _changed((*tokens, name), value_at(old, (name,)), value_at(new, (name,)))


def kept_fields(undo: ResourceUndo) -> list[tuple[str, Json | Absent, str]]:
    """What the undone entries wrote and a later write still determines: path, value, owner."""
    kept: dict[str, tuple[Json | Absent, str]] = {}
    touched = {entry.number: entry for number in undo.numbers for entry in undo.history.written_by(number)}
    for number, entry in sorted(touched.items()):
        for tokens, _ in entry.writes():
            for place, node in _ends(node_at(undo.before, tokens), tokens):
                owner = node.owner
                if abs(owner) < number or owner in touched or abs(owner) == number:
                    continue
                if equal(node, node_at(undo.after, place)):
                    kept[path_of(place)] = (known_value(node), undo.history.owner_of(owner))
    return [(path, value, owner) for path, (value, owner) in sorted(kept.items())]


def _ends(node: Node, tokens: Tokens) -> list[tuple[Tokens, Leaf | Gone | Object]]:
    """The scalars, arrays, empty objects and absences at and below a place, whoever owns them."""
    if isinstance(node, Object):
        ends: list[tuple[Tokens, Leaf | Gone | Object]] = []
        for name, member in node.members.items():
            ends += _ends(member, (*tokens, name))
        return ends or [(tokens, node)]
    return [(tokens, node)] if isinstance(node, Leaf | Gone) else []


def unmade(undo: ResourceUndo, number: int) -> list[Entry]:
    """The creates that are undone with an undone entry: it is one, or it is an undo that had put one back."""
    written = undo.history.written_by(number)
    return [entry for entry in written if entry.action.operation == "create" and entry.number in undo.undone]


def removers(undo: ResourceUndo) -> list[int]:
    """The undone entries because of which a resource goes: with them a create is undone, or a delete is in force again. Where
    none does that, what made the resource was no create, and each of them may be the cause."""
    found = [number for number in sorted(undo.numbers) if unmade(undo, number) or _deletes_again(undo, number)]
    return found or sorted(undo.numbers)


def _deletes_again(undo: ResourceUndo, number: int) -> bool:
    written = undo.history.written_by(number)
    return any(entry.action.operation == "delete" and entry.number not in undo.undone for entry in written)


def fragments(undo: ResourceUndo) -> list[tuple[int, int, Tokens]]:
    """Objects that an undone entry brought into being and of which later writes of other operations would leave a
    fragment: the undone entry, the later one, the place of the object. Members of a `map` stand on their own. Putting back
    a write that took an object away does the same."""
    found: list[tuple[int, int, Tokens]] = []
    causes = {
        entry.number: number
        for number in sorted(undo.numbers)
        for entry in undo.history.written_by(number)
        if undo.changes(entry)
    }
    _find_fragments(undo, causes, undo.before, undo.after, (), found)
    return found


def _find_fragments(
    undo: ResourceUndo,
    causes: Mapping[int, int],
    before: Node,
    after: Node,
    tokens: Tokens,
    found: list[tuple[int, int, Tokens]],
) -> None:
    """`causes` are the entries whose writes go or come back, with the undone entry that makes them."""
    if not isinstance(after, Object):
        return
    stood = before.owner if isinstance(before, Object) else None
    if after.owner > 0 and after.owner != stood and after.owner not in causes:
        cause = _cause_of_fragment(undo, causes, stood, after, tokens)
        if cause is not None and after.owner > cause:
            rule = undo.history.contract.rule(path_of(tokens))
            later = undo.history.entry(after.owner)
            writes_it_itself = any(place == tokens for place, _ in later.writes())
            if not writes_it_itself and not (tokens and rule.kind == "map"):
                found.append((causes[cause], after.owner, tokens))
    for name in sorted(after.members):
        _find_fragments(undo, causes, member_of(before, name), after.members[name], (*tokens, name), found)


def _cause_of_fragment(
    undo: ResourceUndo, causes: Mapping[int, int], stood: int | None, after: Object, tokens: Tokens
) -> int | None:
    """The entry without which a later write made an object anew: which had brought into being what is there now (`stood`), or
    what was there when that was written and may be gone since, or whose write takes it away once it is put back."""
    if stood is not None and stood in causes and stood < after.owner:
        return stood
    if after.made and after.owner > undo.history.collapsed:
        then = node_at(undo.history.before(after.owner), tokens)
        if isinstance(then, Object) and then.owner in causes:
            return then.owner
    return _taken_by(undo, causes, after, tokens)


def _taken_by(undo: ResourceUndo, causes: Mapping[int, int], after: Object, tokens: Tokens) -> int | None:
    """The write put back that takes away what was at a place, so that a later write had to make an object there anew."""
    if not after.made:
        return None
    takers = [
        number
        for number in causes
        if number not in undo.undone
        and any(tokens[: len(place)] == place for place, _ in undo.history.entry(number).writes())
    ]
    return max(takers, default=None)


def _overlap(one: Tokens, other: Tokens) -> bool:
    """Whether one place is at, above or below the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
