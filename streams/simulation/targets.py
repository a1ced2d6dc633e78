"""Target systems that remember who wrote what, and that fail, lie and answer wrongly; and the service before each of them.

Commands are decided by the product's own `decide`, deduplicated by its own `repeated`, and taken in by its own consumer rules
(epoch, expiry, an outcome for everything). What a target really did is noted apart, for the invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from reconciler.records import Actor, Command, Observation, Outcome, OutcomeStatus
from reconciler.sdk.consumer.applying import TargetApplier, timed_out
from reconciler.sdk.consumer.progress import PartitionProgress
from reconciler.targets.answers import found, missing, outcome, sentence, unknown
from reconciler.targets.apply import Fields, Refusal, decide
from reconciler.targets.first_outcome import REMEMBERED, FirstOutcome, repeated
from reconciler.targets.port import TargetDescription
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import path_of, tokens_of, value_at
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.simulation.broker import Broker, Stored
from streams.simulation.chance import Chance, Faults
from streams.simulation.schedule import Schedule
from streams.simulation.trace import Trace
from streams.store.producer import Outgoing

T = TypeVar("T")

APPLY_TIMEOUT_S: Final = 20.0
_REMEMBERED_STATES: Final = 4


class Writer(msgspec.Struct, frozen=True):
    """Who wrote a value: a person, a workflow, or the reconciler by a command."""

    kind: str
    id: str


COMMAND: Final = "command"
PERSON: Final = "person"
WORKFLOW: Final = "workflow"
NOBODY: Final = Writer("base", "")


class Loss(msgspec.Struct, frozen=True):
    """A value that a command replaced or took away, and whose it was."""

    resource: str
    path: str
    value: Json
    writer: Writer
    command: Command


class State(msgspec.Struct, frozen=True):
    """What a resource held at an instant."""

    at: Instant
    fields: Fields | Absent
    version: int
    by: Writer


class SimTarget:
    """Implements `ApplyingTarget` in memory, with faults."""

    def __init__(self, system: str, schedule: Schedule, faults: Faults, trace: Trace) -> None:
        self.system = system
        self._schedule = schedule
        self._faults = faults
        self._trace = trace
        self._states: dict[str, list[State]] = {}
        self._writers: dict[str, dict[str, Writer]] = {}
        self._first: dict[str, FirstOutcome] = {}
        self._version = 0
        self.losses: list[Loss] = []
        self.obeyed: list[Command] = []
        """The commands that changed something, in their order."""
        self.carried_out: dict[str, int] = {}
        """How often each command changed something."""
        self.compensated: dict[str, int] = {}
        """How often each effect was made good, by rollback and execution of the effect."""

    # -- the hands of everybody

    def fields(self, resource: str) -> Fields | Absent:
        """What a resource really holds."""
        states = self._states.get(resource)
        return states[-1].fields if states else ABSENT

    def version(self, resource: str) -> str | None:
        """The version token of a resource."""
        states = self._states.get(resource)
        return str(states[-1].version) if states else None

    def resources(self) -> list[str]:
        """All that ever were there."""
        return sorted(self._states)

    def put(self, resource: str, fields: Fields | Absent, writer: Writer) -> None:
        """Writes a whole resource, asking nobody."""
        before = self.fields(resource)
        if same(before, fields):
            return
        self._version += 1
        states = self._states.setdefault(resource, [])
        states.append(State(self._schedule.now, fields, self._version, writer))
        del states[:-_REMEMBERED_STATES]
        writers = self._writers.setdefault(resource, {})
        old, new = dict(leaves(before)), dict(leaves(fields))
        for path in old.keys() - new.keys():
            writers.pop(path, None)
        for path, value in new.items():
            if path not in old or not same(old[path], value):
                writers[path] = writer

    def writer_of(self, resource: str, path: str) -> Writer:
        """Who wrote the value at a path."""
        return self._writers.get(resource, {}).get(path, NOBODY)

    # -- the port

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self.system,
            kind="simulated",
            can_apply=True,
            can_scan=False,
            compare_and_set=True,
            deduplicates=True,
            bulk_size=1,
        )

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        return [self._observed(resource) for resource in resources]

    def _observed(self, resource: str) -> Observation:
        """What the target says, which need not be so."""
        now = self._schedule.now
        states = self._states.get(resource)
        if not states:
            return missing(resource, now)
        if self._faults.strike("read-fails") is not None:
            return unknown(resource, "the target did not answer in time", now)
        if self._faults.strike("read-empty") is not None:
            self._trace.add(self.system, "says that {} is there and holds nothing", resource)
            return Observation(resource=resource, exists=True, fields={}, observed_at=now)
        state = states[-1]
        if (chance := self._faults.strike("read-stale")) is not None:
            state = chance.pick(states)
            self._trace.add(self.system, "answers with an old state of {}", resource)
        fields = state.fields
        if not isinstance(fields, Absent) and fields and (chance := self._faults.strike("read-partial")) is not None:
            left_out = chance.pick(sorted(fields))
            fields = {name: value for name, value in fields.items() if name != left_out}
            self._trace.add(self.system, "leaves {} out of its answer on {}", left_out, resource)
        return self._told(resource, state, fields)

    def _told(self, resource: str, state: State, fields: Fields | Absent) -> Observation:
        if isinstance(fields, Absent):
            return missing(resource, self._schedule.now)
        return found(
            resource,
            fields,
            self._schedule.now,
            version=str(state.version),
            modified_at=state.at,
            modified_by=Actor(id=state.by.id, kind="user" if state.by.kind == PERSON else state.by.kind),
        )

    async def apply(self, command: Command) -> Outcome:
        now = self._schedule.now
        first = self._known(command)
        status = repeated(first, command)
        if status is not None and first is not None:
            return outcome(command, status, now, observed=self._truth(command.resource), error=first.error)
        result = self._answer(command)
        if result.status in REMEMBERED:
            self._first[command.command_id] = FirstOutcome(
                status=result.status, attempt=command.attempt, error=result.error
            )
        return result

    def _known(self, command: Command) -> FirstOutcome | None:
        """What was decided on a command before."""
        return self._first.get(command.command_id)

    def _truth(self, resource: str) -> Observation:
        states = self._states.get(resource)
        return (
            missing(resource, self._schedule.now) if not states else self._told(resource, states[-1], states[-1].fields)
        )

    def _answer(self, command: Command) -> Outcome:
        now = self._schedule.now
        if (chance := self._faults.strike("apply-transient")) is not None:
            wait_s = chance.pick((None, 5.0, 45.0))
            return outcome(command, "transient", now, error="the target is busy", retry_after_s=wait_s)
        if self._faults.strike("apply-permanent") is not None:
            return outcome(command, "permanent", now, error="the target refuses for good")
        if command.action == "compensate":
            return self._compensate(command)
        current = self.fields(command.resource)
        result = self._decided(current, command)
        if isinstance(result, Refusal):
            return outcome(command, result.status, now, observed=self._truth(command.resource), error=sentence(result))
        if result is current or (isinstance(result, Absent) and isinstance(current, Absent)):
            return outcome(command, "already_applied", now, observed=self._truth(command.resource))
        if self._faults.strike("apply-lies") is not None:
            self._trace.add(self.system, "says that it applied {} and didn't", command.command_id[:8])
            told = State(now, result, self._version + 1, Writer(COMMAND, command.command_id))
            return outcome(command, "applied", now, observed=self._told(command.resource, told, result))
        self._carry_out(command, current, result)
        return outcome(command, "applied", now, observed=self._truth(command.resource))

    def _decided(self, current: Fields | Absent, command: Command) -> Fields | Absent | Refusal:
        """What a command makes of a resource."""
        return decide(current, self.version(command.resource), command)

    def _carry_out(self, command: Command, current: Fields | Absent, result: Fields | Absent) -> None:
        for path, value in leaves(current):
            left = ABSENT if isinstance(result, Absent) else value_at(result, tokens_of(path))
            if not same(left, value) and value != {}:  # an empty object is what others left of one
                writer = self.writer_of(command.resource, path)
                self.losses.append(Loss(command.resource, path, value, writer, command))
        self.obeyed.append(command)
        self.carried_out[command.command_id] = self.carried_out.get(command.command_id, 0) + 1
        self.put(command.resource, result, Writer(COMMAND, command.command_id))

    def _compensate(self, command: Command) -> Outcome:
        arguments = {} if command.compensation is None else command.compensation.arguments
        effect = f"{command.rollback_id} {command.resource} {arguments.get('of')}"
        self.compensated[effect] = self.compensated.get(effect, 0) + 1
        return outcome(command, "applied", self._schedule.now)

    async def close(self) -> None:
        """Nothing is held open."""


def leaves(value: Json | Absent, tokens: tuple[str, ...] = ()) -> Iterator[tuple[str, Json]]:
    """(path, value) of every scalar, array and empty object, the resource's own emptiness left out."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, (*tokens, name))
        if value or not tokens:
            return
    if not isinstance(value, Absent):
        yield path_of(tokens), value


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    coroutine.close()
    raise AssertionError("the coroutine waits for something")


class Service:
    """The service that owns a target: reads its commands, applies them one after the other, and says what became of each."""

    def __init__(
        self,
        target: SimTarget,
        broker: Broker,
        codec: Codec,
        topics: TopicNames,
        schedule: Schedule,
        faults: Faults,
        trace: Trace,
        seed: int,
    ) -> None:
        self._target = target
        self._applier = TargetApplier(target, schedule.clock)
        self._broker = broker
        self._codec = codec
        self._topics = topics
        self._topic = topics.reversal(target.system)
        self._schedule = schedule
        self._faults = faults
        self._trace = trace
        self._chance = Chance(seed, "service", target.system)
        self._lives = 0
        self._progress: dict[int, PartitionProgress] = {}
        self._positions: dict[int, int] = {}
        self._committed: dict[int, tuple[int, int]] = {}
        self._busy: set[int] = set()
        broker.listen(self._topic, self._wake)
        self._start(self._lives)

    def _start(self, life: int) -> None:
        if life != self._lives:
            return
        self._busy.clear()
        for partition in range(self._broker.partitions):
            offset, epoch = self._committed.get(partition, (0, 0))
            self._progress[partition] = PartitionProgress(partition, epoch)
            self._positions[partition] = offset
            self._wake(partition)

    def _end(self, why: str) -> None:
        """The service ends, and comes back: what wasn't committed is delivered again."""
        self._trace.add(f"service {self._target.system}", "ends ({})", why)
        self._lives += 1
        life = self._lives
        self._schedule.after(self._chance.duration(1, 60), lambda: self._start(life))

    def _guarded(self, call: Callable[[], object]) -> Callable[[], None]:
        """A call that doesn't happen once the service has ended."""
        life = self._lives

        def guarded() -> None:
            if life == self._lives:
                call()

        return guarded

    def _wake(self, partition: int) -> None:
        if partition not in self._busy and partition in self._progress:
            records = self._broker.log(self._topic, partition).read(self._positions[partition], 1)
            if records:
                self._busy.add(partition)
                self._schedule.after(
                    self._chance.duration(0.01, 0.5), self._guarded(lambda: self._take(partition, records[0]))
                )

    def _take(self, partition: int, record: Stored) -> None:
        command = self._codec.decode(record.value)
        assert isinstance(command, Command)
        progress = self._progress[partition]
        progress.begin(record.offset)
        newest = progress.overtaken_by(command.epoch)
        if newest is not None:
            reason = f"the command's epoch {command.epoch} is over: this partition has seen epoch {newest}"
            self._answer(partition, record, outcome(command, "rejected", self._schedule.now, error=reason))
            return
        wait = self._chance.duration(0.01, 0.3)
        if (chance := self._faults.strike("apply-slow")) is not None:
            wait = chance.duration(1, 15)
        self._schedule.after(wait, self._guarded(lambda: self._apply(partition, record, command)))

    def _apply(self, partition: int, record: Stored, command: Command) -> None:
        is_expired = command.expires_at is not None and command.expires_at <= self._schedule.now
        result = now(self._applier.expired(command) if is_expired else self._applier.apply(command))
        who = f"service {self._target.system}"
        about = f"{command.action} {command.command_id[:8]} attempt {command.attempt} on {command.resource}"
        self._trace.add(who, "{}: {}", about, _said(result))
        if self._faults.strike("service-crash") is not None:
            self._end("before it told the outcome")
            return
        if self._faults.strike("apply-times-out") is not None:
            self._trace.add(who, "does not hear what became of {}", command.command_id[:8])
            result = timed_out(command, self._schedule.clock, APPLY_TIMEOUT_S)
        self._answer(partition, record, result)

    def _answer(self, partition: int, record: Stored, result: Outcome) -> None:
        value = self._codec.encode(self._topics.outcomes, result)
        self._broker.send(
            f"service {self._target.system}", Outgoing(self._topics.outcomes, result.resource.encode(), value)
        )
        progress = self._progress[partition]
        progress.finish(record.offset)
        self._positions[partition] = record.offset + 1
        self._busy.discard(partition)
        finished = progress.committable()
        if finished is not None and self._faults.strike("service-uncommitted") is None:
            self._committed[partition] = (finished.offset, finished.epoch)
        self._wake(partition)


def _said(result: Outcome) -> str:
    status: OutcomeStatus = result.status
    return status if result.error is None else f"{status} ({result.error})"
