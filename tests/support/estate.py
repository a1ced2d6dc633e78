"""What the stream's tests need around a worker: topics, actions with a pure fold of them, readers, worker processes."""

from __future__ import annotations

import os
import random
import sys
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from reconciler.json_form import action_from_json
from reconciler.records import Action, Command, Record
from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.embedded.broker import PARTITIONS as EMBEDDED_PARTITIONS
from streams.embedded.broker import EmbeddedBroker
from streams.settings import Settings, load_settings
from streams.store.envelope import MARK_SYSTEM
from streams.store.port import Mark
from tests.support.counting import COMMAND_EVERY, Count
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until

SYSTEM = "crm"
_ADMIN_TIMEOUT_S = 60


class Found(NamedTuple):
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int
    raw_headers: tuple[tuple[str, bytes], ...] = ()
    """As they stand, also where a name has several values."""


class Estate:
    """Topics under a prefix of their own on some broker, and clients for them."""

    def __init__(self, bootstrap: str, partitions: int, *, fence: str) -> None:
        self.bootstrap = bootstrap
        self.partitions = partitions
        self.fence = fence
        self.prefix = f"t{uuid.uuid4().hex[:8]}."
        self.topics = TopicNames(self.prefix)
        self.codec = Codec.packaged()
        self.group = f"{self.prefix}workers"
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "acks": "all", "linger.ms": 5}
        )
        self._errors: list[KafkaError] = []

    @classmethod
    def embedded(cls, broker: EmbeddedBroker, systems: tuple[str, ...] = (SYSTEM,)) -> Estate:
        """On the embedded broker."""
        estate = cls(broker.bootstrap, EMBEDDED_PARTITIONS, fence="none")
        broker.create_topics([spec.name for spec in estate.topics.specs(systems)])
        return estate

    @classmethod
    def real(
        cls,
        bootstrap: str,
        partitions: int = 6,
        *,
        changelogs: Mapping[str, str] | None = None,
        dead_letters: Mapping[str, str] | None = None,
        systems: tuple[str, ...] = (SYSTEM,),
    ) -> Estate:
        """On a real Kafka, with these settings on top for the changelog topics and for the dead letters'."""
        estate = cls(bootstrap, partitions, fence="transactional")
        admin = AdminClient({"bootstrap.servers": bootstrap})
        new = []
        for spec in estate.topics.specs(systems):
            config = spec.config()
            if spec.cleanup == ("compact",):
                config |= changelogs or {}
            elif spec.name == estate.topics.dead_letters:
                config |= dead_letters or {}
            new.append(NewTopic(spec.name, partitions, 1, config=config))
        for future in admin.create_topics(new).values():
            future.result(_ADMIN_TIMEOUT_S)
        return estate

    def settings(self, folder: Path, **fields: Any) -> Settings:
        """The settings of a worker on it."""
        given = {
            "bootstrap_servers": self.bootstrap,
            "topic_prefix": self.prefix,
            "partitions": self.partitions,
            "application_id": self.group,
            "fence": self.fence,
            "data_dir": folder,
        }
        return load_settings(**given | fields)

    # -- producing

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = -1,
        timestamp_ms: int = 0,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """Hands a record over; `flush` makes sure of it."""

        def report(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._errors.append(error)

        while True:
            try:
                self._producer.produce(topic, value, key, partition, report, None, timestamp_ms, list(headers))
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)

    def send_record(self, topic: str, record: Record, **options: Any) -> None:
        """Encodes and sends a record under its resource."""
        self.send(topic, record.resource.encode(), self.codec.encode(topic, record), **options)  # type: ignore[attr-defined]

    def flush(self) -> None:
        """All that was sent is there."""
        left = self._producer.flush(60)
        assert not left and not self._errors, (left, self._errors[:3])

    # -- reading

    def read(self, topic: str, *, committed: bool = True) -> list[Found]:
        """Everything in a topic, by partition and offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.prefix}reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "fetch.wait.max.ms": 20,
            }
        )
        found: list[Found] = []
        left = set(range(self.partitions))
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
            while left:
                for message in consumer.consume(10_000, 0.2):
                    error = message.error()
                    if error is None:
                        found.append(_found(message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition() or 0)
        finally:
            consumer.close()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def heads(self) -> dict[str, Count]:
        """The table as its changelog has it: the last value of each key."""
        heads: dict[str, Count] = {}
        for found in self.read(self.topics.expected):
            record = self.codec.decode(found.value)
            assert isinstance(record, ExpectedHead)
            assert found.key == record.resource.encode()
            heads[record.resource] = Count(**orjson.loads(record.state))
        return heads

    def marks(self) -> dict[int, list[Mark]]:
        """The marks of each partition, as they were written."""
        marks: dict[int, list[Mark]] = {partition: [] for partition in range(self.partitions)}
        for found in self.read(self.topics.history):
            if found.key is not None and found.key.startswith(MARK_SYSTEM.encode()):
                record = self.codec.decode(found.value)
                assert isinstance(record, HistoryEntry)
                marks[found.partition].append(msgspec.json.decode(record.entry, type=Mark))
        return marks

    def committed(self) -> dict[int, int]:
        """What the group has committed of the actions."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        try:
            places = [TopicPartition(self.topics.actions, partition) for partition in range(self.partitions)]
            return {place.partition: max(place.offset, 0) for place in consumer.committed(places, timeout=30)}
        finally:
            consumer.close()

    def command_ids(self) -> list[str]:
        """The commands of `SYSTEM`, as often as they are there."""
        ids = []
        for found in self.read(self.topics.reversal(SYSTEM)):
            record = self.codec.decode(found.value)
            assert isinstance(record, Command)
            ids.append(record.command_id)
        return ids

    def history_keys(self) -> set[bytes]:
        """The keys of the history entries that stand."""
        standing: dict[bytes, bool] = {}
        for found in self.read(self.topics.history):
            assert found.key is not None
            standing[found.key] = found.value is not None
        return {key for key, stands in standing.items() if stands and not key.startswith(MARK_SYSTEM.encode())}

    def lag(self) -> int:
        """Records of all input topics that the group hasn't committed."""
        names = self.topics
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.group, "isolation.level": "read_committed"}
        )
        try:
            topics = (
                names.actions,
                names.observations,
                names.outcomes,
                names.undo_steps,
                names.decisions,
                names.timers,
            )
            places = [TopicPartition(topic, partition) for topic in topics for partition in range(self.partitions)]
            committed = consumer.committed(places, timeout=30)
            return sum(
                consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=30)[1]
                - max(place.offset, 0)
                for place in committed
            )
        finally:
            consumer.close()

    def drained(self, deadline_s: float) -> None:
        """Returns when the group has committed everything."""
        wait_until(lambda: self.lag() == 0, deadline_s=deadline_s, what="the workers commit everything")


def _found(message: Message) -> Found:
    return Found(
        str(message.topic()),
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        _headers(message),
        message.timestamp()[1],
        tuple(cast("list[tuple[str, bytes]]", message.headers() or [])),
    )


def _headers(message: Message) -> dict[str, bytes]:
    pairs: Any = message.headers() or []
    return dict(pairs)


# -- actions


def action(resource: str, action_id: str, value: int = 1, **fields: Any) -> Action:
    """An action of the counting machine."""
    data = {
        "action_id": action_id,
        "stage": "succeeded",
        "run_id": "run",
        "step_id": "count",
        "occurred_at": "2026-05-03T10:00:00Z",
        "resource": resource,
        "operation": "update",
        "set": {"/v": value},
    }
    return action_from_json(data | fields)


def produce_actions(estate: Estate, number: int, *, keys: int, seed: int = 1, first: int = 0) -> None:
    """Random actions over so many resources."""
    rng = random.Random(seed + first)
    for index in range(first, first + number):
        resource = f"{SYSTEM}/contact/{rng.randrange(keys)}"
        estate.send_record(estate.topics.actions, action(resource, f"a{index}", rng.randrange(1000)))
    estate.flush()


def folded(estate: Estate) -> tuple[dict[str, tuple[int, int, str]], dict[str, int]]:
    """A pure fold of the log of actions: (actions, total, last) by resource, and the commands that it must have made."""
    counts: dict[str, tuple[int, int, str]] = {}
    commands: dict[str, int] = {}
    for found in estate.read(estate.topics.actions):
        record = estate.codec.decode(found.value)
        assert isinstance(record, Action)
        number, total, _ = counts.get(record.resource, (0, 0, ""))
        value = record.set["/v"]
        assert isinstance(value, int)
        number, total = number + 1, total + value
        counts[record.resource] = (number, total, record.action_id)
        if number % COMMAND_EVERY == 0:
            commands[f"{record.resource}:{number}:{record.action_id}"] = total
    return counts, commands


def shown(heads: Mapping[str, Count]) -> dict[str, tuple[int, int, str]]:
    """Heads, as `folded` gives them."""
    return {resource: (count.actions, count.total, count.last) for resource, count in heads.items()}


def assert_equals_fold(estate: Estate) -> None:
    """The table is the fold of the log, and the commands are those of the fold, each once."""
    counts, commands = folded(estate)
    heads = shown(estate.heads())
    wrong = {key: (heads.get(key), count) for key, count in counts.items() if heads.get(key) != count}
    assert not wrong, f"{len(wrong)} of {len(counts)} heads differ, such as {dict(list(wrong.items())[:3])}"
    assert heads.keys() == counts.keys()
    sent = estate.command_ids()
    assert len(sent) == len(set(sent)), f"{len(sent) - len(set(sent))} commands were sent twice"
    assert set(sent) == set(commands)
    assert len(estate.history_keys()) == sum(count[0] for count in counts.values())


# -- processes


class WorkerProcess:
    """A worker with the counting machine in a process of its own."""

    def __init__(self, estate: Estate, folder: Path, **environment: str) -> None:
        self.data_dir = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "RECONCILER_BOOTSTRAP_SERVERS": estate.bootstrap,
            "RECONCILER_TOPIC_PREFIX": estate.prefix,
            "RECONCILER_PARTITIONS": str(estate.partitions),
            "RECONCILER_APPLICATION_ID": estate.group,
            "RECONCILER_FENCE": estate.fence,
            # Behind the fence it is the engine alone that must see to it that nothing is folded twice.
            "COUNTING_MACHINE": "trusting" if estate.fence == "transactional" else "",
            "RECONCILER_DATA_DIR": str(folder),
            "RECONCILER_PROCESSES": "1",
            "RECONCILER_HTTP_PORT": "0",
            "RECONCILER_SESSION_TIMEOUT_S": "6",
            "RECONCILER_HEARTBEAT_INTERVAL_S": "1",
            "RECONCILER_COMMIT_INTERVAL_S": "0.2",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **environment,
        }
        self._process: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None
        return self._process

    def start(self, **environment: str) -> WorkerProcess:
        """Starts the process; see `wait_ready`."""
        for name in ("port", "paused", "recovering"):
            (self.data_dir / name).unlink(missing_ok=True)
        self._process = ServerProcess(
            "worker",
            [sys.executable, "-m", "tests.support.counting_worker"],
            log=self.data_dir / "worker.log",
            environment=self._environment | environment,
        )
        return self

    def wait_ready(self, deadline_s: float = 120) -> WorkerProcess:
        """Returns when /ready says so."""
        self.process.wait_ready(self.is_ready, deadline_s=deadline_s)
        return self

    def is_ready(self) -> bool:
        try:
            return bool(orjson.loads(self.get("/ready"))["ready"])
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> bytes:
        """A page of the health server."""
        port = (self.data_dir / "port").read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
            body: bytes = response.read()
            return body

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric."""
        total = 0.0
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith((name + " ", name + "{")):
                total += float(line.rpartition(" ")[2])
        return total

    def supervise(self) -> None:
        """Starts it again if it has ended by itself, as a supervisor would."""
        if not self.process.is_running():
            self.start()

    def metric_by_process(self, name: str) -> dict[str, float]:
        """The sum of all samples of a metric, by the process that they are of."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                if sample.name == name:
                    process = sample.labels["process"]
                    found[process] = found.get(process, 0.0) + sample.value
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.stop(deadline_s=60)
        code: int = self.process._process.returncode
        return code

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()

    def has_marker(self, name: str) -> bool:
        """Whether the process has left this file: `paused`, `recovering`."""
        return (self.data_dir / name).exists()
