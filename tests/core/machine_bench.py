"""A resource machine on a bench: feeds it events at chosen instants and keeps what it emits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.contracts.model import Contract, ContractSet
from reconciler.machines.head import Head
from reconciler.machines.protocol import (
    AppendHistory,
    DropHistory,
    Effect,
    EmitAction,
    EmitAlert,
    EmitCommand,
    EmitDrift,
    EmitReport,
    Event,
    Reject,
)
from reconciler.machines.resource import ResourceMachine
from reconciler.records import Action, Alert, Command, DriftEvent, Observation, Outcome, StepReport, Timer
from reconciler.values.instant import SECOND
from tests.core.histories import RESOURCE


class DictHistory:
    """A history in memory."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def get(self, entry_id: str) -> bytes | None:
        return self.stored.get(entry_id)

    def entries(self) -> Iterator[tuple[str, bytes]]:
        return iter(list(self.stored.items()))

    def take(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, AppendHistory):
                self.stored[effect.entry_id] = effect.value
            elif isinstance(effect, DropHistory):
                for entry_id in effect.entry_ids:
                    del self.stored[entry_id]


class Bench:
    """One resource under a contract."""

    def __init__(self, contract: Contract | None = None) -> None:
        self.machine = ResourceMachine(ContractSet(() if contract is None else (contract,)))
        self.history = DictHistory()
        self.head: Head = self.machine.initial(RESOURCE)
        self.effects: list[Effect] = []

    def at(self, second: float, event: Event) -> tuple[Effect, ...]:
        """Steps with an event at an instant, and checks what must hold of every step."""
        now = int(second * SECOND)
        before = self.machine.encode(self.head)
        state, effects = self.machine.step(self.head, event, now, self.history)
        again, same_effects = self.machine.step(self.machine.decode(RESOURCE, before), event, now, self.history)
        assert self.machine.encode(self.head) == before, "a step changed the state that it was given"
        assert self.machine.encode(again) == self.machine.encode(state), "a state that was stored steps differently"
        assert same_effects == effects
        assert isinstance(state, Head)
        self.head = state
        self.history.take(effects)
        self.effects.extend(effects)
        return effects

    def observe(self, second: float, fields: dict[str, Any] | None, **more: Any) -> tuple[Effect, ...]:
        """An observation of what is there; None: nothing is."""
        exists = fields is not None
        observed = Observation(
            resource=RESOURCE, exists=exists, fields=fields or {}, observed_at=int(second * SECOND), **more
        )
        return self.at(second, observed)

    def outcome(self, second: float, status: Any, **more: Any) -> tuple[Effect, ...]:
        """An outcome of the pending command."""
        pending = self.head.pending
        assert pending is not None
        return self.at(
            second,
            Outcome(
                command_id=pending.command.command_id,
                resource=RESOURCE,
                status=status,
                occurred_at=int(second * SECOND),
                **more,
            ),
        )

    def tick(self, second: float) -> tuple[Effect, ...]:
        """A timer."""
        return self.at(second, Timer(resource=RESOURCE, due_at=int(second * SECOND)))


def commands(effects: tuple[Effect, ...]) -> list[Command]:
    return [effect.command for effect in effects if isinstance(effect, EmitCommand)]


def drifts(effects: tuple[Effect, ...]) -> list[DriftEvent]:
    return [effect.event for effect in effects if isinstance(effect, EmitDrift)]


def alerts(effects: tuple[Effect, ...]) -> list[Alert]:
    return [effect.alert for effect in effects if isinstance(effect, EmitAlert)]


def reports(effects: tuple[Effect, ...]) -> list[StepReport]:
    return [effect.report for effect in effects if isinstance(effect, EmitReport)]


def reversals(effects: tuple[Effect, ...]) -> list[Action]:
    return [effect.action for effect in effects if isinstance(effect, EmitAction)]


def rejections(effects: tuple[Effect, ...]) -> list[Reject]:
    return [effect for effect in effects if isinstance(effect, Reject)]
