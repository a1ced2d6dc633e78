"""The rollback machine: one pure function from the head of a rollback and an event to a new head and effects.

request   requesting   a person asks, approves, cancels, resumes, decides
gathered  gathering    a partition answers; when all have, planning
          late         an action came after the answer
report    driving      a resource tells what became of a step
timer     timing       nothing was heard for too long
"""

from __future__ import annotations

from reconciler.contracts.model import ContractSet
from reconciler.machines.protocol import Effect, HistoryReader, Reject, RollbackInput
from reconciler.machines.rollback.driving import halt, take_report
from reconciler.machines.rollback.gathering import forget, take_answer
from reconciler.machines.rollback.head import Head, decode_head, encode
from reconciler.machines.rollback.late import take_late
from reconciler.machines.rollback.planning import FaultyPlan, consider
from reconciler.machines.rollback.requesting import planned, reject, take_request
from reconciler.machines.rollback.timing import due_at, take_timer
from reconciler.machines.rollback.turn import Refused, Turn
from reconciler.records import Gathered, RollbackRequest, StepReport, Timer
from reconciler.values.errors import InputError

MACHINE_VERSION = 1


class RollbackMachine:
    """The machine of the rollback table, under a set of contracts, over so many partitions of resources."""

    def __init__(self, contracts: ContractSet, partitions: int) -> None:
        self._contracts = contracts
        self._partitions = partitions

    def initial(self, key: str) -> Head:
        """A rollback that nobody has asked for."""
        return Head(rollback_id=key)

    def decode(self, key: str, value: bytes) -> Head:
        """The head of a table value."""
        return decode_head(value)

    def encode(self, state: object) -> bytes:
        """The table value of a head."""
        assert isinstance(state, Head)
        return encode(state)

    def due_at(self, state: object) -> int | None:
        """When the head wants a Timer."""
        assert isinstance(state, Head)
        return due_at(state)

    def step(
        self, state: object, event: RollbackInput, now: int, history: HistoryReader
    ) -> tuple[object, tuple[Effect, ...]]:
        """The decision."""
        assert isinstance(state, Head)
        turn = Turn(state, now, history, self._contracts, self._partitions)
        try:
            self._take(turn, event)
        except Refused as refused:
            return state, (Reject(refused.reason, refused.field),)
        return turn.head, turn.effects()

    def _take(self, turn: Turn, event: RollbackInput) -> None:
        if turn.head.request is None and not isinstance(event, RollbackRequest):
            if isinstance(event, Timer):
                return
            raise Refused("is of a rollback that nobody has asked for", "rollback_id")
        match event:
            case RollbackRequest():
                take_request(turn, event)
            case Gathered():
                if event.is_late:
                    take_late(turn, event)
                elif take_answer(turn, event):
                    self._plan(turn)
            case StepReport():
                take_report(turn, event)
            case Timer():
                take_timer(turn)

    def _plan(self, turn: Turn) -> None:
        try:
            plan = consider(turn)
        except InputError as error:
            turn.change(gathering=None)
            forget(turn)
            reject(turn, f"The request can't be planned: {error.message}.")
            return
        except FaultyPlan as fault:
            turn.change(gathering=None)
            forget(turn)
            halt(
                turn,
                f"The plan doesn't stand up to the rules ({fault}), which is a fault of the reconciler; report it.",
            )
            return
        if plan is not None:
            planned(turn, plan)
