"""What a machine and the runner that feeds it agree on.

A machine is one pure function over the value that the table keeps for a key:

    step(state, event, now, contracts) -> (state, effects)

The runner owns everything else: batches, decoding, skipping replays, the table, delivery, timers. A machine owns no
clock (``now`` is the record's timestamp in microseconds), no randomness and no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from reconciler.records import (
    Action,
    Alert,
    Command,
    Decision,
    DriftEvent,
    Gathered,
    GatherQuery,
    Observation,
    Outcome,
    PlainUpdate,
    RollbackEvent,
    RollbackRequest,
    StepReport,
    Timer,
    UndoStep,
)

Event: TypeAlias = Action | Observation | Outcome | UndoStep | Decision | Timer
"""What happens to a resource. All are keyed by it, in topics of one partition count."""

RollbackInput: TypeAlias = RollbackRequest | Gathered | StepReport | Timer
"""What happens to a rollback; likewise. A timer's ``resource`` is the rollback's id here."""


class Effect(msgspec.Struct, frozen=True):
    """Base of all effects. Each carries an id that is a function of the machine's inputs."""


class EmitCommand(Effect, frozen=True):
    """Send a command on its system's reversal topic. The runner stamps the fencing epoch; nothing else is changed."""

    command: Command


class EmitDrift(Effect, frozen=True):
    """Publish a change of drift."""

    event: DriftEvent


class EmitAlert(Effect, frozen=True):
    """Tell people."""

    alert: Alert


class EmitAction(Effect, frozen=True):
    """Write an action of our own, the reversal of an operation, to the ledger. Its id makes it known when it comes back."""

    action: Action


class EmitReport(Effect, frozen=True):
    """Tell a rollback what became of a step."""

    report: StepReport


class EmitQuery(Effect, frozen=True):
    """Ask a partition."""

    query: GatherQuery


class EmitUndoStep(Effect, frozen=True):
    """Order a resource to undo."""

    step: UndoStep


class EmitRollback(Effect, frozen=True):
    """Publish a change of a rollback's status."""

    event: RollbackEvent


class AppendHistory(Effect, frozen=True):
    """Append one operation to the resource's history: one value of the table, written once with the changelog."""

    entry_id: str
    """The action_id, or a digest for what has no action: unique within the resource."""
    value: bytes


class DropHistory(Effect, frozen=True):
    """Take entries out of the history's store, because they collapsed into the base."""

    entry_ids: tuple[str, ...]


class Reject(Effect, frozen=True):
    """The event can't be used: the runner sends its raw bytes to the dead letters with this reason."""

    reason: str
    field: str = ""


class HistoryReader(Protocol):
    """Reads the history of the one resource that is being stepped, as of before this event. Reading is local."""

    def get(self, entry_id: str) -> bytes | None:
        """One entry."""
        ...

    def entries(self) -> Iterator[tuple[str, bytes]]:
        """All entries by id, in no order that means anything: entries carry their own sequence."""
        ...


class Machine(Protocol):
    """What the runner needs of a machine. `State` values are immutable; the runner keeps them decoded while they are hot."""

    def initial(self, key: str) -> object:
        """The state of a key that was never seen."""
        ...

    def decode(self, key: str, value: bytes) -> object:
        """The state of a table value."""
        ...

    def encode(self, state: object) -> bytes:
        """The table value of a state: the same state gives the same bytes."""
        ...

    def step(self, state: object, event: Any, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        """The decision on an event of the machine's kind. Contracts are bound at the machine's construction."""
        ...

    def due_at(self, state: object) -> int | None:
        """When this state next wants a Timer event (microseconds), or None."""
        ...


@runtime_checkable
class TakesPlainUpdates(Protocol):
    """A machine that has a shorter way for most actions."""

    def take_plain_update(
        self, state: object, update: PlainUpdate, now: int, history: HistoryReader
    ) -> tuple[object, str, bytes] | None:
        """The state after `step` on the update's action, and the id and value of the entry, where to append that is its only
        effect; None where it may not be."""
        ...
