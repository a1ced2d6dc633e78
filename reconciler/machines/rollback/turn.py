"""One step of the rollback machine at work: the head as it becomes, and what is to happen.

The parts of the machine change one `Turn` after the other; nothing outside sees it before the step is over. What was
stored in the turn is read back in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.machines.protocol import AppendHistory, DropHistory, Effect, EmitAlert, HistoryReader
from reconciler.machines.rollback.head import (
    CONFLICTS,
    DECIDED,
    STEP,
    UNDER_WAY,
    Head,
    Step,
    StepState,
    encode,
)
from reconciler.records import Alert, Resolution, StepConflict
from reconciler.values.instant import Instant
from reconciler.values.json_value import Json, canonical

V = TypeVar("V")

_step_decoder: Final = msgspec.json.Decoder(Step)
_names_decoder: Final = msgspec.json.Decoder(list[str])
_conflicts_decoder: Final = msgspec.json.Decoder(list[StepConflict])
_resolutions_decoder: Final = msgspec.json.Decoder(list[Resolution])

TROUBLES_KEPT: Final = 30
"""How many steps that aren't as they should be the head remembers, to tell of them."""


class Refused(Exception):
    """The event can't be used: nothing of the turn happens."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class Turn:
    """The head, the effects and the rollback's history, as one step changes them."""

    def __init__(
        self, head: Head, now: Instant, history: HistoryReader, contracts: ContractSet, partitions: int
    ) -> None:
        self.head = head
        self.now = now
        self.contracts = contracts
        self.partitions = partitions
        self.traceparent: str | None = None if head.request is None else head.request.traceparent
        self._history = history
        self._stored: dict[str, bytes | None] = {}
        self._emitted: list[Effect] = []

    def change(self, **fields: Any) -> None:
        """Gives fields of the head new values."""
        self.head = msgspec.structs.replace(self.head, **fields)

    def emit(self, effect: Effect) -> None:
        """Lets something happen."""
        self._emitted.append(effect)

    def alert(self, kind: str, message: str, *about: Json) -> None:
        """Tells people."""
        identity = digest(self.head.rollback_id, kind, *about)
        self.emit(
            EmitAlert(
                Alert(
                    alert_id=identity,
                    subject=self.head.rollback_id,
                    kind=kind,
                    message=message,
                    occurred_at=self.now,
                )
            )
        )

    # -- the history

    def store(self, entry_id: str, value: object) -> None:
        """Keeps a value, over the one that had the id."""
        self._stored[entry_id] = encode(value)

    def drop(self, entry_ids: Iterable[str]) -> None:
        """Forgets values."""
        for entry_id in entry_ids:
            self._stored[entry_id] = None

    def get(self, entry_id: str) -> bytes | None:
        """A value that was kept."""
        if entry_id in self._stored:
            return self._stored[entry_id]
        return self._history.get(entry_id)

    def drop_all(self, *prefixes: str) -> None:
        """Forgets all values whose ids begin so."""
        stored = [entry_id for entry_id, _ in self._history.entries()]
        self.drop([entry_id for entry_id in (*stored, *self._stored) if entry_id.startswith(prefixes)])

    def entries(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All values whose ids begin so, in the order of their ids."""
        found = {entry_id: value for entry_id, value in self._history.entries() if entry_id.startswith(prefix)}
        for entry_id, stored in self._stored.items():
            if entry_id.startswith(prefix):
                if stored is None:
                    found.pop(entry_id, None)
                else:
                    found[entry_id] = stored
        return iter(sorted(found.items()))

    def effects(self) -> tuple[Effect, ...]:
        """All that is to happen."""
        kept = tuple(AppendHistory(entry_id, value) for entry_id, value in self._stored.items() if value is not None)
        gone = tuple(
            entry_id
            for entry_id, value in self._stored.items()
            if value is None and self._history.get(entry_id) is not None
        )
        return kept + ((DropHistory(gone),) if gone else ()) + tuple(self._emitted)

    def names(self, entry_id: str) -> list[str]:
        """Names that were kept under an id; none where there are none."""
        value = self.get(entry_id)
        return [] if value is None else _names_decoder.decode(value)

    # -- steps

    def step(self, step_id: str) -> Step | None:
        """A step by its id."""
        value = self.get(STEP + step_id)
        return None if value is None else _step_decoder.decode(value)

    def steps(self) -> Iterator[Step]:
        """All steps, in the order of their ids: read only where a plan begins or ends."""
        for _, value in self.entries(STEP):
            yield _step_decoder.decode(value)

    def put_step(self, step: Step, before: StepState | None) -> None:
        """Keeps a step, which was in the state `before` (None: it is new), and counts it."""
        self.store(STEP + step.order.step_id, step)
        if before != step.state:
            self.change(counts=_moved(self.head.counts, before, step.state))
            if step.order.planned_action is not None:
                self.change(command_counts=_moved(self.head.command_counts, before, step.state))

    def forget_step(self, step: Step) -> None:
        """Forgets a step that was never ordered."""
        self.drop([STEP + step.order.step_id])
        self.change(counts=_moved(self.head.counts, step.state, None))
        if step.order.planned_action is not None:
            self.change(command_counts=_moved(self.head.command_counts, step.state, None))

    def note_trouble(self, step_id: str) -> None:
        """Remembers a step that isn't as it should be."""
        troubles = self.head.troubles
        if step_id not in troubles and len(troubles) < TROUBLES_KEPT:
            self.change(troubles=[*troubles, step_id])

    @property
    def under_way(self) -> int:
        """How many steps were ordered and are not settled."""
        return self.count(*UNDER_WAY)

    def count(self, *states: StepState) -> int:
        """How many steps are in one of these states."""
        return sum(self.head.counts.get(state, 0) for state in states)

    def count_commands(self, *states: StepState) -> int:
        """How many of these change something at a target."""
        return sum(self.head.command_counts.get(state, 0) for state in states)

    # -- conflicts

    def conflicts(self, resource: str) -> list[StepConflict]:
        """The conflicts of a resource that a person has yet to decide."""
        value = self.get(CONFLICTS + resource)
        return [] if value is None else _conflicts_decoder.decode(value)

    def put_conflicts(self, resource: str, conflicts: list[StepConflict]) -> None:
        """Keeps what has yet to be decided about a resource."""
        before = len(self.conflicts(resource))
        self.change(undecided=self.head.undecided - before + len(conflicts))
        if conflicts:
            self.store(CONFLICTS + resource, conflicts)
        elif before:
            self.drop([CONFLICTS + resource])

    def resolutions(self, resource: str | None = None) -> list[Resolution]:
        """What persons decided, about one resource or all."""
        if resource is not None:
            value = self.get(DECIDED + resource)
            return [] if value is None else _resolutions_decoder.decode(value)
        return [item for _, value in self.entries(DECIDED) for item in _resolutions_decoder.decode(value)]


def _moved(counts: Mapping[str, int], before: StepState | None, after: StepState | None) -> dict[str, int]:
    """Counts after a step went from one state to another (None: it wasn't there, or is no more); without zeros and by name,
    so the same counts give the same bytes."""
    moved = dict(counts)
    if before is not None:
        moved[before] = moved.get(before, 0) - 1
    if after is not None:
        moved[after] = moved.get(after, 0) + 1
    return {name: moved[name] for name in sorted(moved) if moved[name]}


def digest(*inputs: Json) -> str:
    """An id that is a function of these."""
    return hashlib.blake2b(canonical(list(inputs)), digest_size=16).hexdigest()
