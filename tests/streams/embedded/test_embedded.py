"""The servers inside the process: real clients reach them over TCP, and nothing is left of them afterwards."""

from __future__ import annotations

import socket
import uuid
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
from confluent_kafka import Consumer, Producer

from streams.embedded.broker import PARTITIONS, EmbeddedBroker
from streams.embedded.redis import EmbeddedRedis


def _accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_a_group_reads_what_was_produced(embedded_broker: EmbeddedBroker) -> None:
    topic = f"embedded-{uuid.uuid4().hex}"
    embedded_broker.create_topics([topic])
    producer = Producer({"bootstrap.servers": embedded_broker.bootstrap})
    for number in range(100):
        producer.produce(topic, str(number).encode(), key=str(number % 7).encode())
    assert producer.flush(20) == 0
    consumer = Consumer(
        {"bootstrap.servers": embedded_broker.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    values: set[int] = set()
    while len(values) < 100:
        message = consumer.poll(20)
        assert message is not None, f"only {len(values)} of 100 records arrived"
        assert message.error() is None
        values.add(int(message.value() or b""))
    consumer.close()
    assert values == set(range(100))


def test_topics_have_the_number_of_partitions_that_is_promised(embedded_broker: EmbeddedBroker) -> None:
    topic = f"embedded-{uuid.uuid4().hex}"
    embedded_broker.create_topics([topic])
    topics = Producer({"bootstrap.servers": embedded_broker.bootstrap}).list_topics(topic, timeout=10).topics
    assert len(topics[topic].partitions) == PARTITIONS


def test_the_broker_ends_with_its_context() -> None:
    with EmbeddedBroker() as broker:
        host, port = broker.bootstrap.split(":")
        assert _accepts(host, int(port))
    assert not _accepts(host, int(port))
    with pytest.raises(RuntimeError, match="isn't started"):
        _ = broker.bootstrap


def test_two_brokers_know_nothing_of_each_other() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        one.create_topics(["only-here"])
        assert "only-here" not in Producer({"bootstrap.servers": other.bootstrap}).list_topics(timeout=10).topics


def test_redis_runs_scripts_and_transactions(embedded_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(embedded_redis.url, decode_responses=True) as client:
        client.hset("hash", mapping={"a": "1"})
        assert client.hgetall("hash") == {"a": "1"}
        assert client.eval("return redis.call('hget', KEYS[1], ARGV[1])", 1, "hash", "a") == "1"
        with client.pipeline(transaction=True) as pipeline:
            pipeline.watch("hash")
            client.hset("hash", "a", "2")
            pipeline.multi()
            pipeline.hset("hash", "a", "3")
            with pytest.raises(redis.WatchError):
                pipeline.execute()
        assert client.hget("hash", "a") == "2"


async def test_redis_expires_and_publishes(embedded_redis: EmbeddedRedis) -> None:
    client = redis.asyncio.Redis.from_url(embedded_redis.url, decode_responses=True)
    async with client, client.pubsub() as subscription:
        assert await client.set("lease", "mine", px=60_000, nx=True) is True
        assert await client.set("lease", "theirs", px=60_000, nx=True) is None
        assert 0 < await client.pttl("lease") <= 60_000
        await subscription.subscribe("news")
        assert (await subscription.get_message(timeout=10))["type"] == "subscribe"
        await client.publish("news", "hello")
        message = await subscription.get_message(ignore_subscribe_messages=True, timeout=10)
        assert message is not None and message["data"] == "hello"


def test_redis_ends_though_a_client_is_connected() -> None:
    with EmbeddedRedis() as server:
        port = urlsplit(server.url).port
        assert port is not None
        client = redis.Redis.from_url(server.url)
        assert client.ping()
    assert not _accepts("127.0.0.1", port)
    client.close()
