"""The rules of fold and undo as a plain replay, to be checked by reading.

This is the definition; `fold` and `undo` are what runs, and the tests hold them against this for as long as it takes. It
knows no contracts: equality is exact and every value is replaced whole.

What is expected of a resource is a mapping from places to what is known of them. A place that it doesn't name is not
known if the object above it is OPEN, and absent otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import NamedTuple, TypeAlias

from reconciler.history.entry import sorted_writes
from reconciler.history.fold import said_before
from reconciler.records import Action
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens


class Known(Enum):
    """What can be known of a place beside a scalar or an array."""

    UNKNOWN = "nothing is known"
    NOTHING = "nothing is there"
    OPEN = "an object, of which not all members are known"
    CLOSED = "an object with exactly the members that are known"


class Value:
    """A scalar or an array."""

    def __init__(self, value: Json) -> None:
        self.value = value

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and same(self.value, other.value)


What: TypeAlias = Known | Value
State: TypeAlias = dict[Tokens, What]


def look(state: State, place: Tokens) -> What:
    """What is known of a place."""
    if place in state:
        return state[place]
    if place == ():
        return Known.UNKNOWN
    above = look(state, place[:-1])
    return Known.UNKNOWN if above in (Known.UNKNOWN, Known.OPEN) else Known.NOTHING


def put(state: State, place: Tokens, value: Json | Absent) -> None:
    """Writing a node takes away what stands below it, and makes an object of each node above it that is absent or no
    object. A node above it that isn't known is taken to be an object already. Taking away what isn't there writes nothing."""
    for length in range(len(place)):
        above = look(state, place[:length])
        if above is Known.UNKNOWN:
            state[place[:length]] = Known.OPEN
        elif above is Known.NOTHING or isinstance(above, Value):
            if value is ABSENT:
                return
            state[place[:length]] = Known.CLOSED
    for other in [other for other in state if other[: len(place)] == place]:
        del state[other]
    spread(state, place, value)


def spread(state: State, place: Tokens, value: Json | Absent) -> None:
    """A whole value: all that it doesn't name is absent."""
    if value is ABSENT:
        state[place] = Known.NOTHING
    elif isinstance(value, dict):
        state[place] = Known.CLOSED
        for name, member in value.items():
            spread(state, (*place, name), member)
    else:
        state[place] = Value(value)


class Write(NamedTuple):
    """One write of an action. Of an external one, both ids are None."""

    operation_id: str | None
    action_id: str | None
    place: Tokens
    value: Json | Absent


class Reversal(NamedTuple):
    """An undo. ``operation_id`` and ``action_id`` are its own, for it can be undone as well; it undoes all that the operation
    `undoes` did before it, or the one action `reverses` of it. Where it calls itself a part of what it undoes,
    ``operation_id`` is None: it can't be selected."""

    operation_id: str | None
    action_id: str
    undoes: str
    reverses: str | None


class History:
    """The history of one resource: the base, then external writes, operations and undos in their order."""

    def __init__(self) -> None:
        self.base: State = {}
        self.steps: list[Write | Reversal] = []
        self.now: State = {}

    def fold(self, action: Action) -> None:
        """Folds a succeeded or reversed action."""
        if action.stage == "reversed":
            own = f"{action.run_id}/{action.step_id}"
            name = None if own == action.operation_id else own
            self.steps.append(Reversal(name, action.action_id, action.operation_id, action.reverses))
            self.now = self.without(frozenset())
            return
        if action.operation == "effect":
            return
        if action.operation == "create":
            self.believe((), ABSENT)
        elif action.before is not None:
            for place, value in said_before(action):
                self.believe(place, value)
        for place, value in writes_of(action):
            self.step(action.operation_id, place, value, action.action_id)

    def step(self, operation_id: str | None, place: Tokens, value: Json | Absent, action_id: str | None = None) -> None:
        """One write; of an external one, operation_id is None."""
        self.steps.append(Write(operation_id, action_id, place, value))
        put(self.now, place, value)

    def believe(self, place: Tokens, value: Json | Absent) -> None:
        """This stood here. Where we knew nothing it is the base; where it contradicts what we expected, at exactly the
        nodes that differ, somebody wrote in between."""
        expected = look(self.now, place)
        if expected is Known.UNKNOWN:
            put(self.now, place, value)
            put(self.base, place, value)
        elif expected in (Known.OPEN, Known.CLOSED) and isinstance(value, dict):
            known = {
                other[len(place)] for other in self.now if len(other) > len(place) and other[: len(place)] == place
            }
            for name in sorted(known | value.keys()):
                self.believe((*place, name), value.get(name, ABSENT))
            if expected is Known.OPEN:
                self.close(place, known)
        elif expected is Known.NOTHING and value is ABSENT:
            pass
        elif isinstance(expected, Value) and value is not ABSENT and not isinstance(value, dict):
            if not same(expected.value, value):
                self.step(None, place, value)
        else:
            self.step(None, place, value)

    def close(self, place: Tokens, known: set[str]) -> None:
        """This object had no further members. Of those that operations wrote without knowing what was there before, the
        base still knows nothing."""
        self.now[place] = Known.CLOSED
        for name in known:
            if look(self.base, (*place, name)) is Known.UNKNOWN:
                self.base[*place, name] = Known.UNKNOWN
        for length in range(len(place)):
            self.base.setdefault(place[:length], Known.OPEN)
        self.base[place] = Known.CLOSED

    def undone(self, operations: AbstractSet[str]) -> set[int]:
        """Which steps are undone, by their positions, if these operations are undone as well, all at once: from the newest to
        the oldest, an undo that isn't itself undone undoes every earlier step of what it names."""
        undone: set[int] = set()
        for position in range(len(self.steps) - 1, -1, -1):
            step = self.steps[position]
            if step.operation_id in operations:
                undone.add(position)
            elif isinstance(step, Reversal) and position not in undone:
                undone |= {
                    earlier
                    for earlier, other in enumerate(self.steps[:position])
                    if other.operation_id == step.undoes and step.reverses in (None, other.action_id)
                }
        return undone

    def without(self, operations: AbstractSet[str]) -> State:
        """The expected state after undoing operations: the history folded again without their writes."""
        state = dict(self.base)
        undone = self.undone(operations)
        for position, step in enumerate(self.steps):
            if isinstance(step, Write) and position not in undone:
                put(state, step.place, step.value)
        return state


def writes_of(action: Action) -> Iterable[tuple[Tokens, Json | Absent]]:
    """The writes of an action, those above before those below."""
    if action.operation == "delete":
        return [((), ABSENT)]
    writes = sorted_writes(action.set, action.unset)
    if action.operation == "create" and "" not in action.set:
        return [((), {}), *writes]
    return writes
