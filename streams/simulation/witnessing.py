"""Who looks at the targets at the very moment in which a rollback says that it is completed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from reconciler.machines.rollback.head import STEP, Step
from reconciler.records import RollbackEvent
from reconciler.values.json_value import Absent
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.simulation.broker import Broker
from streams.simulation.targets import SimTarget, Writer, leaves

_step_decoder: Final = msgspec.json.Decoder(Step)

Entries = Callable[[str], dict[str, bytes]]
"""The history of a rollback, as its table has it."""


class Completed(msgspec.Struct, frozen=True):
    """A step of a rollback that says it is completed, and who had written what the resource held just then, by path."""

    rollback_id: str
    step: Step
    writers: dict[str, Writer]


class Witness:
    """Notes what is there whenever a rollback is completed."""

    def __init__(
        self,
        *,
        broker: Broker,
        codec: Codec,
        topics: TopicNames,
        targets: Mapping[str, SimTarget],
        entries_of: Entries,
    ) -> None:
        self._broker = broker
        self._codec = codec
        self._topics = topics
        self._targets = targets
        self._entries_of = entries_of
        self.completed: list[Completed] = []
        broker.listen(topics.rollback_events, self._on_event)

    def _on_event(self, partition: int) -> None:
        record = self._broker.log(self._topics.rollback_events, partition).records[-1]
        event = self._codec.decode(record.value)
        assert isinstance(event, RollbackEvent)
        if event.status != "completed":
            return
        for step in steps_in(self._entries_of(event.rollback_id)):
            resource = step.order.resource
            target = self._targets[parse_resource_key(resource).system]
            fields = target.fields(resource)
            paths = [] if isinstance(fields, Absent) else [path for path, _ in leaves(fields)]
            writers = {path: target.writer_of(resource, path) for path in paths}
            self.completed.append(Completed(event.rollback_id, step, writers))


def steps_in(entries: Mapping[str, bytes]) -> list[Step]:
    """The steps in a rollback's history."""
    return [_step_decoder.decode(value) for entry_id, value in sorted(entries.items()) if entry_id.startswith(STEP)]
