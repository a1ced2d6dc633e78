"""The resource machine: one pure function from the head of a resource and an event to a new head and effects.

action       taking        fold it, append it to the history
observation  observing     go on with what waited for it; verify what was undone; or, about drift (drifting):
                           compare, confirm, report, adopt or correct
outcome      commanding    settle the pending command, retry it or give up
timer        commanding    retries, and outcomes and observations that did not come
decision     commanding    a person holds, releases, adopts or puts right
undo step    undoing       undo, compensate or withdraw for a rollback
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from reconciler.contracts.model import ContractSet
from reconciler.history.tree import Unknown
from reconciler.machines.commanding import due_at, take_decision, take_outcome, take_timer
from reconciler.machines.head import Head, decode_head, encode
from reconciler.machines.observing import take_observation
from reconciler.machines.protocol import Effect, Event, HistoryReader
from reconciler.machines.sampling import SamplingNeeds
from reconciler.machines.taking import take_action, take_plain_update
from reconciler.machines.undoing import take_step
from reconciler.records import Action, Decision, Observation, Outcome, PlainUpdate, Timer, UndoStep
from reconciler.values.instant import SECOND

MACHINE_VERSION = 1

_CACHED_CONTRACTS: Final = 65_536
"""Of as many resources it is remembered which contract is theirs."""


class ResourceMachine:
    """The machine of the resource table, under a set of contracts."""

    def __init__(self, contracts: ContractSet) -> None:
        self._contracts = contracts
        self._contract_for = lru_cache(maxsize=_CACHED_CONTRACTS)(contracts.for_resource)

    def initial(self, key: str) -> Head:
        """A resource of which nothing is known."""
        return Head(resource=key)

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

    def step(self, state: object, event: Event, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        """The decision."""
        assert isinstance(state, Head)
        contract = self._contract_for(state.resource)
        match event:
            case Action():
                return take_action(state, event, now, history, contract)
            case Observation():
                return take_observation(state, event, now, history, contract)
            case Outcome():
                return take_outcome(state, event, now, history, contract)
            case Timer():
                return take_timer(state, now, history, contract)
            case Decision():
                return take_decision(state, event, now, history, contract)
            case UndoStep():
                return take_step(state, event, now, history, contract)

    def take_plain_update(
        self, state: object, update: PlainUpdate, now: int, history: HistoryReader
    ) -> tuple[object, str, bytes] | None:
        """What `step` decides on the action of an update, where that is to fold it and nothing else."""
        assert isinstance(state, Head)
        return take_plain_update(state, update, now, history)

    def sampling_needs(self, state: object) -> SamplingNeeds:
        """What the sampler needs to know of a head."""
        assert isinstance(state, Head)
        return sampling_needs(state, self._contracts)


def sampling_needs(head: Head, contracts: ContractSet) -> SamplingNeeds:
    """What the sampler needs to know of a head."""
    contract = contracts.for_resource(head.resource)
    since = max(head.in_flight.values(), default=None)
    unseen = head.unverified[-1].command_id if head.unverified else None
    awaited = head.steps[0].order if head.steps and head.pending is None else None
    return SamplingNeeds(
        watched=not isinstance(head.tree, Unknown) or awaited is not None,
        open_drift=None if head.drift is None else head.drift.drift_id,
        pending_command=unseen if head.pending is None else head.pending.command.command_id,
        undo_step=None if awaited is None else f"{awaited.step_id} {head.steps[0].tries}",
        last_write_at=head.last_write_at,
        in_flight_until=None if since is None else since + int(contract.timing.in_flight_s * SECOND),
        last_observed_at=head.observed_at,
    )
