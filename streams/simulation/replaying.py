"""The log replayed from scratch: the same records in the same order, in other batches, by a machine that has seen nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.wire.changelog import ExpectedHead
from reconciler.wire.codec import Codec
from streams.runner.batch import BatchRunner
from streams.simulation.workers import Consumed, Lane
from streams.store.envelope import HeadEnvelope
from streams.store.memory import MemoryStore
from streams.store.port import Checkpoint, PartitionStore
from streams.store.producer import Outgoing
from streams.store.table import PartitionTable

_MANY = 1 << 40


class Replayed(msgspec.Struct, frozen=True):
    """What a replay comes to."""

    heads: dict[str, bytes]
    entries: dict[tuple[str, str], bytes]
    effects: list[Outgoing]


def replayed(lane: Lane, codec: Codec, partition: int, partitions: int, consumed: Sequence[Consumed]) -> Replayed:
    """Steps over what was consumed, one chunk at a time."""
    pipeline = lane.pipeline
    header = codec.header(pipeline.heads, ExpectedHead)
    envelope = HeadEnvelope(codec, header, pipeline.name, pipeline.machine_version, pipeline.input_topics, partition)
    store = MemoryStore()
    table = PartitionTable(pipeline.machine, store, envelope, len(pipeline.inputs), _MANY)
    runner = BatchRunner(
        pipeline=pipeline,
        codec=codec,
        effects=lane.effects,
        table=table,
        partition=partition,
        partitions=partitions,
        epoch=0,
        consumed={},
        now=0,
        group="reconciler",
        dead_letter_max_bytes=_MANY,
        max_bytes=_MANY,
    )
    effects: list[Outgoing] = []
    for batch in consumed:
        for chunk in batch.chunks:
            made = runner.run([chunk], batch.latest)
            effects += made.effects
            table.persist(made.changes, Checkpoint(heads=0, history=0, mark=None, written_at=0.0))
            table.settle()
    heads, entries = contents(table, store, lane)
    return Replayed(heads, entries, effects)


def contents(
    table: PartitionTable, store: PartitionStore, lane: Lane
) -> tuple[dict[str, bytes], dict[tuple[str, str], bytes]]:
    """The heads and history entries of a table, as bytes."""
    heads: dict[str, bytes] = {}
    entries: dict[tuple[str, str], bytes] = {}
    for resource, state in table.heads():
        heads[resource] = lane.pipeline.machine.encode(state)
        for entry_id, entry in store.entries(resource.encode()):
            entries[resource, entry_id.decode()] = entry
    return heads, entries


def effect_id(outgoing: Outgoing) -> str:
    """The id of an effect: of what carries none, such as a record that was forwarded, all that it is."""
    for name, value in outgoing.headers:
        if name == "effect-id":
            return value.decode()
    return repr((outgoing.key, outgoing.value, list(outgoing.headers)))
