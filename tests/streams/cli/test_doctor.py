"""`reconciler doctor`: what it says where all is well, and where each thing is missing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli.main import cli
from streams.embedded.broker import EmbeddedBroker
from streams.embedded.redis import EmbeddedRedis
from tests.support.estate import Estate
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port

TARGETS = """\
crm:
  kind: sqlite
  path: crm.sqlite
  resources: {contact: {table: contact, id: id, fields: {/name: name}}}
"""


def findings(expected_exit: int) -> dict[str, tuple[str, str]]:
    done = CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False)
    assert done.exit_code == expected_exit, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["check"]: (each["state"], each["detail"]) for each in found}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a contract and a target, which the settings name."""
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "contact.yaml").write_text("contract: crm/contact\n")
    (tmp_path / "targets.yaml").write_text(TARGETS)
    database = sqlite3.connect(tmp_path / "crm.sqlite")
    database.execute("CREATE TABLE contact (id TEXT PRIMARY KEY, name TEXT)")
    database.close()
    monkeypatch.setenv("RECONCILER_CONTRACTS_DIR", str(tmp_path / "contracts"))
    monkeypatch.setenv("RECONCILER_TARGETS_FILE", str(tmp_path / "targets.yaml"))
    monkeypatch.setenv("RECONCILER_DATA_DIR", str(tmp_path / "data" / "worker"))
    return tmp_path


def on(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", estate.bootstrap)
    monkeypatch.setenv("RECONCILER_TOPIC_PREFIX", estate.prefix)
    monkeypatch.setenv("RECONCILER_PARTITIONS", str(estate.partitions))
    monkeypatch.setenv("RECONCILER_FENCE", estate.fence)


def test_where_all_is_well(
    embedded_broker: EmbeddedBroker, embedded_redis: EmbeddedRedis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(Estate.embedded(embedded_broker), monkeypatch)
    monkeypatch.setenv("RECONCILER_REDIS_URL", embedded_redis.url)
    found = findings(0)
    assert found.pop("schema registry")[0] == "not checked"
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["target crm"][1].startswith("sqlite: it answers")
    assert not (folder / "data").exists()


def test_what_is_missing_is_named_with_the_remedy(
    embedded_broker: EmbeddedBroker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate = Estate.embedded(embedded_broker)
    on(estate, monkeypatch)
    monkeypatch.setenv("RECONCILER_TOPIC_PREFIX", f"{estate.prefix}other.")
    nobody = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RECONCILER_REDIS_URL", f"redis://{nobody}/0")
    monkeypatch.setenv("RECONCILER_REGISTRY_URL", f"http://{nobody}")
    (folder / "contracts" / "contact.yaml").write_text("contract: crm/contact\nunheard_of: 1\n")
    (folder / "targets.yaml").write_text(TARGETS.replace("path: crm.sqlite", "path: nowhere.sqlite"))
    (folder / "data").write_text("a file where a folder should be")
    found = findings(1)
    assert found["contracts"][0] == "wrong"
    assert "contact.yaml:2" in found["contracts"][1]
    assert found["data folder"][0] == "wrong"
    assert found["topics"][0] == "wrong"
    assert "topics create" in found["topics"][1]
    assert found["schema registry"][0] == "wrong"
    assert found["redis"][0] == "wrong"
    assert "RECONCILER_REDIS_URL" in found["redis"][1]
    assert found["target crm"][0] == "wrong"


def test_without_a_broker_the_rest_is_still_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("streams.topics._TIMEOUT_S", 1.0)
    found = findings(1)
    assert found["brokers"][0] == "wrong"
    assert "topics" not in found
    assert found["target crm"][0] == "ok"


def test_topics_with_other_settings_are_seen_on_a_real_broker(
    kafka: KafkaBroker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate = Estate.real(kafka.bootstrap, 3)
    on(estate, monkeypatch)
    assert findings(0)["topics"][0] == "ok"
    monkeypatch.setenv("RECONCILER_PARTITIONS", "5")
    state, detail = findings(1)["topics"]
    assert state == "wrong"
    assert "3 partitions instead of 5" in detail
