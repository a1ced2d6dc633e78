"""`reconciler topics` on a real broker."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from reconciler.values.errors import InputError
from reconciler.wire.topics import TopicNames
from streams.cli.main import cli
from streams.cli.topics import topics
from streams.topics import ClusterError
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.waiting import wait_until

PARTITIONS = 3


class Estate:
    """A prefix of its own on the shared broker."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.names = TopicNames(f"{uuid.uuid4().hex[:8]}.")
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        self._options = ["--bootstrap-servers", broker.bootstrap, "--prefix", self.names.prefix]
        self._options += ["--partitions", str(PARTITIONS), "--system", "crm"]

    def run(self, command: str, *more: str) -> Result:
        return CliRunner().invoke(cli, ["topics", command, *self._options, *more], catch_exceptions=False)

    def partitions_of(self, topic: str) -> int:
        return len(self.admin.list_topics(timeout=15).topics[topic].partitions)

    def config_of(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return {
            name: entry.value for name, entry in self.admin.describe_configs([resource])[resource].result(15).items()
        }

    def set_config(self, topic: str, setting: str, value: str) -> None:
        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result(15)
        wait_until(lambda: self.config_of(topic)[setting] == value, deadline_s=60, what=f"{setting} of {topic}")


@pytest.fixture
def estate(kafka: KafkaBroker) -> Estate:
    return Estate(kafka)


def test_topics_are_made_as_they_must_be(estate: Estate) -> None:
    assert estate.run("create").exit_code == 0
    names = estate.names
    for spec in names.specs(("crm",)):
        assert estate.partitions_of(spec.name) == PARTITIONS
        assert spec.config().items() <= estate.config_of(spec.name).items()
    assert estate.config_of(names.expected)["cleanup.policy"] == "compact"
    assert estate.config_of(names.actions)["retention.ms"] == "-1"
    assert estate.config_of(names.reversal("crm"))["min.insync.replicas"] == "1"
    verified = estate.run("verify")
    assert (verified.exit_code, verified.stdout) == (0, "")
    assert verified.stderr == f"All {len(names.specs(('crm',)))} topics are as they must be.\n"


def test_making_them_again_changes_nothing(estate: Estate) -> None:
    first = estate.run("create", "--json")
    again = estate.run("create", "--json")
    assert (first.exit_code, again.exit_code) == (0, 0)
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert {"topic": estate.names.actions, "created": True} in rows
    assert [json.loads(line) for line in again.stdout.splitlines()] == [{**row, "created": False} for row in rows]


def test_what_is_missing_is_made_beside_what_is_there(estate: Estate) -> None:
    topic = estate.names.alerts
    estate.admin.create_topics([NewTopic(topic, 7, 1)])[topic].result(15)
    assert f"{topic}" in estate.run("create").stdout
    assert estate.partitions_of(topic) == 7
    assert estate.partitions_of(estate.names.actions) == PARTITIONS


def test_nothing_there_is_named_topic_by_topic(estate: Estate) -> None:
    verified = estate.run("verify")
    assert verified.exit_code == 1
    lines = verified.stdout.splitlines()
    assert len(lines) == len(estate.names.specs(("crm",)))
    assert f"{estate.names.actions}: is missing; run `reconciler topics create`" in lines


def test_each_deviation_is_named_in_a_sentence(estate: Estate) -> None:
    names = estate.names
    other = NewTopic(names.timers, 5, 1, config={"retention.ms": str(7 * 86_400_000)})
    estate.admin.create_topics([other])[names.timers].result(15)
    estate.run("create")
    estate.set_config(names.expected, "cleanup.policy", "delete")
    estate.set_config(names.alerts, "retention.ms", "1000")
    estate.set_config(names.actions, "min.insync.replicas", "2")
    estate.set_config(names.dead_letters, "max.message.bytes", "1000")
    estate.set_config(names.drift, "cleanup.policy", "delete,compact")  # the same, in other words
    verified = estate.run("verify")
    assert verified.exit_code == 1
    found = dict(line.split(": ", 1) for line in verified.stdout.splitlines())
    assert found.keys() == {names.timers, names.expected, names.alerts, names.actions, names.dead_letters}
    assert found[names.timers].startswith(
        f"has 5 partitions instead of {PARTITIONS}; all topics must have the same number"
    )
    assert found[names.expected] == (
        "has cleanup.policy=delete instead of compact; set it with `kafka-configs.sh --alter --topic "
        f"{names.expected} --add-config cleanup.policy=[compact]`"
    )
    assert found[names.alerts].startswith(f"has retention.ms=1000 instead of {30 * 86_400_000}; set it")
    assert found[names.actions].startswith("has min.insync.replicas=2 instead of 1; set it")
    assert found[names.dead_letters].startswith("has max.message.bytes=1000 instead of 2097152; set it")
    rows = [json.loads(line) for line in estate.run("verify", "--json").stdout.splitlines()]
    assert {(row["topic"], row["setting"]) for row in rows} >= {
        (names.expected, "cleanup.policy"),
        (names.timers, "partitions"),
    }


def test_too_few_replicas_are_a_deviation_and_too_many_can_not_be_made(estate: Estate) -> None:
    estate.run("create")
    verified = estate.run("verify", "--replication-factor", "3")
    assert verified.exit_code == 1
    assert f"{estate.names.actions}: has 1 replicas instead of 3; reassign its partitions" in verified.stdout
    assert f"{estate.names.actions}: has min.insync.replicas=1 instead of 2; set it" in verified.stdout
    with pytest.raises(ClusterError, match=r"the topic \S+ can't be made: .*[Rr]eplication"):
        estate.run("create", "--replication-factor", "3", "--system", "billing")


def test_a_cluster_that_is_not_there_is_an_error_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.topics._TIMEOUT_S", 1.0)
    servers = f"127.0.0.1:{free_port()}"
    for command in ("create", "verify"):
        with pytest.raises(
            ClusterError, match=f"no broker answers at {servers} .*; check RECONCILER_BOOTSTRAP_SERVERS"
        ):
            CliRunner().invoke(topics, [command, "--bootstrap-servers", servers], catch_exceptions=False)


def test_the_list_needs_no_broker() -> None:
    listed = CliRunner().invoke(topics, ["list", "--system", "crm", "--prefix", "p."], catch_exceptions=False)
    assert "p.reversal.crm" in listed.stdout
    assert listed.stdout.splitlines()[0].split() == ["topic", "record", "partitions", "cleanup", "kept"]
    rows = CliRunner().invoke(topics, ["list", "--json"], catch_exceptions=False).stdout.splitlines()
    assert json.loads(rows[0]) == {
        "topic": "workflow.actions",
        "record": "Action",
        "partitions": 12,
        "config": {"cleanup.policy": "delete", "retention.ms": "-1"},
    }


def test_the_targets_file_names_systems(tmp_path: Path) -> None:
    targets = tmp_path / "targets.yaml"
    targets.write_text("crm:\n  kind: memory\nbilling:\n  kind: memory\n")
    listed = CliRunner().invoke(topics, ["list", "--targets", str(targets), "--system", "mail"], catch_exceptions=False)
    reversal = [line.split()[0] for line in listed.stdout.splitlines() if line.startswith("reversal.")]
    assert reversal == ["reversal.outcomes", "reversal.billing", "reversal.crm", "reversal.mail"]
    with pytest.raises(InputError, match="can't be read"):
        CliRunner().invoke(topics, ["list", "--targets", str(tmp_path / "none.yaml")], catch_exceptions=False)
