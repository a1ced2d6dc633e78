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
_POLL_S = 0.2
"""The page is made anew each time, at the worker's cost."""
# The label `process` stands first, where there are several.
_PROCESS = re.compile(r'^reconciler_partitions(?:\{process="([^"]+)"\})? ', re.MULTILINE)
_FOLDED = re.compile(
    r'^reconciler_records_total\{(?:process="([^"]+)",)?[^}]*verdict="folded"[^}]*\} ([0-9.e+]+)', re.MULTILINE
)


def run(file: Path | None, records: int, plain_records: int, processes: int | None = None) -> None:
    """Prints records a second of both, the processor time that each takes a record, and the ratios.

    The worker folds in as many `processes` as it has by default, or in this number of them. The plain agent is one process: so the
    clock's ratio has the processes in it, and that of processor time hasn't.

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
            ours, folding = _worker(estate, count, Path(folder), processes)
    result = {
        "benchmark": "stream",
        "records": count,
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


def _worker(estate: Estate, records: int, folder: Path, processes: int | None) -> tuple[_Cost, int]:
    """From the moment at which all its processes fold to the last record, by the worker's own metrics; and how many of its
    processes fold. The processor time is that of all its processes, with all that they do beside."""
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
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            return _cost(worker, port, records, folder / "worker.log")
        finally:
            worker.terminate()
            worker.wait(60)


class _Moment(NamedTuple):
    """How things stood at an instant."""

    at: float
    folded: float
    cpu_s: float


def _cost(worker: subprocess.Popen[bytes], port: int, records: int, log: Path) -> tuple[_Cost, int]:
    deadline = time.monotonic() + _WITHIN_S
    began: _Moment | None = None
    while True:
        folded = _folded(port)
        now = _Moment(time.perf_counter(), sum(folded.values()), _cpu_s(worker.pid))
        if began is None and folded and all(folded.values()):
            began = now
            click.echo(f"{len(folded)} processes fold, after {now.folded:.0f} records …", err=True)
        if began is not None and now.folded >= records:
            count = now.folded - began.folded
            if not count:
                raise SystemExit("all was folded before every process was at work; take more --records")
            return _Cost((now.at - began.at) / count, (now.cpu_s - began.cpu_s) / count), len(folded)
        if worker.poll() is not None or time.monotonic() > deadline:
            said = log.read_text()[-4000:]
            raise SystemExit(f"the worker folded {now.folded:.0f} of {records} records only:\n{said}")
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


def _folded(port: int) -> dict[str, float]:
    """How many records each of the processes that fold has folded; nothing before all are ready."""
    try:
        _get(port, "/ready")
        page = _get(port, "/metrics")
    except OSError:
        return {}
    folded = dict.fromkeys(_PROCESS.findall(page), 0.0)
    for process, count in _FOLDED.findall(page):
        folded[process] += float(count)
    return folded


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        body: bytes = answer.read()
        return body.decode()
