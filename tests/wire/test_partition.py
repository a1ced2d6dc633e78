"""Our partitions are those of Kafka's Java client, and of a producer that is configured as we say."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from reconciler.wire.partition import PARTITIONER, partition_of
from tests.support.kafka import KafkaBroker

# The hashes that Kafka's own `UtilsTest.testMurmur2` expects, and what `murmur2_random` makes of an empty key.
HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def murmur2(data: bytes) -> int:
    """Kafka's `Utils.murmur2`, line by line, as an unsigned number."""
    seed, m, r, mask = 0x9747B28C, 0x5BD1E995, 24, 0xFFFFFFFF
    h = (seed ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little")
        k = k * m & mask
        k ^= k >> r
        k = k * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = h * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ (h >> 15)


def test_the_reference_gives_the_hashes_of_kafkas_own_test() -> None:
    assert {key: murmur2(key) for key in HASHES} == {key: hash_ & 0xFFFFFFFF for key, hash_ in HASHES.items()}


@pytest.mark.parametrize(("key", "hash_"), HASHES.items())
@pytest.mark.parametrize("partitions", [1, 7, 12, 1000])
def test_known_keys(key: bytes, hash_: int, partitions: int) -> None:
    assert partition_of(key, partitions) == (hash_ & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=64), st.integers(1, 10_000))
def test_any_key(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_a_producer_configured_as_we_say_agrees(kafka: KafkaBroker) -> None:
    topic = f"partition-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=12, replication_factor=1)])[topic].result(30)
    placed: dict[bytes, int] = {}
    failed: list[object] = []

    def delivered(error: object, message: object) -> None:
        if error is not None:
            failed.append(error)
        else:
            placed[message.key()] = message.partition()  # type: ignore[attr-defined]

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": PARTITIONER})
    keys = [f"crm/contact/{number}".encode() for number in range(200)] + ["crm/contact/é%F0%9F".encode(), b"\xff\x00"]
    for key in keys:
        producer.produce(topic, key=key, value=b"", on_delivery=delivered)
    assert producer.flush(30) == 0
    assert failed == []
    assert placed == {key: partition_of(key, 12) for key in keys}
    assert len(set(placed.values())) == 12
