"""The services that the other tests rest on are what they claim to be."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import asyncpg
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from tests.support.kafka import KafkaBroker
from tests.support.needs import need_program
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import ServerFailed, ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.registry import SchemaRegistry
from tests.support.waiting import wait_until


def _new_topic(broker: KafkaBroker, **configuration: str) -> str:
    topic = f"services-{uuid.uuid4().hex}"
    # The client must outlive its futures: they fail when it is collected.
    client = AdminClient({"bootstrap.servers": broker.bootstrap})
    client.create_topics([NewTopic(topic, 1, 1, config=configuration)])[topic].result(20)
    return topic


def _produce(broker: KafkaBroker, topic: str, value: bytes) -> None:
    failures: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 20_000})
    producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(25) == 0
    assert failures == []


def _first_value(broker: KafkaBroker, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "services", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(20)
        assert message is not None and message.error() is None
        return message.value()
    finally:
        consumer.close()


def test_kafka_fences_the_older_of_two_transactional_producers(kafka: KafkaBroker) -> None:
    topic = _new_topic(kafka)
    settings = {"bootstrap.servers": kafka.bootstrap, "transactional.id": topic}
    older, newer = Producer(settings), Producer(settings)
    older.init_transactions(20)
    older.begin_transaction()
    newer.init_transactions(20)
    older.produce(topic, b"stale")
    with pytest.raises(KafkaException) as caught:
        older.commit_transaction(20)
    assert caught.value.args[0].code() == KafkaError._FENCED
    older.purge()


def test_kafka_keeps_its_records_through_a_crash_and_its_port_through_a_restart() -> None:
    with KafkaBroker(heap_mb=256) as broker:
        address = broker.bootstrap
        topic = _new_topic(broker)
        _produce(broker, topic, b"kept")
        broker.kill()
        broker.start()
        assert broker.bootstrap == address
        assert _first_value(broker, topic) == b"kept"


def test_kafka_makes_no_topic_by_itself(kafka: KafkaBroker) -> None:
    topic = f"absent-{uuid.uuid4().hex}"
    answer = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(topic, timeout=10).topics[topic]
    assert answer.error is not None and answer.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_registry_refuses_what_is_not_compatible(registry: SchemaRegistry) -> None:
    client = SchemaRegistryClient({"url": registry.url})
    subject = f"services-{uuid.uuid4().hex}-value"
    first = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}'
    other = '{"type": "record", "name": "R", "fields": [{"name": "b", "type": "string"}]}'
    identity = client.register_schema(subject, Schema(first, "AVRO"))
    assert client.get_schema(identity).schema_str is not None
    client.set_compatibility(subject, level="FULL_TRANSITIVE")
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema(subject, Schema(other, "AVRO"))
    assert caught.value.http_status_code == 409


def test_redis_is_real_and_empty(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        assert client.dbsize() == 0
        assert client.info("server")["redis_version"]
        assert client.eval("return redis.call('incr', KEYS[1])", 1, "counter") == 1


def test_redis_comes_back_empty_on_its_port() -> None:
    with RedisServer() as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") is None


async def test_postgresql_databases_are_apart(postgresql: PostgresqlServer) -> None:
    one, other = postgresql.new_database(), postgresql.new_database()
    connection = await asyncpg.connect(one)
    try:
        await connection.execute("create table only_here (id integer)")
    finally:
        await connection.close()
    connection = await asyncpg.connect(other)
    try:
        assert await connection.fetchval("select to_regclass('only_here')") is None
    finally:
        await connection.close()


async def test_postgresql_keeps_its_data_through_a_restart() -> None:
    with PostgresqlServer() as server:
        dsn = server.new_database()
        connection = await asyncpg.connect(dsn)
        await connection.execute("create table kept (id integer)")
        await connection.close()
        server.stop()
        server.start()
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("select count(*) from kept") == 0
        await connection.close()


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("server") / "log"
    server = ServerProcess("failing", ["sh", "-c", "echo the reason; exit 3"], log=log)
    with pytest.raises(ServerFailed, match=r"(?s)ended with code 3.*the reason"):
        server.wait_ready(lambda: False, deadline_s=60)


def test_a_server_that_is_never_ready_is_killed_at_the_deadline(tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("server") / "log"
    server = ServerProcess("stuck", ["sleep", "600"], log=log)
    with pytest.raises(ServerFailed, match="wasn't ready within"):
        server.wait_ready(lambda: False, deadline_s=0.2)
    assert not server.is_running()


def test_a_server_dies_with_the_process_that_started_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_program("setpriv", package="util-linux")
    script = (
        "import os, signal; from pathlib import Path; from tests.support.processes import ServerProcess\n"
        f"log = Path({str(tmp_path_factory.mktemp('orphan') / 'log')!r})\n"
        "server = ServerProcess('orphan', ['sh', '-c', 'echo up; exec sleep 600'], log=log)\n"
        "server.wait_ready(lambda: 'up' in log.read_text(), deadline_s=60)\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    orphan = int(done.stdout)
    wait_until(lambda: not _runs(orphan), deadline_s=60, what="the end of the orphan")


def _runs(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody collects, as in a container without an init, does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
