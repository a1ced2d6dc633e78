"""Truthful histories: a target simulated with plain JSON, workflow steps that change it and say truly what was there before,
and people who change it in between and tell nobody.

A world knows more than its log does: what really was there first, and each write in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hypothesis import strategies as st

from reconciler.records import Action, Observation
from reconciler.values.json_value import ABSENT, Absent, Json
from tests.core.dice import Dice
from tests.core.histories import RESOURCE, make_action
from tests.core.oracle import Place, Step, at, differences, pointer, put, replayed

Telling: TypeAlias = Literal["written", "whole", "nothing"]
"""What an action's `before` tells: of the places it writes, of the whole resource, or that it doesn't know."""


@dataclass
class World:
    """One resource, from before the first action of its log until now."""

    base: Json | Absent
    actions: list[Action] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    actual: Json | Absent = ABSENT

    @property
    def operations(self) -> list[str]:
        return list(dict.fromkeys(action.operation_id for action in self.actions))

    @property
    def is_all_noticed(self) -> bool:
        """Whether nobody else wrote after the last action."""
        return len(self.noticed.steps) == len(self.steps)

    @property
    def noticed(self) -> World:
        """The world as the last action left it: where actions tell of the whole resource, all of it is in the log."""
        last = max((number for number, step in enumerate(self.steps) if step[0] is not None), default=-1)
        steps = self.steps[: last + 1]
        return World(self.base, self.actions, steps, replayed(self.base, steps))

    def without(self, undone: set[str]) -> Json | Absent:
        """What would be there if the operations had never been."""
        return replayed(self.base, self.steps, undone)

    def observation(self) -> Observation:
        """What a target says long after the last action."""
        return observed(self.actual, 1_000_000)


def observed(actual: Json | Absent, at_s: int, resource: str = RESOURCE) -> Observation:
    exists = actual is not ABSENT
    return Observation(
        resource=resource,
        exists=exists,
        fields=actual if isinstance(actual, dict) else {},
        version="v9" if exists else None,
        observed_at=at_s * 1_000_000,
    )


@st.composite
def worlds(
    draw: st.DrawFn,
    max_size: int = 6,
    telling: tuple[Telling, ...] = ("written", "whole"),
    externals: bool = False,
) -> World:
    """A world of up to `max_size` actions. With `externals`, others write in between: before an action that tells of the
    whole resource, or at the end, which nobody has noticed then."""
    dice = Dice(draw)
    document: Json | Absent = ABSENT if dice.one_in(4) else dice.object()
    world = World(base=document)
    for number in range(1, 2 + dice.below(max_size)):
        how = dice.pick(telling)
        if externals and how == "whole" and dice.one_in(2):
            document = _edited(dice, world, document)
        operation_id = f"run/step-{number}"
        if world.actions and dice.one_in(6):  # a retry
            operation_id = world.actions[-1].operation_id
        document = _acted(dice, world, document, number, how, operation_id)
    if externals and dice.one_in(2):
        document = _edited(dice, world, document)
    world.actual = document
    return world


def _edited(dice: Dice, world: World, document: Json | Absent) -> Json | Absent:
    """Somebody else changes a place or two, or takes the whole away, or puts another in its place."""
    edited = document
    if document is ABSENT or dice.one_in(10):
        edited = ABSENT if dice.one_in(2) else dice.object()
    else:
        for _ in range(1 + dice.below(2)):
            edited = put(edited, dice.place(edited), ABSENT if dice.one_in(3) else dice.value())
    # What others wrote is what differs, since nobody sees more.
    world.steps += [(None, tokens, value) for tokens, value in differences(document, edited)]
    return edited


def _acted(
    dice: Dice, world: World, document: Json | Absent, number: int, how: Telling, operation_id: str
) -> Json | Absent:
    fields: dict[str, Any]
    written: dict[Place, Json | Absent]
    if document is ABSENT:
        set_ = {dice.place({}): dice.value() for _ in range(dice.below(4))}
        fields = {"operation": "create", "set": {pointer(tokens): value for tokens, value in set_.items()}}
        written = {(): {}, **set_}
    elif dice.one_in(10):
        fields = {"operation": "delete", "before": None if how == "nothing" else {"": document}}
        written = {(): ABSENT}
    else:
        written = {dice.place(document): ABSENT if dice.one_in(3) else dice.value() for _ in range(1 + dice.below(3))}
        if how != "whole":
            written = {tokens: written[tokens] for tokens in _told(document, written)}
        before: dict[str, Json] | None = None
        if how == "whole":
            before = {"": document}
        elif how == "written":
            held = {pointer(tokens): at(document, tokens) for tokens in written}
            before = {path: value for path, value in held.items() if value is not ABSENT}
        fields = {
            "operation": "update",
            "before": before,
            "set": {pointer(tokens): value for tokens, value in written.items() if value is not ABSENT},
            "unset": [pointer(tokens) for tokens, value in written.items() if value is ABSENT],
        }
    world.actions.append(make_action(number, operation_id=operation_id, **fields))
    steps: list[Step] = [(operation_id, tokens, written[tokens]) for tokens in sorted(written)]
    world.steps += steps
    return replayed(document, steps)


def _told(document: Json | Absent, places: Iterable[Place]) -> list[Place]:
    """The places that an action which tells of no more than it names may write: it would leave something out if it made an
    object above one of them."""
    told: list[Place] = []
    for tokens in sorted(places):
        is_below = any(tokens[: len(above)] == above for above in told)
        if is_below or isinstance(at(document, tokens[:-1]), dict):
            told.append(tokens)
    return told
