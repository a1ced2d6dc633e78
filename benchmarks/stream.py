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
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.actions import lines
from reconciler.json_form import action_from_json
from reconciler.values.json_value import parse
from tests.support.estate import Estate
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port

_PARTITIONS = 6
_WITHIN_S = 300.0
_POLL_S = 0.02
_FOLDED = re.compile(rb'^reconciler_records_total\{[^}]*verdict="folded"[^}]*\} ([0-9.e+]+)', re.MULTILINE)


def run(file: Path | None, records: int, plain_records: int) -> None:
    """Prints records a second of both, the processor time that each takes a record, and the ratios.

    Processor time is what says most on a machine that does other things meanwhile: it doesn't count waiting for one's turn.
    """
    with KafkaBroker() as broker:
        click.echo("a real Kafka runs; producing actions …", err=True)
        estate = Estate.real(broker.bootstrap, _PARTITIONS)
        count = 0
        plain_topic = f"{estate.prefix}plain"
        _plain_topics(broker.bootstrap, plain_topic, f"{estate.prefix}plain-agent")
        for line in lines(file, records):
            action = action_from_json(parse(line))
            estate.send_record(estate.topics.actions, action)
            if count < plain_records:
                estate.send_record(plain_topic, action)
            count += 1
        estate.flush()
        with tempfile.TemporaryDirectory() as folder:
            click.echo("the plain agent …", err=True)
            plain = _plain(
                broker.bootstrap, plain_topic, f"{estate.prefix}plain-agent", min(count, plain_records), folder
            )
            click.echo("the worker …", err=True)
            ours = _worker(estate, count, Path(folder))
    result = {
        "benchmark": "stream",
        "records": count,
        "records_per_s": round(1 / ours.seconds),
        "plain_faust_records_per_s": round(1 / plain.seconds),
        "times_plain_faust": round(plain.seconds / ours.seconds, 1),
        "cpu_us_a_record": round(ours.cpu_s * 1e6, 1),
        "plain_faust_cpu_us_a_record": round(plain.cpu_s * 1e6, 1),
        "times_less_cpu_than_plain_faust": round(plain.cpu_s / ours.cpu_s, 1),
    }
    click.echo(json.dumps(result))


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


def _worker(estate: Estate, records: int, folder: Path) -> _Cost:
    """From the first to the last record folded, by the worker's own metrics. The processor time is that of the process that
    folds, with all that it does beside; the one for rollbacks has nothing to do here."""
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
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            return _cost(worker, port, records, folder / "worker.log")
        finally:
            worker.terminate()
            worker.wait(60)


def _cost(worker: subprocess.Popen[bytes], port: int, records: int, log: Path) -> _Cost:
    deadline = time.monotonic() + _WITHIN_S
    began: tuple[float, float, float] | None = None
    while True:
        folded, now = _folded(port), time.perf_counter()
        if began is None and folded:
            began = (now, folded, _cpu_s(worker.pid))
        if began is not None and folded >= records:
            count = folded - began[1]
            return _Cost((now - began[0]) / count, (_cpu_s(worker.pid) - began[2]) / count)
        if worker.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the worker folded {folded:.0f} of {records} records only:\n{log.read_text()[-4000:]}")
        time.sleep(_POLL_S)


def _cpu_s(pid: int) -> float:
    """Processor time that a process has taken, in all its threads (proc(5): utime and stime are the fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _folded(port: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return sum(float(value) for value in _FOLDED.findall(answer.read()))
    except OSError:
        return 0.0
