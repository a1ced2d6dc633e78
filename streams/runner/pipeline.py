"""What a runner runs: a machine, the topics that feed it, and the topics that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from reconciler.machines.protocol import Machine
from reconciler.records import Action, Decision, Observation, Outcome, Record, Timer, UndoStep
from reconciler.wire.topics import TopicNames


@dataclass(frozen=True)
class Input:
    """One input topic: what travels on it, and which of its fields says when it happened (None: not checked)."""

    topic: str
    record: type[Record]
    instant: str | None

    def instant_of(self) -> Callable[[Record], int | None]:
        """Reads that field."""
        return _no_instant if self.instant is None else attrgetter(self.instant)


def _no_instant(_record: Record) -> None:
    return None


@dataclass(frozen=True)
class Pipeline:
    """A machine with its topics. All inputs are keyed alike and have one partition count.

    `name` is the table's: it stands in every changelog value, and may never change. `machine_version` stands beside it.
    """

    name: str
    machine: Machine
    inputs: tuple[Input, ...]
    topics: TopicNames
    machine_version: int = 1

    @property
    def input_topics(self) -> tuple[str, ...]:
        return tuple(source.topic for source in self.inputs)

    @property
    def required_topics(self) -> tuple[str, ...]:
        """Every topic that must be there before a worker starts, but the reversal topics, which come with their systems."""
        names = self.topics
        written = (names.expected, names.history, names.timers, names.drift, names.alerts, names.dead_letters)
        return tuple(dict.fromkeys(self.input_topics + written))

    @property
    def partitioned_topics(self) -> tuple[str, ...]:
        """Of these, those that must have the settings' number of partitions."""
        names = self.topics
        return tuple(dict.fromkeys((*self.input_topics, names.expected, names.history, names.timers)))


def resource_pipeline(machine: Machine, topics: TopicNames) -> Pipeline:
    """The pipeline of the resource table."""
    return Pipeline(
        name="resources",
        machine=machine,
        inputs=(
            Input(topics.actions, Action, "occurred_at"),
            Input(topics.observations, Observation, "observed_at"),
            Input(topics.outcomes, Outcome, "occurred_at"),
            Input(topics.undo_steps, UndoStep, "occurred_at"),
            Input(topics.decisions, Decision, "occurred_at"),
            Input(topics.timers, Timer, "due_at"),
        ),
        topics=topics,
    )
