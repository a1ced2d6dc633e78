"""The resource machine's answer to observations: who waits for one, and then what it says about drift."""

from __future__ import annotations

import msgspec

from reconciler.contracts.model import Contract
from reconciler.drift.compare import is_empty, is_settling
from reconciler.machines.drifting import judge
from reconciler.machines.head import OBSERVATION_ENTRY, Head, encode
from reconciler.machines.protocol import AppendHistory, HistoryReader, Reject
from reconciler.machines.recording import Stepped, then
from reconciler.machines.undoing import take_doubted, take_fresh
from reconciler.machines.verifying import verify
from reconciler.records import Observation
from reconciler.values.instant import SECOND, Instant


def take_observation(
    head: Head,
    observation: Observation,
    now: Instant,
    history: HistoryReader,
    contract: Contract,
    *,
    is_outcome: bool = False,
) -> Stepped:
    """Takes an observation. One that an outcome carries was made by who had just written, and needs no settling."""
    at = now if observation.observed_at is None else min(observation.observed_at, now)
    if observation.exists is None:
        return Stepped(msgspec.structs.replace(head, unknown=observation.reason or "the target did not say why"))
    if is_empty(head.tree, observation):
        return Stepped(msgspec.structs.replace(head, unknown="the target named no field of it at all"))
    if head.observed_at is not None and at <= head.observed_at:
        if is_outcome or at == head.observed_at:
            return Stepped(head)
        reason = "is older than the last observation of this resource, and says nothing new; check the sampler's clock"
        return Stepped(head, (Reject(reason, "observed_at"),))
    head = msgspec.structs.replace(head, observed_at=at, unknown=None, in_flight=_still_in_flight(head, at, contract))
    stored = Stepped(head, (AppendHistory(OBSERVATION_ENTRY, encode(observation)),))
    is_settled = is_outcome or not is_settling(contract, head.last_write_at, None, at)
    if head.pending is not None:
        if head.pending.sent is None or head.pending.sent.doubt is None:
            return stored
        return then(stored, history, lambda after, later: take_doubted(after, observation, at, now, later, contract))
    if head.steps:
        shows_all = is_settled and not head.in_flight
        return then(
            stored,
            history,
            lambda after, later: take_fresh(after, observation, at, shows_all, now, later, contract),
        )
    if head.in_flight or not is_settled:
        return stored
    if not is_outcome:
        stored = then(stored, history, lambda after, later: verify(after, observation, at, now, contract))
    return then(stored, history, lambda after, later: judge(after, observation, now, later, contract))


def _still_in_flight(head: Head, at: Instant, contract: Contract) -> dict[str, Instant]:
    if not head.in_flight:
        return head.in_flight
    return {name: since for name, since in head.in_flight.items() if at - since < contract.timing.in_flight_s * SECOND}
