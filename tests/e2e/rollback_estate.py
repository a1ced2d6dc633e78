"""What a rollback goes through in a test: some systems with their services, a worker, a coordinator, and the command line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from reconciler.json_form import complete_action
from reconciler.records import Action, RollbackEvent
from tests.e2e.system import READY_WITHIN_S, is_ready
from tests.support.estate import Estate
from tests.support.ports import free_port
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until

_TARGET = """\
{system}:
  kind: sqlite
  path: {path}
  resources:
    item:
      table: item
      id: id
      version: version
      fields: {{/name: name, /phone: phone, /note: note}}
"""
CONTRACT = """\
contract: "*"
timing: {settle_s: 0.3, sample_every_s: 60}
retry: {attempts: 5, first_s: 1, factor: 2, cap_s: 5}
"""
FIELDS = ("name", "phone", "note")


class System:
    """A target system with a table of items, as its own users see it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.file = folder / f"{name}.sqlite"
        columns = "id TEXT PRIMARY KEY, name TEXT, phone TEXT, note TEXT, version INTEGER NOT NULL DEFAULT 1"
        with closing(sqlite3.connect(self.file)) as database, database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(f"CREATE TABLE item ({columns})")

    def execute(self, statement: str, rows: Iterable[Sequence[Any]] = ((),)) -> None:
        """Runs a statement for every row of arguments."""
        with closing(sqlite3.connect(self.file, timeout=30)) as database, database:
            database.executemany(statement, rows)

    def items(self) -> dict[str, dict[str, Any]]:
        """All items, without fields that hold nothing."""
        with closing(sqlite3.connect(self.file, timeout=30)) as database:
            rows = database.execute(f"SELECT id, {', '.join(FIELDS)} FROM item").fetchall()
        return {
            row[0]: {name: value for name, value in zip(FIELDS, row[1:], strict=True) if value is not None}
            for row in rows
        }


class RollbackEstate:
    """Systems, processes and topics of one test."""

    def __init__(
        self,
        estate: Estate,
        folder: Path,
        systems: Sequence[str],
        environment: Mapping[str, str],
        contract: str = CONTRACT,
    ) -> None:
        self.estate = estate
        self.folder = folder
        self.systems = {name: System(name, folder) for name in systems}
        (folder / "contracts").mkdir()
        (folder / "contracts" / "all.yaml").write_text(contract)
        targets = [_TARGET.format(system=each.name, path=each.file) for each in self.systems.values()]
        (folder / "targets.yaml").write_text("".join(targets))
        self.environment = {
            "RECONCILER_BOOTSTRAP_SERVERS": estate.bootstrap,
            "RECONCILER_TOPIC_PREFIX": estate.prefix,
            "RECONCILER_PARTITIONS": str(estate.partitions),
            "RECONCILER_APPLICATION_ID": estate.group,
            "RECONCILER_FENCE": estate.fence,
            "RECONCILER_CONTRACTS_DIR": str(folder / "contracts"),
            "RECONCILER_TARGETS_FILE": str(folder / "targets.yaml"),
            "RECONCILER_DATA_DIR": str(folder / "data"),
            "RECONCILER_PROCESSES": "1",
            "RECONCILER_SESSION_TIMEOUT_S": "6",
            "RECONCILER_HEARTBEAT_INTERVAL_S": "1",
            "RECONCILER_RESTART_MAX_DELAY_S": "0",
            # With static membership a process that was killed is back at once.
            "RECONCILER_INSTANCE_ID": "one",
            **environment,
        }
        self._started: list[ServerProcess] = []
        self._occurred_at = 0

    # -- processes

    def start(self, name: str, *arguments: str) -> ServerProcess:
        """Starts one of our commands; see `ready`."""
        port = free_port()
        command = [sys.executable, "-m", "streams.cli.main", *arguments, "--http-port", str(port)]
        log = self.folder / f"{name}-{time.monotonic_ns()}.log"
        process = ServerProcess(name, command, log=log, environment=self.environment)
        process.port = port  # type: ignore[attr-defined]
        self._started.append(process)
        return process

    def ready(self, *processes: ServerProcess) -> None:
        """Returns when they all are."""
        for process in processes:
            process.wait_ready(lambda: is_ready(process.port), deadline_s=READY_WITHIN_S)  # type: ignore[attr-defined]  # noqa: B023

    def services(self) -> list[ServerProcess]:
        """Starts the federated service of every system."""
        return [self.start(f"serve-{name}", "serve", name) for name in self.systems]

    def stop(self) -> None:
        """Ends all that was started, the last first."""
        for process in reversed(self._started):
            process.stop()

    # -- what workflows do

    def act(self, resource: str, run_id: str, step_id: str, operation: str = "update", **fields: Any) -> Action:
        """Tells an action; see `flush`."""
        # Now, as far as no two are of one instant: a look at the target from before a write must not pass for one after it.
        self._occurred_at = max(self._occurred_at + 1, time.time_ns() // 1_000)
        given: dict[str, Any] = {
            "stage": "succeeded",
            "operation": operation,
            "occurred_at": self._occurred_at,
            "workflow_id": "intake",
        }
        made = complete_action(Action(resource=resource, run_id=run_id, step_id=step_id, **given | fields))
        self.estate.send_record(self.estate.topics.actions, made)
        return made

    def create(
        self, run_id: str, step_id: str, system: str, items: Mapping[str, Mapping[str, Any]], **fields: Any
    ) -> None:
        """A step that makes items in a system, and tells so: one operation an item, `<step>-<item>`."""
        rows = [(item, *(values.get(name) for name in FIELDS)) for item, values in items.items()]
        self.systems[system].execute("INSERT INTO item (id, name, phone, note) VALUES (?, ?, ?, ?)", rows)
        for item, values in items.items():
            set_ = {f"/{name}": values.get(name) for name in FIELDS}  # a column that holds nothing holds null
            self.act(f"{system}/item/{item}", run_id, f"{step_id}-{item}", "create", set=set_, **fields)

    def update(self, run_id: str, step_id: str, system: str, item: str, **values: Any) -> None:
        """A step that changes an item, and tells so."""
        before = self.systems[system].items()[item]
        names = ", ".join(f"{name} = ?" for name in values)
        self.systems[system].execute(
            f"UPDATE item SET {names}, version = version + 1 WHERE id = ?", [(*values.values(), item)]
        )
        self.act(
            f"{system}/item/{item}",
            run_id,
            step_id,
            set={f"/{name}": value for name, value in values.items()},
            before={f"/{name}": before[name] for name in values if name in before},
        )

    def flush(self) -> None:
        """All that was told is there."""
        self.estate.flush()

    # -- what people do

    def rollback(self, *arguments: str, code: int | None = 0, timeout_s: float = 240) -> str:
        """What `reconciler rollback …` prints."""
        return self.command("rollback", *arguments, code=code, timeout_s=timeout_s)

    def command(self, *arguments: str, code: int | None = 0, timeout_s: float = 240) -> str:
        """What a command of ours prints."""
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli.main", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert code in (None, done.returncode), (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def shown(self, rollback_id: str) -> dict[str, Any]:
        """`show --json`."""
        shown: dict[str, Any] = json.loads(self.rollback("show", rollback_id, "--json"))
        return shown

    def events(self, rollback_id: str) -> list[RollbackEvent]:
        """What was published, in order, each once."""
        found = [self.estate.codec.decode(each.value) for each in self.estate.read(self.estate.topics.rollback_events)]
        events = {
            event.sequence: event
            for event in found
            if isinstance(event, RollbackEvent) and event.rollback_id == rollback_id
        }
        return [events[sequence] for sequence in sorted(events)]

    def await_status(self, rollback_id: str, *statuses: str, after: int = 0, within_s: float = 180) -> RollbackEvent:
        """The first event with one of these statuses after a sequence number."""

        def found() -> RollbackEvent | None:
            events = self.events(rollback_id)
            return next((event for event in events if event.sequence > after and event.status in statuses), None)

        wait_until(lambda: found() is not None, deadline_s=within_s, what=f"{rollback_id} is {' or '.join(statuses)}")
        event = found()
        assert event is not None
        return event
