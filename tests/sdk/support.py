"""What the tests of the SDK share: a broker that can fall silent, and readers of topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from reconciler.records import Action, Change, Command, Outcome, Record
from reconciler.sdk.signing import SIGNATURE_HEADER, Signer
from reconciler.wire.codec import Codec
from tests.support.ports import free_port
from tests.support.processes import ServerProcess

CODEC = Codec.packaged()
_READ_WITHIN_S = 60.0

R = TypeVar("R", bound=Record)


def unique(name: str) -> str:
    """A prefix or group of this test's own."""
    return f"{name}-{uuid.uuid4().hex[:8]}."


class SilentBroker:
    """An embedded broker in a process of its own, which can be stopped in its tracks and continued."""

    def __init__(self) -> None:
        program = (
            "from streams.embedded.broker import EmbeddedBroker\nimport sys\n"
            "with EmbeddedBroker() as broker:\n    print(broker.bootstrap, flush=True)\n    sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.bootstrap = self._process.stdout.readline().strip()

    def fall_silent(self) -> None:
        """SIGSTOP: connections stay open, nothing answers. Returns when every thread has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def speak(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> SilentBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def read_raw(bootstrap: str, topic: str, *, until: Callable[[list[KafkaMessage]], bool]) -> list[KafkaMessage]:
    """The records of a topic, in the order of each partition, read until a condition holds. Raises TimeoutError."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages: list[KafkaMessage] = []
        end = time.monotonic() + _READ_WITHIN_S
        while not until(messages):
            if time.monotonic() > end:
                raise TimeoutError(f"{topic} holds {len(messages)} records, which is not what was waited for")
            messages += [message for message in consumer.consume(1_000, 0.1) if message.error() is None]
        return messages
    finally:
        consumer.close()


def read_records(bootstrap: str, topic: str, kind: type[R], count: int) -> list[R]:
    """The first records of a topic, decoded, each partition in its order."""
    messages = read_raw(bootstrap, topic, until=lambda messages: len(messages) >= count)
    records = [CODEC.decode(message.value()) for message in messages]
    assert all(isinstance(record, kind) for record in records)
    return records  # type: ignore[return-value]  # asserted


def read_actions(bootstrap: str, prefix: str, count: int) -> list[Action]:
    """The first actions of a ledger."""
    return read_records(bootstrap, f"{prefix}workflow.actions", Action, count)


def read_outcomes(bootstrap: str, prefix: str, count: int) -> list[Outcome]:
    """The first outcomes."""
    return read_records(bootstrap, f"{prefix}reversal.outcomes", Outcome, count)


@contextmanager
def in_thread(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[threading.Thread]:
    """Runs something beside the test, and ends it; what it raises is raised here."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 — raised in the test's thread
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop()
        thread.join(60)
        assert not thread.is_alive(), "it did not end"
    if raised:
        raise raised[0]


class Commands:
    """Sends commands to one system's topic, as the reconciler does."""

    def __init__(self, bootstrap: str, prefix: str, system: str = "crm") -> None:
        self.topic = f"{prefix}reversal.{system}"
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 0})

    def send(self, *commands: Command, signer: Signer | None = None) -> None:
        """Sends commands, signed if there is a signer."""
        for command in commands:
            value = CODEC.encode(self.topic, command)
            headers = {} if signer is None else {SIGNATURE_HEADER: signer.sign(value).encode()}
            self.send_raw(command.resource.encode(), value, headers)

    def send_raw(self, key: bytes | None, value: bytes | None, headers: dict[str, bytes] | None = None) -> None:
        """Sends any bytes."""
        pairs: list[tuple[str, str | bytes | None]] = list((headers or {}).items())
        self._producer.produce(self.topic, value, key, headers=pairs)
        assert self._producer.flush(30) == 0


def patch(number: int, resource: str = "crm/contact/42", **changed: object) -> Command:
    """The n-th command of a test: sets /n to the number."""
    given: dict[str, object] = {
        "command_id": f"c{number}",
        "resource": resource,
        "action": "patch",
        "changes": [Change(path="/n", op="set", value=number, expect=number - 1)],
    }
    return Command(**(given | changed))  # type: ignore[arg-type]


class Served:
    """A `reconciler serve` process."""

    def __init__(
        self,
        system: str,
        targets: Path,
        bootstrap: str,
        prefix: str,
        folder: Path,
        *,
        wait: bool = True,
        **environment: str,
    ) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "streams.cli.main", "serve", system, "--targets", str(targets)]
        self._process = ServerProcess(
            f"serve {system}",
            [*command, "--bootstrap-servers", bootstrap, "--http-port", str(port)],
            log=folder / f"serve-{port}.log",
            environment={
                "RECONCILER_TOPIC_PREFIX": prefix,
                "RECONCILER_SESSION_TIMEOUT_S": "6",
                "RECONCILER_HEARTBEAT_INTERVAL_S": "1",
                "RECONCILER_COMMIT_INTERVAL_S": "0.2",
                **environment,
            },
        )
        if wait:
            self._process.wait_ready(lambda: self.why() == "", deadline_s=150)

    def why(self) -> str:
        """Why it isn't ready, empty where it is."""
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=2):
                return ""
        except urllib.error.HTTPError as error:
            answer: str = json.load(error)["why"]
            return answer
        except (urllib.error.URLError, OSError) as error:
            return f"no answer: {error}"

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def terminate(self) -> int | None:
        """SIGTERM; gives the exit code."""
        self._process.stop()
        return self._process.exit_code

    def log(self) -> str:
        return self._process.log_tail()

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_running():
            self._process.kill()
