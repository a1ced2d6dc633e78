"""From a machine's effects to records on topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from reconciler.machines.protocol import Effect, EmitAlert, EmitCommand, EmitDrift
from reconciler.records import Alert, Command
from reconciler.values.errors import InputError
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.store.producer import Outgoing


class EffectWriter(Protocol):
    """Turns effects into records; those that the runner itself serves (history, rejection) don't come here."""

    def write(self, effect: Effect, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        """The record of an effect. Raises EncodeError, and TypeError for an effect that is unknown."""
        ...

    def alert(self, alert: Alert, traceparent: str | None = None) -> Outgoing:
        """The record of an alert of the runner's own."""
        ...


class ResourceEffects:
    """Writes the effects of the resource machine."""

    def __init__(self, codec: Codec, topics: TopicNames, topic_exists: Callable[[str], bool]) -> None:
        self._codec = codec
        self._topics = topics
        self._topic_exists = topic_exists

    def write(self, effect: Effect, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        if isinstance(effect, EmitCommand):
            return self._command(effect, epoch, now, traceparent)
        if isinstance(effect, EmitDrift):
            event = effect.event
            effect_id = f"{event.drift_id}/{event.status}/{event.occurred_at}"
            value = self._codec.encode(self._topics.drift, event)
            return Outgoing(
                self._topics.drift, event.resource.encode(), value, headers=_headers(effect_id, traceparent)
            )
        if isinstance(effect, EmitAlert):
            return self.alert(effect.alert, traceparent)
        raise TypeError(f"the machine gave an effect that this runner doesn't know: {type(effect).__name__}")

    def _command(self, effect: EmitCommand, epoch: int, now: int, traceparent: str | None) -> Outgoing:
        command = msgspec.structs.replace(effect.command, epoch=epoch)
        traceparent = command.traceparent or traceparent
        system = parse_resource_key(command.resource).system
        topic = self._reversal_topic(system)
        if topic is None:
            return self.alert(self._unsendable(command, system, now), traceparent)
        value = self._codec.encode(topic, command)
        headers = _headers(f"{command.command_id}/{command.attempt}", traceparent)
        return Outgoing(topic, command.resource.encode(), value, headers=headers)

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
        value = self._codec.encode(self._topics.alerts, alert)
        return Outgoing(
            self._topics.alerts, alert.subject.encode(), value, headers=_headers(alert.alert_id, traceparent)
        )


def _headers(effect_id: str, traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    headers = (("effect-id", effect_id.encode()),)
    return headers if traceparent is None else (*headers, ("traceparent", traceparent.encode(errors="replace")))
