"""The embedded estate: broker, Redis, two target systems with their federated services, and a worker, in one folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.wire.topics import TopicNames
from streams.dev.billing import Billing
from streams.dev.crm import Crm
from streams.dev.processes import ServedProcess, free_port
from streams.embedded.broker import PARTITIONS, EmbeddedBroker
from streams.embedded.redis import EmbeddedRedis

CONTRACTS = Path(__file__).parent / "contracts"
SYSTEMS = ("crm", "billing")
_READY_WITHIN_S = 120.0  # on a machine that is busy with other things; else it is three

_TARGETS = """\
crm:
  kind: sqlite
  path: {crm}
  resources:
    contact:
      table: contact
      id: id
      version: {{column: version, increment: false}}
      fields:
        /name: name
        /email: email
        /phone: phone
        /owner: owner
        /stage: stage
        /note: note
billing:
  kind: http
  base_url: {billing}
  dedup: {{kind: redis, url: {redis}}}
  resources:
    invoice:
      item: /invoices/{{id}}
      list:
        path: /invoices
        items: /items
        leave_out: [/id]
        ids_parameter: ids
        page_size_parameter: limit
        paging: {{kind: cursor, pointer: /next, parameter: cursor}}
      compensations:
        credit-note: {{path: "/invoices/{{id}}/credit-notes"}}
"""


class DevEstate:
    """Everything that runs in one command. A context manager: it starts the parts in order and stops them in reverse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = TopicNames()
        self.crm = Crm(folder / "crm.sqlite")
        self.broker = EmbeddedBroker()
        self.redis = EmbeddedRedis()
        billing_port = free_port()
        self.billing_url = f"http://127.0.0.1:{billing_port}"
        self.billing = Billing(f"{self.billing_url}/invoices")
        self.targets_file = folder / "targets.yaml"
        self.processes: list[ServedProcess] = []
        self._billing_port = billing_port
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raises ProcessError if a part has ended."""
        for process in self.processes:
            process.check()

    @property
    def worker_url(self) -> str:
        """Where the worker tells its health and metrics."""
        return f"http://127.0.0.1:{self.process('worker').port}"

    def process(self, name: str) -> ServedProcess:
        """One of the parts."""
        return next(process for process in self.processes if process.name == name)

    def environment(self) -> dict[str, str]:
        """The settings with which any of our commands works on this estate."""
        return {
            "RECONCILER_BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "RECONCILER_PARTITIONS": str(PARTITIONS),
            "RECONCILER_REDIS_URL": self.redis.url,
            "RECONCILER_CONTRACTS_DIR": str(CONTRACTS),
            "RECONCILER_TARGETS_FILE": str(self.targets_file),
            # The embedded broker has no fence and keeps nothing, so neither needs the store on disk.
            "RECONCILER_FENCE": "none",
            "RECONCILER_STORE": "memory",
            "RECONCILER_DATA_DIR": str(self.folder / "worker"),
            "RECONCILER_PROCESSES": "1",
            "RECONCILER_SESSION_TIMEOUT_S": "10",
        }

    def _start(self) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.crm.create()
        self._stack.enter_context(self.broker)
        self.broker.create_topics(spec.name for spec in self.names.specs(SYSTEMS))
        self._stack.enter_context(self.redis)
        targets = _TARGETS.format(crm=self.crm.file, billing=self.billing_url, redis=self.redis.url)
        self.targets_file.write_text(targets)
        self._add(
            "billing-service", ["streams.embedded.billing", "--port", str(self._billing_port)], self._billing_port
        )
        for system in SYSTEMS:
            port = free_port()
            self._add(f"serve-{system}", ["streams.cli.main", "serve", system, "--http-port", str(port)], port)
        port = free_port()
        self._add("worker", ["streams.cli.main", "worker", "--http-port", str(port)], port)
        deadline = time.monotonic() + _READY_WITHIN_S
        for process in self.processes:
            process.wait_ready(deadline)

    def _add(self, name: str, arguments: list[str], port: int) -> None:
        process = ServedProcess(name, arguments, self.environment(), port, self.folder / "logs")
        process.start()
        self._stack.callback(process.stop)
        self.processes.append(process)
