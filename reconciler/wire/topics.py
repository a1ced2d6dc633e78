"""The topics: their names under a prefix, what travels on them, and how each is to be kept."""

from __future__ import annotations

from typing import Final

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
    Record,
    RollbackEvent,
    RollbackRequest,
    StepReport,
    Timer,
    UndoStep,
)
from reconciler.values.errors import InputError
from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.codec import MAX_STATE_BYTES

_DAY_MS: Final = 24 * 60 * 60 * 1000
FOREVER_MS: Final = -1
MAX_DEAD_LETTER_BYTES: Final = 2 * 1024 * 1024
"""A dead letter is a record that may have been as large as its topic allowed, with headers on top."""

_MAX_TOPIC_CHARACTERS: Final = 249  # Kafka's own limit, `Topic.validate`
_TOPIC_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class TopicSpec(msgspec.Struct, frozen=True):
    """How a topic is to be kept. ``record`` is None where raw bytes travel; ``retention_ms`` is None for compaction alone."""

    name: str
    record: type[Record] | None
    cleanup: tuple[str, ...]
    retention_ms: int | None
    max_message_bytes: int | None = None

    def config(self) -> dict[str, str]:
        """The topic's settings in Kafka's words, without those that depend on the number of brokers."""
        config = {"cleanup.policy": ",".join(self.cleanup)}
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        if self.max_message_bytes is not None:
            config["max.message.bytes"] = str(self.max_message_bytes)
        return config


class TopicNames:
    """The names of all topics under a prefix (``""`` or such as ``"staging."``)."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.actions = self._name("workflow.actions")
        self.observations = self._name("state.observations")
        self.expected = self._name("state.expected")
        self.drift = self._name("drift.events")
        self.outcomes = self._name("reversal.outcomes")
        self.rollback_requests = self._name("rollback.requests")
        self.rollback_events = self._name("rollback.events")
        self.alerts = self._name("reconciler.alerts")
        self.dead_letters = self._name("reconciler.dead-letters")
        self.history = self._name("reconciler.internal.history")
        self.timers = self._name("reconciler.internal.timers")
        self.undo_steps = self._name("reconciler.internal.undo-steps")
        self.decisions = self._name("reconciler.internal.decisions")
        self.gather_queries = self._name("reconciler.internal.gather-queries")
        self.gathered = self._name("reconciler.internal.gathered")
        self.step_reports = self._name("reconciler.internal.step-reports")
        self.rollbacks = self._name("reconciler.internal.rollbacks")
        self.rollback_history = self._name("reconciler.internal.rollback-history")
        self.rollback_timers = self._name("reconciler.internal.rollback-timers")

    def reversal(self, system: str) -> str:
        """The topic of a system's commands. Raises InputError where Kafka would not take the name."""
        name = self._name(f"reversal.{system}")
        if name == self.outcomes:
            raise InputError("a system can't be called 'outcomes': its commands would go to the topic of the outcomes")
        return name

    def _name(self, plain: str) -> str:
        name = self.prefix + plain
        if len(name) > _MAX_TOPIC_CHARACTERS or not _TOPIC_CHARACTERS.issuperset(name):
            raise InputError(
                f"{name[:80]!r} is no name for a topic: letters, digits, '.', '_' and '-' only, at most "
                f"{_MAX_TOPIC_CHARACTERS} of them"
            )
        return name

    def specs(self, systems: tuple[str, ...] = ()) -> tuple[TopicSpec, ...]:
        """All topics and how they are to be kept, with the reversal topics of the systems named."""
        delete, compact = ("delete",), ("compact",)
        return (
            TopicSpec(self.actions, Action, delete, FOREVER_MS),
            TopicSpec(self.observations, Observation, delete, 7 * _DAY_MS),
            TopicSpec(self.expected, ExpectedHead, compact, None, MAX_STATE_BYTES),
            TopicSpec(self.drift, DriftEvent, ("compact", "delete"), 90 * _DAY_MS),
            TopicSpec(self.outcomes, Outcome, delete, 14 * _DAY_MS),
            TopicSpec(self.rollback_requests, RollbackRequest, delete, FOREVER_MS),
            TopicSpec(self.rollback_events, RollbackEvent, delete, 365 * _DAY_MS),
            TopicSpec(self.alerts, Alert, delete, 30 * _DAY_MS),
            TopicSpec(self.dead_letters, None, delete, 30 * _DAY_MS, MAX_DEAD_LETTER_BYTES),
            TopicSpec(self.history, HistoryEntry, compact, None, MAX_STATE_BYTES),
            TopicSpec(self.timers, Timer, delete, 7 * _DAY_MS),
            TopicSpec(self.undo_steps, UndoStep, delete, 90 * _DAY_MS),
            TopicSpec(self.decisions, Decision, delete, FOREVER_MS),
            TopicSpec(self.gather_queries, GatherQuery, delete, 90 * _DAY_MS),
            TopicSpec(self.gathered, Gathered, delete, 90 * _DAY_MS, MAX_STATE_BYTES),
            TopicSpec(self.step_reports, StepReport, delete, 90 * _DAY_MS),
            TopicSpec(self.rollbacks, ExpectedHead, compact, None, MAX_STATE_BYTES),
            TopicSpec(self.rollback_history, HistoryEntry, compact, None, MAX_STATE_BYTES),
            TopicSpec(self.rollback_timers, Timer, delete, 7 * _DAY_MS),
            *(TopicSpec(self.reversal(system), Command, delete, 14 * _DAY_MS) for system in systems),
        )
