"""A worker with everything on (decoding, folding, history, changelog, fence) beside a plain Faust agent, on one real Kafka."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import click
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.actions import lines
from reconciler.json_form import action_from_json
from reconciler.records import Action
from reconciler.values.json_value import parse
from reconciler.wire.partition import PARTITIONER
from tests.support.estate import Estate
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port

_PARTITIONS = 6
_WITHIN_S = 300.0
_POLL_S = 0.2
"""The page is made anew each time, at the worker's cost."""
_LONGEST_TRANSACTION_MS = 900_000
"""As long as brokers allow by default."""
# The label `process` stands first, where there are several.
_PARTITIONS_OF = re.compile(r'^reconciler_partitions(?:\{process="[^"]+"\})? ([0-9.]+)', re.MULTILINE)
_FOLDED = re.compile(r'^reconciler_records_total\{[^}]*verdict="folded"[^}]*\} ([0-9.e+]+)', re.MULTILINE)


def run(file: Path | None, records: int, plain_records: int, processes: int | None = None) -> None:
    """Prints records a second of both, the processor time that each takes a record, and the ratios.

    The worker folds in as many `processes` as it has by default, or in this number of them. The plain agent is one process: so the
    clock's ratio has the processes in it, and that of processor time hasn't.

    Processor time is what says most on a machine that does other things meanwhile: it doesn't count waiting for one's turn.
    """
    with KafkaBroker() as broker:
        click.echo("a real Kafka runs; producing actions …", err=True)
        estate = Estate.real(broker.bootstrap, _PARTITIONS)
        plain_topic = f"{estate.prefix}plain"
        _plain_topics(broker.bootstrap, plain_topic, f"{estate.prefix}plain-agent")
        backlog = _Backlog(estate)
        for line in lines(file, records):
            action = action_from_json(parse(line))
            backlog.add(action)
            if backlog.records <= plain_records:
                estate.send_record(plain_topic, action)
        estate.flush()
        backlog.flush()
        with tempfile.TemporaryDirectory() as folder:
            click.echo("the plain agent …", err=True)
            plain = _plain(
                broker.bootstrap,
                plain_topic,
                f"{estate.prefix}plain-agent",
                min(backlog.records, plain_records),
                folder,
            )
            click.echo("the worker …", err=True)
            ours, folding = _worker(estate, backlog, Path(folder), processes)
    result = {
        "benchmark": "stream",
        "records": backlog.records,
        "processes": folding,
        "records_per_s": round(1 / ours.seconds),
        "records_per_s_a_process": round(1 / ours.seconds / folding),
        "plain_faust_records_per_s": round(1 / plain.seconds),
        "times_plain_faust": round(plain.seconds / ours.seconds, 1),
        "cpu_us_a_record": round(ours.cpu_s * 1e6, 1),
        "plain_faust_cpu_us_a_record": round(plain.cpu_s * 1e6, 1),
        "times_less_cpu_than_plain_faust": round(plain.cpu_s / ours.cpu_s, 1),
    }
    click.echo(json.dumps(result))


class _Backlog:
    """Actions in the ledger that nobody reads before `show`: they are one open transaction. So a worker can be waited for until
    all its processes have their partitions, and has yet to fold every one of them."""

    def __init__(self, estate: Estate) -> None:
        self.records = 0
        self._estate = estate
        self._producer = Producer(
            {
                "bootstrap.servers": estate.bootstrap,
                "partitioner": PARTITIONER,
                "transactional.id": f"{estate.prefix}backlog",
                "transaction.timeout.ms": _LONGEST_TRANSACTION_MS,
                "linger.ms": 5,
            }
        )
        self._producer.init_transactions()
        self._producer.begin_transaction()

    def add(self, action: Action) -> None:
        """Adds one, in the order of the calls."""
        topic = self._estate.topics.actions
        value = self._estate.codec.encode(topic, action)
        while True:
            try:
                self._producer.produce(topic, value, action.resource.encode())
                break
            except BufferError:
                self._producer.poll(_POLL_S)
        self.records += 1

    def flush(self) -> None:
        """Returns when the brokers have all of them."""
        if self._producer.flush(_WITHIN_S):
            raise SystemExit("the broker doesn't take the actions")

    def show(self) -> None:
        """From now on they are read."""
        self._producer.commit_transaction(_WITHIN_S)


def _plain_topics(bootstrap: str, topic: str, group: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    changelog = NewTopic(f"{group}-counts-changelog", _PARTITIONS, 1, config={"cleanup.policy": "compact"})
    for future in admin.create_topics([NewTopic(topic, _PARTITIONS, 1), changelog]).values():
        future.result(20)


class _Cost(NamedTuple):
    """What one record costs."""

    seconds: float
    cpu_s: float


def _plain(bootstrap: str, topic: str, group: str, records: int, folder: str) -> _Cost:
    command = [sys.executable, "-m", "benchmarks.plain_faust", bootstrap, topic, group, str(records)]
    done = subprocess.run(
        [*command, f"{folder}/faust", str(_PARTITIONS)], check=True, capture_output=True, timeout=_WITHIN_S
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return _Cost(told["seconds"] / told["records"], told["cpu_s"] / told["records"])


def _worker(estate: Estate, backlog: _Backlog, folder: Path, processes: int | None) -> tuple[_Cost, int]:
    """From the moment at which the records can be read, with all processes of the worker ready for them, to the last one, by the
    worker's own metrics; and how many of its processes fold. The processor time is that of all its processes, with all that they
    do beside."""
    port = free_port()
    environment = {
        **os.environ,
        "RECONCILER_BOOTSTRAP_SERVERS": estate.bootstrap,
        "RECONCILER_TOPIC_PREFIX": estate.prefix,
        "RECONCILER_PARTITIONS": str(estate.partitions),
        "RECONCILER_DATA_DIR": str(folder / "worker"),
        "RECONCILER_APPLICATION_ID": estate.group,
    }
    command = [sys.executable, "-m", "streams.cli.main", "worker", "--http-port", str(port)]
    command += [] if processes is None else ["--processes", str(processes)]
    with (folder / "worker.log").open("wb") as log:
        worker = _Worker(
            subprocess.Popen(command, env=environment, stdout=log, stderr=log), port, folder / "worker.log"
        )
        try:
            folding = worker.ready()
            return worker.cost(backlog), folding
        finally:
            worker.process.terminate()
            worker.process.wait(60)


class _Worker(NamedTuple):
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ready(self) -> int:
        """Returns when all partitions are shared by processes that are ready: by how many."""
        deadline = time.monotonic() + _WITHIN_S
        while True:
            shares = [float(count) for count in _PARTITIONS_OF.findall(self._page())]
            if shares and all(shares) and sum(shares) == _PARTITIONS:
                return len(shares)
            self._wait(deadline, "isn't ready")

    def cost(self, backlog: _Backlog) -> _Cost:
        """What folding the backlog costs."""
        began, busy_s = time.perf_counter(), _cpu_s(self.process.pid)
        deadline = time.monotonic() + _WITHIN_S
        backlog.show()
        while (folded := sum(map(float, _FOLDED.findall(self._page())))) < backlog.records:
            self._wait(deadline, f"folded {folded:.0f} of {backlog.records} records only")
        seconds, cpu_s = time.perf_counter() - began, _cpu_s(self.process.pid) - busy_s
        return _Cost(seconds / backlog.records, cpu_s / backlog.records)

    def _page(self) -> str:
        """Its metrics; nothing before all its processes are ready."""
        try:
            _get(self.port, "/ready")
            return _get(self.port, "/metrics")
        except OSError:
            return ""

    def _wait(self, deadline: float, what: str) -> None:
        if self.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the worker {what}:\n{self.log.read_text()[-4000:]}")
        time.sleep(_POLL_S)


def _cpu_s(pid: int) -> float:
    """Processor time that a process and its children have taken, in all their threads (proc(5): utime and stime are the fields
    14 and 15)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(_cpu_s(int(each)) for each in children)


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        body: bytes = answer.read()
        return body.decode()
