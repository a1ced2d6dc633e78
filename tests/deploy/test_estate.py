"""What docker-compose.yml starts, started as processes: the same commands in the same order with the same settings, on a real
Kafka, schema registry, Redis and PostgreSQL. Only the addresses differ, and how long the contracts wait."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from ruamel.yaml import YAML

from reconciler.contracts.loader import SCENARIO_SUFFIX
from reconciler.sdk import KafkaSettings, Producer, ProducerSettings
from reconciler.wire.codec import Codec
from tests.deploy.crm import DEPLOY, make_crm
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.registry import SchemaRegistry
from tests.support.waiting import wait_until_async

# Two servers on Java and four processes of ours come up within the set-up of the first test.
pytestmark = pytest.mark.timeout(600)

_PROGRAM = Path(sys.executable).with_name("reconciler")
_READY_WITHIN_S = 150.0
_CORRECTED_WITHIN_S = 120.0


class Estate:
    """The services of docker-compose.yml that are ours, as processes."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self._folder = folder
        self._running: list[ServerProcess] = []
        compose: dict[str, Any] = YAML(typ="safe", pure=True).load(DEPLOY.parent / "docker-compose.yml")
        self._services = compose["services"]

    def run_job(self, service: str) -> None:
        """Runs a one-off service to its end, which must be a good one."""
        done = subprocess.run(
            [_PROGRAM, *self._services[service]["command"]],
            env=self._environment(service, 0),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *services: str) -> None:
        """Starts services, and returns when all of them are ready."""
        ports = {service: free_port() for service in services}
        started = [(self._started(service, port), port) for service, port in ports.items()]
        for process, port in started:
            process.wait_ready(partial(_answers, f"http://127.0.0.1:{port}/ready"), deadline_s=_READY_WITHIN_S)

    def stop(self) -> None:
        """Ends what was started, the last first."""
        for process in reversed(self._running):
            process.stop()

    def _started(self, service: str, port: int) -> ServerProcess:
        command = [str(_PROGRAM), *self._services[service]["command"]]
        environment = self._environment(service, port)
        process = ServerProcess(service, command, log=self._folder / f"{service}.log", environment=environment)
        self._running.append(process)
        return process

    def _environment(self, service: str, port: int) -> dict[str, str]:
        declared: dict[str, str] = self._services[service]["environment"]
        assert set(self.addresses) <= set(declared)
        own = self._folder / service
        own.mkdir()
        return {
            **declared,
            **self.addresses,
            "RECONCILER_DATA_DIR": str(own),
            "RECONCILER_HTTP_PORT": str(port),
        }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """All of it, ready, on servers of its own: topics and subjects have the names that they have in production."""
    folder = tmp_path_factory.mktemp("estate")
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaBroker())
        registry = stack.enter_context(SchemaRegistry())
        postgresql = stack.enter_context(PostgresqlServer())
        redis = stack.enter_context(RedisServer())
        addresses = {
            "RECONCILER_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "RECONCILER_REGISTRY_URL": registry.url,
            "RECONCILER_REDIS_URL": redis.url,
            "RECONCILER_CONTRACTS_DIR": str(_impatient_contracts(folder)),
            "RECONCILER_TARGETS_FILE": str(DEPLOY / "targets.yaml"),
            "CRM_DSN": make_crm(postgresql),
        }
        estate = Estate(folder, addresses)
        stack.callback(estate.stop)
        estate.run_job("schemas-init")
        estate.run_job("topics-init")
        estate.start("worker", "serve-crm")
        yield estate


def _impatient_contracts(folder: Path) -> Path:
    """The contracts of deploy/, but they neither let things settle nor sample seldom."""
    contracts = folder / "contracts"
    shutil.copytree(DEPLOY / "contracts", contracts)
    for file in contracts.iterdir():
        if file.name.endswith(SCENARIO_SUFFIX):
            continue
        text, replaced = re.subn(
            r"settle_s: \d+, sample_every_s: \d+", "settle_s: 0, sample_every_s: 1", file.read_text()
        )
        assert replaced == 1, file
        file.write_text(text)
    return contracts


async def test_a_field_changed_behind_a_workflow_is_put_back_and_no_other(estate: Estate) -> None:
    connection = await asyncpg.connect(estate.addresses["CRM_DSN"])
    try:
        await connection.execute("UPDATE contact SET phone = '+49 30 77' WHERE id = 'c-1'")
        _tell_that_the_workflow_wrote(estate, "/phone", "+49 30 77")
        await connection.execute("UPDATE contact SET phone = '0', name = 'Ana L.' WHERE id = 'c-1'")

        async def corrected() -> bool:
            return bool(await connection.fetchval("SELECT phone FROM contact WHERE id = 'c-1'") == "+49 30 77")

        await wait_until_async(corrected, deadline_s=_CORRECTED_WITHIN_S, what="the correction of the phone")
        row = await connection.fetchrow("SELECT name, modified_by FROM contact WHERE id = 'c-1'")
        assert dict(row or {}) == {"name": "Ana L.", "modified_by": "reconciler"}
    finally:
        await connection.close()


def _tell_that_the_workflow_wrote(estate: Estate, path: str, value: str) -> None:
    settings = ProducerSettings(
        kafka=KafkaSettings(bootstrap_servers=estate.addresses["RECONCILER_BOOTSTRAP_SERVERS"]),
        codec=Codec.with_registry(estate.addresses["RECONCILER_REGISTRY_URL"]),
    )
    with (
        Producer(settings) as producer,
        producer.action("crm/contact/c-1", run_id="run-1", step_id="update-contact") as action,
    ):
        action.set(path, value)
