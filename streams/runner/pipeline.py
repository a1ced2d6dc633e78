"""What a runner runs: a machine, the topics that feed it, and the topics that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from reconciler.machines.protocol import Machine
from reconciler.records import (
    Action,
    Decision,
    Gathered,
    Observation,
    Outcome,
    Record,
    RollbackRequest,
    StepReport,
    Timer,
    UndoStep,
)
from reconciler.values.errors import InputError
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.topics import TopicNames

_MAX_ROLLBACK_ID_CHARACTERS: Final = 200


@dataclass(frozen=True)
class Input:
    """One input topic: what travels on it, which of its fields is its key, and which says when it happened (None: not
    checked)."""

    topic: str
    record: type[Record]
    instant: str | None
    key: str = "resource"

    def instant_of(self) -> Callable[[Record], int | None]:
        """Reads the instant."""
        return _no_instant if self.instant is None else attrgetter(self.instant)

    def key_of(self) -> Callable[[Record], str]:
        """Reads the key."""
        return attrgetter(self.key)


def _no_instant(_record: Record) -> None:
    return None


@dataclass(frozen=True)
class Pipeline:
    """A machine with its topics. All inputs are keyed alike and have one partition count.

    `name` is the table's: it stands in every changelog value, and may never change. `machine_version` stands beside it.
    `check_key` raises InputError for a key that can't be one of the table's; `key_kind` says what it then is not.
    """

    name: str
    machine: Machine
    inputs: tuple[Input, ...]
    topics: TopicNames
    heads: str
    """The changelog of the heads."""
    history: str
    """The changelog of the history."""
    timers: str
    check_key: Callable[[str], object]
    key_kind: str
    written: tuple[str, ...] = field(default=())
    """Further topics that are written and must be there, but the reversal topics, which come with their systems."""
    machine_version: int = 1

    @property
    def input_topics(self) -> tuple[str, ...]:
        return tuple(source.topic for source in self.inputs)

    @property
    def required_topics(self) -> tuple[str, ...]:
        """Every topic that must be there before a worker starts."""
        names = self.topics
        return tuple(dict.fromkeys((*self.partitioned_topics, *self.written, names.alerts, names.dead_letters)))

    @property
    def partitioned_topics(self) -> tuple[str, ...]:
        """Of these, those that must have the settings' number of partitions."""
        return tuple(
            dict.fromkeys((*self.input_topics, self.heads, self.history, self.timers, self.topics.gather_queries))
        )


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
        heads=topics.expected,
        history=topics.history,
        timers=topics.timers,
        check_key=parse_resource_key,
        key_kind="resource key (system/type/id)",
        written=(topics.drift, topics.step_reports, topics.gathered),
    )


def rollback_pipeline(machine: Machine, topics: TopicNames) -> Pipeline:
    """The pipeline of the table of rollbacks."""
    return Pipeline(
        name="rollbacks",
        machine=machine,
        inputs=(
            Input(topics.rollback_requests, RollbackRequest, "requested_at", "rollback_id"),
            Input(topics.gathered, Gathered, "occurred_at", "rollback_id"),
            Input(topics.step_reports, StepReport, "occurred_at", "rollback_id"),
            Input(topics.rollback_timers, Timer, "due_at"),
        ),
        topics=topics,
        heads=topics.rollbacks,
        history=topics.rollback_history,
        timers=topics.rollback_timers,
        check_key=check_rollback_id,
        key_kind="id of a rollback",
        written=(topics.undo_steps, topics.rollback_events),
    )


def check_rollback_id(rollback_id: str) -> None:
    """Raises InputError for what can't name a rollback: it is a key of the table, a part of operation ids, and read by people."""
    if not rollback_id:
        raise InputError("the rollback's id must not be empty", field="rollback_id")
    if len(rollback_id) > _MAX_ROLLBACK_ID_CHARACTERS:
        raise InputError(
            f"the rollback's id has {len(rollback_id)} characters, more than {_MAX_ROLLBACK_ID_CHARACTERS}",
            field="rollback_id",
        )
    if not rollback_id.isprintable() or "/" in rollback_id or " " in rollback_id:
        raise InputError(
            f"the rollback's id {rollback_id!r} must be of printable characters without '/' and blanks",
            field="rollback_id",
        )
