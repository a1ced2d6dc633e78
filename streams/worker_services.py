"""What a worker offers to the services that live inside it, such as the sampler.

A service runs on the worker's event loop for as long as the worker does. It learns which partitions the worker owns, may
read the heads of those partitions, and may publish records; it never writes the table, and nothing that it does can hold
up the folding: its callbacks are plain functions that return at once, and an exception in one of them is logged and counted,
not propagated. A service that ends or raises in `run` is restarted by the worker after a pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from reconciler.machines.protocol import HistoryReader
    from streams.settings import Settings
    from streams.transport.chunk import Chunk

Headers = Sequence[tuple[str, bytes]]


class WorkerContext(Protocol):
    """The worker, as a service sees it. To be used from the event loop alone."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """What is registered here is served with the worker's own metrics."""
        ...

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are owned and recovered now."""
        ...

    def heads(self, partition: int) -> Iterator[tuple[str, object]]:
        """(resource, decoded state) of every head of a partition, in no order that means anything.

        The iterator reads a snapshot and does work only when it is advanced: take a few hundred, then give the event loop
        its turn. Raises PartitionNotOwned when the partition is not owned, also in the middle, once it was revoked.
        """
        ...

    def head(self, partition: int, resource: str) -> object | None:
        """The decoded state of one resource, None where it was never seen. Raises PartitionNotOwned."""
        ...

    def history(self, partition: int, resource: str) -> HistoryReader:
        """The history of one resource, which goes with its head as of now: to be read at once, before anything is awaited.

        Raises PartitionNotOwned.
        """
        ...

    def consumed(self, partition: int, topic: str) -> int:
        """Up to which offset of an input the table is durable: all before it is in heads and history. Raises
        PartitionNotOwned."""
        ...

    def partition_of(self, resource: str) -> int:
        """The partition that a resource belongs to."""
        ...

    async def publish(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> None:
        """Sends a record, partitioned by its key, and returns when the brokers have acknowledged it.

        Outside of the batches' transactions: what is published must bear repetition. Raises DeliveryFailed.
        """
        ...


class WorkerService(Protocol):
    """A service inside the worker."""

    @property
    def name(self) -> str:
        """For logs and metrics: lower case, stable."""
        ...

    async def run(self, context: WorkerContext) -> None:
        """Runs until it is cancelled, which happens at shutdown, before the partitions are given back."""
        ...

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """These partitions are owned and recovered: their heads can be read."""
        ...

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """These partitions are no longer ours. What is under way for them may still be published: it is only an observation."""
        ...

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        """These resources have these new states, as of a batch that is durable. Called after each batch, from the event loop."""
        ...

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        """A chunk is durable. `folded` says of each of its records whether it was folded, and not seen before, forwarded or put
        aside. Called for each chunk of every input, in the order of its partition, from the event loop."""
        ...


class PartitionNotOwned(LookupError):
    """The partition is not owned by this worker, or is not recovered yet."""


class DeliveryFailed(Exception):
    """The brokers did not acknowledge a record in time."""
