"""A real Apache Kafka: one KRaft node (broker and controller) from Maven's jars, in a temp folder on loopback ports."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support import maven
from tests.support.needs import need_java
from tests.support.ports import free_port
from tests.support.processes import Server, ServerFailed, ServerProcess

_READY_WITHIN_S = 150.0
_METADATA_TIMEOUT_S = 1.0

# Small where the defaults are made for clusters: internal topics of one replica and few partitions (each costs files and
# time at the first use), no wait before a first rebalance, sessions short enough for a test to see one end, and a
# broker session that doesn't keep a killed broker out for the nine seconds of the default.
_CONFIGURATION = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=1000
log.retention.check.interval.ms=1000
num.network.threads=2
num.io.threads=4
{extra}
"""

_LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="console"><PatternLayout pattern="%d %p %c: %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


class KafkaBroker(Server):
    """One broker whose data outlives `stop` and `kill`: `start` brings it back on the same port with the same records.

    `configuration` goes on top of the settings above, with Kafka's own names. Skips the test where Java or Maven is missing.
    """

    def __init__(self, *, heap_mb: int = 512, configuration: dict[str, str] | None = None) -> None:
        self._java = need_java()
        self._jars = maven.fetch("kafka")
        self._heap_mb = heap_mb
        self._configuration = dict(configuration or {})
        self._folder = Path(tempfile.mkdtemp(prefix="reconciler-kafka-"))
        self._port = free_port()
        self._process: ServerProcess | None = None
        self._format()

    @property
    def bootstrap(self) -> str:
        """The address for `bootstrap.servers`."""
        return f"127.0.0.1:{self._port}"

    @property
    def process(self) -> ServerProcess:
        """The running server, for tests that pause it. Raises ServerFailed when it isn't started."""
        if self._process is None:
            raise ServerFailed("the Kafka broker isn't started")
        return self._process

    def start(self) -> None:
        """Starts the broker and returns when it answers metadata requests."""
        command = [*self._java_command(), "kafka.Kafka", str(self._properties)]
        self._process = ServerProcess("kafka", command, log=self._folder / "server.log")
        self._process.wait_ready(self._answers, deadline_s=_READY_WITHIN_S)

    def stop(self) -> None:
        """Controlled shutdown (SIGTERM)."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: what a crash of the broker looks like."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        """Ends the broker and takes its data away."""
        # Nothing is read from the data again: an orderly shutdown would only cost time.
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    def _java_command(self) -> list[str]:
        return [
            str(self._java),
            f"-Xms{self._heap_mb // 2}m",
            f"-Xmx{self._heap_mb}m",
            # Both are for a quick start on few cores.
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}",
            "-cp",
            f"{self._jars}/*",
        ]

    def _format(self) -> None:
        extra = "\n".join(f"{name}={value}" for name, value in self._configuration.items())
        text = _CONFIGURATION.format(port=self._port, controller_port=free_port(), folder=self._folder, extra=extra)
        self._properties.write_text(text)
        (self._folder / "log4j2.xml").write_text(_LOGGING)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--standalone", "-c"]
        done = subprocess.run(
            [*self._java_command(), *arguments, str(self._properties)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_READY_WITHIN_S,
        )
        if done.returncode != 0:
            raise ServerFailed(f"Kafka could not format its storage:\n{done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        if not _accepts(self._port):
            return False
        try:
            cluster = AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(timeout=_METADATA_TIMEOUT_S)
        except KafkaException:
            return False
        return len(cluster.brokers) == 1


def _accepts(port: int) -> bool:
    """Whether somebody listens: asked first, so that librdkafka doesn't log each refused connection."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
