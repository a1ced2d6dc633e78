"""From the machines' effects to records on topics.

An effect carries the trace that it is a part of; where it has none, it is that of the record that caused it. So one trace
leads from a workflow's step, or a person's request, to what became of it at the target. A malformed one is never passed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from reconciler.machines.protocol import (
    Effect,
    EmitAction,
    EmitAlert,
    EmitCommand,
    EmitDrift,
    EmitQuery,
    EmitReport,
    EmitRollback,
    EmitUndoStep,
)
from reconciler.records import Alert, Command, Record, RollbackEvent, UndoStep
from reconciler.values.errors import InputError
from reconciler.values.resource_key import parse_resource_key
from reconciler.values.traceparent import usable_traceparent
from reconciler.wire.codec import Codec
from reconciler.wire.errors import EncodedTooLargeError
from reconciler.wire.topics import TopicNames
from streams.store.producer import ANY_PARTITION, Outgoing

_CUT_STORY_CHARACTERS: Final = 200_000
_STORY_CUT: Final = "\n\nThe story goes on; it is too long for one message."


class EffectWriter(Protocol):
    """Turns effects into records; those that the runner itself serves (history, rejection) don't come here."""

    def write(self, effect: Effect, partition: int, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        """The record of an effect that a partition's owner had. Raises EncodeError, and TypeError for an effect that is
        unknown."""
        ...

    def alert(self, alert: Alert, traceparent: str | None = None) -> Outgoing:
        """The record of an alert of the runner's own."""
        ...


class TopicEffects:
    """Writes the effects of both machines."""

    def __init__(self, codec: Codec, topics: TopicNames, topic_exists: Callable[[str], bool]) -> None:
        self._codec = codec
        self._topics = topics
        self._topic_exists = topic_exists

    def write(self, effect: Effect, partition: int, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        topics = self._topics
        match effect:
            case EmitCommand(command):
                return self._command(command, epoch, now, traceparent)
            case EmitDrift(event):
                # Two events of one instant may have one status: what they say makes them two.
                content = hashlib.blake2b(msgspec.msgpack.encode(event), digest_size=8).hexdigest()
                effect_id = f"{event.drift_id}/{event.status}/{event.occurred_at}/{content}"
                trace = usable_traceparent(event.traceparent, traceparent)
                return self._record(topics.drift, event.resource, event, effect_id, trace)
            case EmitAlert(alert):
                return self.alert(alert, traceparent)
            case EmitAction(action):
                # Its key is that of the state that it comes from: it belongs into this partition and no other.
                trace = usable_traceparent(action.traceparent, traceparent)
                return self._record(topics.actions, action.resource, action, action.action_id, trace, partition)
            case EmitReport(report):
                trace = usable_traceparent(report.traceparent, traceparent)
                return self._record(topics.step_reports, report.rollback_id, report, report.report_id, trace)
            case EmitQuery(query):
                effect_id = f"{query.rollback_id}/{query.round}/{query.partition}"
                return self._record(
                    topics.gather_queries, query.rollback_id, query, effect_id, traceparent, query.partition
                )
            case EmitUndoStep(step):
                return self._undo_step(step, traceparent)
            case EmitRollback(event):
                return self._rollback(event, usable_traceparent(event.traceparent, traceparent))
        raise TypeError(f"the machine gave an effect that this runner doesn't know: {type(effect).__name__}")

    def _record(
        self,
        topic: str,
        key: str,
        record: Record,
        effect_id: str,
        traceparent: str | None,
        partition: int = ANY_PARTITION,
    ) -> Outgoing:
        value = self._codec.encode(topic, record)
        return Outgoing(topic, key.encode(), value, partition, _headers(effect_id, traceparent))

    def _undo_step(self, step: UndoStep, traceparent: str | None) -> Outgoing:
        effect_id = f"{step.step_id}/{step.verb}/{step.occurred_at}"
        topic = self._topics.undo_steps
        return self._record(topic, step.resource, step, effect_id, usable_traceparent(step.traceparent, traceparent))

    def _rollback(self, event: RollbackEvent, traceparent: str | None) -> Outgoing:
        """An event whose plan is too large for a record goes without: the table has it, and `reconciler rollback show`."""
        topic = self._topics.rollback_events
        try:
            return self._record(topic, event.rollback_id, event, event.event_id, traceparent)
        except EncodedTooLargeError:
            story = event.story
            if len(story) > _CUT_STORY_CHARACTERS:
                story = story[:_CUT_STORY_CHARACTERS] + _STORY_CUT
            shorter = msgspec.structs.replace(event, plan=None, story=story)
            return self._record(topic, event.rollback_id, shorter, event.event_id, traceparent)

    def _command(self, made: Command, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        traceparent = usable_traceparent(made.traceparent, traceparent)
        command = msgspec.structs.replace(made, epoch=epoch, traceparent=traceparent)
        system = parse_resource_key(command.resource).system
        topic = self._reversal_topic(system)
        if topic is None:
            return self.alert(self._unsendable(command, system, now), traceparent)
        return self._record(topic, command.resource, command, f"{command.command_id}/{command.attempt}", traceparent)

    def _reversal_topic(self, system: str) -> str | None:
        """The topic of a system's commands, None where there is none, or none can be."""
        try:
            topic = self._topics.reversal(system)
        except InputError:
            return None
        return topic if self._topic_exists(topic) else None

    def _unsendable(self, command: Command, system: str, now: int) -> Alert:
        # The state holds the command as pending; its time-out and the contract's fallback decide what comes of it.
        return Alert(
            alert_id=f"unsendable/{command.command_id}/{command.attempt}",
            subject=command.resource,
            kind="command_unsendable",
            message=f"A command for the system {system!r} could not be sent: it has no reversal topic. "
            "Make it with `reconciler topics create`.",
            occurred_at=now,
            severity="critical",
        )

    def alert(self, alert: Alert, traceparent: str | None = None) -> Outgoing:
        """The record of an alert."""
        return self._record(self._topics.alerts, alert.subject, alert, alert.alert_id, traceparent)


def _headers(effect_id: str, traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    headers = (("effect-id", effect_id.encode()),)
    return headers if traceparent is None else (*headers, ("traceparent", traceparent.encode(errors="replace")))
