"""The sampler in the simulation: the product's own schedule, checks of answers and decisions on what is worth publishing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.contracts.model import ContractSet
from reconciler.machines.head import Head
from reconciler.machines.resource import sampling_needs
from reconciler.records import Observation
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from streams.sampler.answers import Answer, answers
from streams.sampler.publication import Published, why_publish
from streams.sampler.schedule import Pace, Seat
from streams.sampler.schedule import Schedule as ReadSchedule
from streams.sampler.timing import sample_timing
from streams.simulation.broker import Broker
from streams.simulation.chance import MILLISECOND, Chance
from streams.simulation.schedule import Schedule
from streams.simulation.targets import SimTarget, now
from streams.simulation.trace import Trace
from streams.simulation.workers import Owner
from streams.store.producer import Outgoing

HEARTBEAT_PERIODS: Final = 12
_PACE: Final = Pace()


class Sampler:
    """Reads the targets for whoever owns the partitions."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        broker: Broker,
        codec: Codec,
        topic: str,
        contracts: ContractSet,
        targets: Mapping[str, SimTarget],
        trace: Trace,
        seed: int,
    ) -> None:
        self._clock = schedule
        self._broker = broker
        self._codec = codec
        self._topic = topic
        self._contracts = contracts
        self._targets = targets
        self._trace = trace
        self._chance = Chance(seed, "sampler")
        self._reads = ReadSchedule(_PACE)
        self._planned_at: int | None = None

    def on_moved(self, owner: Owner) -> None:
        """A partition has a new owner, whose sampler knows nothing but its table."""
        if owner.lane.pipeline.name == "resources":
            self._reads.drop_partition(owner.partition)
            self._reads.forget_dropped(owner.partition)
            self.on_touched(owner, dict(owner.table.heads()))

    def on_touched(self, owner: Owner, states: Mapping[str, object]) -> None:
        """Heads have changed."""
        if owner.lane.pipeline.name != "resources":
            return
        for resource, state in states.items():
            assert isinstance(state, Head)
            timing = sample_timing(self._contracts.for_resource(resource).timing, HEARTBEAT_PERIODS)
            self._reads.put(owner.partition, resource, sampling_needs(state, self._contracts), timing, self._clock.now)
        self._plan()

    def _plan(self) -> None:
        due = self._reads.next_due()
        if due is not None and (self._planned_at is None or due < self._planned_at):
            self._planned_at = max(due, self._clock.now)
            self._clock.at(self._planned_at, lambda at=self._planned_at: self._run(at))  # type: ignore[misc]

    def _run(self, at: int) -> None:
        if at != self._planned_at:
            return  # an earlier one was planned since
        self._planned_at = None
        for seat in self._reads.take(self._clock.now, 1_000):
            self._read(seat)
        self._plan()

    def _read(self, seat: Seat) -> None:
        """Reads one resource; the answer is there after a while."""
        asked_at = self._clock.now
        target = self._targets[parse_resource_key(seat.resource).system]
        given = now(target.observe([seat.resource]))
        (answer,) = answers([seat.resource], given, asked_at)
        self._clock.after(self._chance.duration(0.01, 1), lambda: self._answered(seat, answer))

    def _answered(self, seat: Seat, answer: Answer) -> None:
        clock = self._clock.now
        observation = answer.observation
        if answer.digest is None:
            self._reads.failed(seat, clock)
        else:
            self._reads.succeeded(seat, observation.observed_at or 0, clock)
        if self._reads.is_current(seat):
            why = why_publish(seat.published, answer, seat.needs, seat.timing, clock)
            if why is not None:
                seat.published = Published(answer.digest, observation.observed_at or 0, clock)
                self._publish(observation, why)
        self._plan()

    def _publish(self, observation: Observation, why: str) -> None:
        self._trace.add("sampler", "{} ({}): {}", observation.resource, why, _shown(observation))
        value = self._codec.encode(self._topic, observation)
        timestamp_ms = self._clock.now // MILLISECOND
        self._broker.send(
            "sampler", Outgoing(self._topic, observation.resource.encode(), value, timestamp_ms=timestamp_ms)
        )


def _shown(observation: Observation) -> str:
    if observation.exists is None:
        return f"unknown ({observation.reason})"
    return str(observation.fields) if observation.exists else "absent"
