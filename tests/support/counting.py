"""A small honest machine for the engine's tests: it counts a resource's actions, and shows every effect on request.

What an action does is told by its `step_id`: the plain one adds `/v` to the sum and a history entry; the others stand in
`CountingMachine.step`.
"""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from reconciler.machines.protocol import (
    AppendHistory,
    DropHistory,
    Effect,
    EmitAlert,
    EmitCommand,
    Event,
    HistoryReader,
    Reject,
)
from reconciler.records import Action, Alert, Change, Command, Timer

COMMAND_EVERY: Final = 10


class Count(msgspec.Struct, frozen=True):
    """The state: how many actions, their sum, the last one's id; how often a timer came, and when the next is wanted."""

    actions: int = 0
    total: int = 0
    last: str = ""
    others: int = 0
    fired: int = 0
    due_at: int | None = None
    now: int = 0
    poisoned: bool = False


class CountingMachine:
    """Implements `Machine`. It knows an action by its id, as the real one does."""

    knows_actions = True

    def initial(self, key: str) -> Count:
        return Count()

    def decode(self, key: str, value: bytes) -> Count:
        return msgspec.json.decode(value, type=Count)

    def encode(self, state: object) -> bytes:
        assert isinstance(state, Count)
        if state.poisoned:
            raise ValueError("this state can't be encoded")
        return msgspec.json.encode(state)

    def due_at(self, state: object) -> int | None:
        assert isinstance(state, Count)
        return state.due_at

    def step(self, state: object, event: Event, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        assert isinstance(state, Count)
        replace = msgspec.structs.replace
        if isinstance(event, Timer):
            if state.due_at is None or state.due_at > now:
                return state, ()
            return replace(state, fired=state.fired + 1, due_at=None, now=now), ()
        if not isinstance(event, Action):
            return replace(state, others=state.others + 1, now=now), ()
        if event.step_id == "boom":
            raise RuntimeError("the machine has a fault")
        if event.step_id == "reject":
            return state, (Reject("is not wanted", "step_id"),)
        if event.step_id == "nothing":
            return state, ()
        if event.step_id == "poison":
            return replace(state, poisoned=True), ()
        if event.step_id == "timer":
            wait = event.set["/after"]
            assert isinstance(wait, int)
            return replace(state, due_at=now + wait, now=now), ()
        if event.step_id == "drop":
            return replace(state, now=now), (DropHistory(tuple(sorted(entry_id for entry_id, _ in history.entries()))),)
        return self._counted(state, event, now, history)

    def _counted(
        self, state: Count, event: Action, now: int, history: HistoryReader
    ) -> tuple[object, tuple[Effect, ...]]:
        if self.knows_actions and history.get(event.action_id) is not None:
            return state, ()
        value = event.set["/v"]
        assert isinstance(value, int)
        counted = Count(
            actions=state.actions + 1,
            total=state.total + value,
            last=event.action_id,
            others=state.others,
            fired=state.fired,
            due_at=state.due_at,
            now=now,
            poisoned=state.poisoned,
        )
        effects: list[Effect] = [AppendHistory(event.action_id, orjson.dumps({"n": counted.actions, "v": value}))]
        if counted.actions % COMMAND_EVERY == 0:
            effects.append(EmitCommand(_command(event, counted)))
        if event.step_id == "alert":
            effects.append(EmitAlert(_alert(event, now)))
        return counted, tuple(effects)


def _command(event: Action, counted: Count) -> Command:
    return Command(
        command_id=f"{event.resource}:{counted.actions}:{event.action_id}",
        resource=event.resource,
        action="patch",
        changes=[Change(path="/total", op="set", value=counted.total)],
        issued_at=counted.now,
    )


def _alert(event: Action, now: int) -> Alert:
    return Alert(
        alert_id=f"alert/{event.action_id}", subject=event.resource, kind="test", message="Look.", occurred_at=now
    )


class TrustingMachine(CountingMachine):
    """Counts whatever it is given, so that an action that the engine gives it twice is seen."""

    knows_actions = False


class TallyMachine(CountingMachine):
    """The same without history or effects: what is measured with it is the engine."""

    def _counted(
        self, state: Count, event: Action, now: int, history: HistoryReader
    ) -> tuple[object, tuple[Effect, ...]]:
        value = event.set["/v"]
        assert isinstance(value, int)
        return Count(state.actions + 1, state.total + value, event.action_id, 0, 0, None, now), ()
