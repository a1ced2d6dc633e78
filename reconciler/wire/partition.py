"""Which partition a key belongs to: murmur2, as Kafka's Java client and librdkafka's `murmur2_random` partition.

librdkafka's own default is another hash: every producer of these topics must be configured with `PARTITIONER`.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import murmur2

PARTITIONER: Final = "murmur2_random"
"""The value for librdkafka's setting `partitioner`."""


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key that isn't null, of so many."""
    partition: int = murmur2(key, partitions)
    return partition
