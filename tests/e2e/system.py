"""The whole system around a test: a broker, a CRM in a database, a worker with its sampler, and the CRM's federated service."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from reconciler.sdk import KafkaSettings, Producer, ProducerSettings
from tests.support.estate import SYSTEM, Estate
from tests.support.ports import free_port
from tests.support.processes import ServerProcess

READY_WITHIN_S = 150.0

_COLUMNS = "id TEXT PRIMARY KEY, name TEXT, email TEXT, phone TEXT, note TEXT, version INTEGER NOT NULL DEFAULT 1"
_FIELDS = ("name", "email", "phone", "note")

_CONTRACT = """\
contract: crm/contact
fields:
  /phone: {drift: correct, normalise: [digits]}
  /email: {drift: correct, confirm: 1}
existence: {missing: correct}
timing: {settle_s: 0.5, sample_every_s: 1}
"""

_TARGETS = """\
crm:
  kind: %s
  %s
  resources:
    contact:
      table: contact
      id: id
      version: version
      fields: {/name: name, /email: email, /phone: phone, /note: note}
"""


class Crm(Protocol):
    """The CRM as its own users see it."""

    def target(self) -> str:
        """The targets file for it."""
        ...

    def execute(self, statement: str) -> None:
        """Runs one statement."""
        ...

    def contacts(self) -> dict[str, dict[str, Any]]:
        """All contacts."""
        ...


class SqliteCrm:
    """A CRM in an SQLite file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.execute(f"CREATE TABLE contact ({_COLUMNS})")

    def target(self) -> str:
        return _TARGETS % ("sqlite", f"path: {self._file}")

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self._file, timeout=10)) as database, database:
            database.execute(statement)

    def contacts(self) -> dict[str, dict[str, Any]]:
        with closing(sqlite3.connect(self._file, timeout=10)) as database:
            rows = database.execute(f"SELECT id, {', '.join(_FIELDS)} FROM contact").fetchall()
        return {row[0]: dict(zip(_FIELDS, row[1:], strict=True)) for row in rows}


class PostgresqlCrm:
    """A CRM in PostgreSQL."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.execute(f"CREATE TABLE contact ({_COLUMNS})")

    def target(self) -> str:
        return _TARGETS % ("postgresql", f"dsn: {self._dsn}")

    def execute(self, statement: str) -> None:
        async def run(database: asyncpg.Connection) -> None:
            await database.execute(statement)

        asyncio.run(self._with(run))

    def contacts(self) -> dict[str, dict[str, Any]]:
        rows = self.fetch(f"SELECT id, {', '.join(_FIELDS)} FROM contact")
        return {row[0]: dict(zip(_FIELDS, row[1:], strict=True)) for row in rows}

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

        async def run(database: asyncpg.Connection) -> Any:
            return await database.fetch(query)

        return [tuple(row) for row in asyncio.run(self._with(run))]

    async def _with(self, run: Callable[[asyncpg.Connection], Any]) -> Any:
        database = await asyncpg.connect(self._dsn)
        try:
            return await run(database)
        finally:
            await database.close()


class System:
    """Starts the processes and tells where they are."""

    def __init__(
        self, estate: Estate, crm: Crm, folder: Path, environment: Mapping[str, str], *, contract: str = ""
    ) -> None:
        """``contract`` is put behind what the contract for contacts says."""
        self.estate = estate
        self.crm = crm
        self._folder = folder
        contracts = folder / "contracts"
        contracts.mkdir()
        (contracts / "contact.yaml").write_text(_CONTRACT + contract)
        (folder / "targets.yaml").write_text(crm.target())
        self.environment = {
            **os.environ,
            "RECONCILER_BOOTSTRAP_SERVERS": estate.bootstrap,
            "RECONCILER_TOPIC_PREFIX": estate.prefix,
            "RECONCILER_PARTITIONS": str(estate.partitions),
            "RECONCILER_APPLICATION_ID": estate.group,
            "RECONCILER_FENCE": estate.fence,
            "RECONCILER_CONTRACTS_DIR": str(contracts),
            "RECONCILER_TARGETS_FILE": str(folder / "targets.yaml"),
            "RECONCILER_PROCESSES": "1",
            "RECONCILER_SESSION_TIMEOUT_S": "6",
            "RECONCILER_HEARTBEAT_INTERVAL_S": "1",
            "RECONCILER_RESTART_MAX_DELAY_S": "0",
            **environment,
        }
        self._started: list[ServerProcess] = []

    def worker(self, name: str = "worker") -> ServerProcess:
        """Starts a worker, and returns when it is ready."""
        return self._start(name, ["worker", "--data-dir", str(self._folder / name)])

    def service(self) -> ServerProcess:
        """Starts the CRM's federated service, and returns when it is ready."""
        return self._start("serve", ["serve", SYSTEM])

    def producer(self) -> Producer:
        """A producer of actions."""
        kafka = KafkaSettings(bootstrap_servers=self.estate.bootstrap, topic_prefix=self.estate.prefix)
        return Producer(ProducerSettings(kafka=kafka))

    def command(self, *arguments: str) -> str:
        """What one of our commands prints."""
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli.main", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """Ends all that was started, the last first."""
        for process in reversed(self._started):
            process.stop()

    def _start(self, name: str, arguments: list[str]) -> ServerProcess:
        port = free_port()
        command = [sys.executable, "-m", "streams.cli.main", *arguments, "--http-port", str(port)]
        process = ServerProcess(
            name, command, log=self._folder / f"{name}-{time.monotonic_ns()}.log", environment=self.environment
        )
        self._started.append(process)
        process.wait_ready(lambda: is_ready(port), deadline_s=READY_WITHIN_S)
        return process


def is_ready(port: int) -> bool:
    """Whether the readiness page of a process says so."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
