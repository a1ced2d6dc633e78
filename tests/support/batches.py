"""A batch runner over a store in memory, for tests that need no broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from reconciler.machines.protocol import Machine
from reconciler.records import Record
from reconciler.wire.changelog import ExpectedHead
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.runner.batch import Batch, BatchRunner
from streams.runner.effects import TopicEffects
from streams.runner.pipeline import Pipeline, resource_pipeline
from streams.store.envelope import HeadEnvelope
from streams.store.memory import MemoryStore
from streams.store.port import Checkpoint, PartitionStore
from streams.store.table import PartitionTable
from streams.transport.chunk import Chunk
from tests.support.counting import Count, CountingMachine

NOW_MS = 1_780_000_000_000
FAR_AHEAD = 2**62


class Raw(msgspec.Struct, frozen=True):
    """A record as the consumer hands it on."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = NOW_MS
    headers: list[tuple[str, bytes | None]] = []


class Bench:
    """One partition with its table; each `run` is a batch that is written at once."""

    def __init__(
        self,
        machine: Machine | None = None,
        *,
        partition: int = 0,
        partitions: int = 1,
        store: PartitionStore | None = None,
        consumed: dict[str, int] | None = None,
        topics: Sequence[str] | None = None,
        dead_letter_max_bytes: int = 1_000_000,
        cache_max_bytes: int = 1 << 20,
        batch_max_bytes: int = 1 << 30,
        pipeline_of: Callable[[Machine, TopicNames], Pipeline] = resource_pipeline,
    ) -> None:
        self.machine = machine or CountingMachine()
        self.codec = Codec.packaged()
        self.topics = TopicNames()
        self.store = store or MemoryStore()
        self.partition = partition
        pipeline = pipeline_of(self.machine, self.topics)
        header = self.codec.header(pipeline.heads, ExpectedHead)
        envelope = HeadEnvelope(self.codec, header, pipeline.name, 1, pipeline.input_topics, partition)
        envelope.set_epoch(5)
        self.table = PartitionTable(self.machine, self.store, envelope, len(pipeline.inputs), cache_max_bytes)
        self.runner = BatchRunner(
            pipeline=pipeline,
            codec=self.codec,
            effects=TopicEffects(self.codec, self.topics, lambda topic: topics is None or topic in topics),
            table=self.table,
            partition=partition,
            partitions=partitions,
            epoch=5,
            consumed=consumed or {},
            now=0,
            group="group",
            dead_letter_max_bytes=dead_letter_max_bytes,
            max_bytes=batch_max_bytes,
        )
        self._next = 0

    def raw(self, record: Record, **fields: object) -> Raw:
        """A record on `workflow.actions`, with the next offset."""
        resource: str = record.resource  # type: ignore[attr-defined]
        values = {"key": resource.encode(), "value": self.codec.encode(self.topics.actions, record)} | fields
        return self.next(**values)

    def next(self, **fields: object) -> Raw:
        """Raw fields, with the next offset."""
        fields.setdefault("offset", self._next)
        offset = fields["offset"]
        assert isinstance(offset, int)
        self._next = offset + 1
        return Raw(**fields)  # type: ignore[arg-type]

    def run(self, records: Sequence[Raw], topic: str | None = None, latest: int = FAR_AHEAD) -> Batch:
        """Steps one batch of all these records and writes it."""
        batch = self.step([self.chunk(records, topic)], latest)
        assert not batch.rest
        return batch

    def chunk(self, records: Sequence[Raw], topic: str | None = None) -> Chunk:
        """Records as one fetch brings them."""
        start = records[0].offset if records else 0
        end = records[-1].offset + 1 if records else 0
        return Chunk(topic or self.topics.actions, self.partition, start, end, list(records), 1)

    def step(self, chunks: Sequence[Chunk], latest: int = FAR_AHEAD) -> Batch:
        """Steps one batch, of as much as goes into it, and writes it."""
        batch = self.runner.run(chunks, latest)
        self.table.persist(batch.changes, Checkpoint(heads=0, history=0, mark=None, written_at=0))
        self.table.settle()
        return batch

    def state(self, resource: str) -> Count:
        """The state under a key."""
        state = self.table.peek(resource.encode())
        assert isinstance(state, Count)
        return state
