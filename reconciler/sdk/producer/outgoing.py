"""From an action's event to the message that carries it, and the settings that both producers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from reconciler.json_form import complete_action
from reconciler.records import Action
from reconciler.sdk.kafka import KafkaSettings
from reconciler.sdk.spool import DEFAULT_MAX_BYTES, Message
from reconciler.sdk.tracing import TRACEPARENT_HEADER, traceparent_for
from reconciler.targets.answers import Clock, system_clock
from reconciler.values.errors import InputError
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames


@dataclass(frozen=True, kw_only=True)
class ProducerSettings:
    """How a producer delivers.

    ``spool_folder``: where events go that the brokers don't take within the delivery time-out; None: they raise DeliveryError
    instead. One folder belongs to one process. ``wait``: whether `action` returns, at its begin and at its end, only when
    its event is acknowledged or spooled; without it, failures raise at the next call, at `flush` or at `close`, and a
    process that dies before `flush` takes its last events with it.
    """

    kafka: KafkaSettings
    spool_folder: Path | str | None = None
    spool_max_bytes: int = DEFAULT_MAX_BYTES
    spool_retry_s: float = 1.0
    wait: bool = True
    codec: Codec = field(default_factory=Codec.packaged)
    clock: Clock = system_clock


class Encoder:
    """Makes messages of actions."""

    def __init__(self, settings: ProducerSettings) -> None:
        self._codec = settings.codec
        self._topic: Final = TopicNames(settings.kafka.topic_prefix).actions

    def message(self, action: Action) -> Message:
        """The message of a complete action. Raises EncodeError for one that can't be written."""
        headers: tuple[tuple[str, bytes], ...] = ()
        if action.traceparent is not None:
            headers = ((TRACEPARENT_HEADER, action.traceparent.encode()),)
        return Message(self._topic, action.resource.encode(), self._codec.encode(self._topic, action), headers)


def completed(action: Action) -> Action:
    """An action as it may be sent: default ids and a trace filled in. Raises InputError for what can't be."""
    parse_resource_key(action.resource)
    for name in ("run_id", "step_id"):
        if not getattr(action, name):
            raise InputError("must not be empty", field=name)
    traced = msgspec.structs.replace(action, traceparent=traceparent_for(action.traceparent))
    return complete_action(traced)
