"""A worker with the counting machine: `python -m tests.support.counting_worker`, settings from the environment.

COUNTING_MACHINE=trusting takes the machine that counts what comes twice, =tally that without history.
PAUSE_AT=<point>:<partition or any>:<batches> makes the process stop itself (SIGSTOP) at that point of a batch once so many
batches were written: for the tests with zombies. FAULT=<name> breaks one part of it, as it has been seen to break in
others' logs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from reconciler.values.errors import ReconcilerError
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.logs import configure_logging
from streams.processes import processes_of
from streams.runner.batch import BatchRunner
from streams.runner.pipeline import resource_pipeline
from streams.settings import load_settings
from streams.store import producer
from streams.store.table import PartitionTable
from streams.transport import thread
from streams.transport.thread import BatchConsumerThread
from streams.wiring import RESOURCES, settings_of
from streams.worker.companion import Companion, Companions, Supervisor
from streams.worker.main import run_worker
from tests.support.counting import CountingMachine, TallyMachine, TrustingMachine

_MACHINES = {"": CountingMachine, "trusting": TrustingMachine, "tally": TallyMachine}


_MODULE = "tests.support.counting_worker"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--process", type=int, default=1)
    parser.add_argument("--report-to", type=int)
    given = parser.parse_args()
    settings = load_settings()
    peers = range(2, processes_of(settings) + 1) if given.report_to is None else ()
    companions = Companions([Companion(f"counting-{peer}", ["-m", _MODULE, "--process", str(peer)]) for peer in peers])
    companions.launch()
    settings = settings_of(RESOURCES, settings, given.process)
    configure_logging(settings.log_level, settings.log_format, f"counting-{given.process}")
    _arrange_pause(settings.data_dir)
    _arrange_fault(os.environ.get("FAULT", ""))
    if os.environ.get("SLOW_RECOVERY_S"):
        _slow_recovery(float(os.environ["SLOW_RECOVERY_S"]), settings.data_dir)
    if os.environ.get("SLOW_CLAIM_S"):
        _slow_claim(float(os.environ["SLOW_CLAIM_S"]), settings.data_dir)
    machine = _MACHINES[os.environ.get("COUNTING_MACHINE", "")]()
    pipeline = resource_pipeline(machine, TopicNames(settings.topic_prefix))
    port_file = settings.data_dir / "port"
    try:
        run_worker(
            settings,
            pipeline,
            Codec.packaged(),
            on_listening=lambda port: _tell(port_file, str(port)),
            companions=companions,
            supervisor=None if given.report_to is None else Supervisor(given.report_to),
            name=f"counting-{given.process}",
        )
    except ReconcilerError as error:
        print(f"reconciler: {error}", file=sys.stderr)
        sys.exit(2)


def _tell(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def _arrange_pause(data_dir: Path) -> None:
    """Stops the process by itself between two steps of a write, as a zombie must be made: by chance it takes days."""
    point, _, rest = os.environ.get("PAUSE_AT", "").partition(":")
    if not point:
        return
    where, _, after = rest.partition(":")
    state = {"batches": 0, "paused": False}

    def maybe_pause(here: str, partition: int) -> None:
        if (
            here != point
            or state["paused"]
            or state["batches"] < int(after or 0)
            or where not in ("any", str(partition))
        ):
            return
        state["paused"] = True
        _tell(data_dir / "paused", str(partition))
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.2)  # the stop takes effect in here

    original = producer._produce_changelog

    def produce_changelog(
        client: Any, names: Any, batch: Any, ends: Any, deadline: float, *, with_reports: bool
    ) -> None:
        state["batches"] += 1
        maybe_pause("between-effects-and-changelog", names.partition)
        original(client, names, batch, ends, max(deadline, time.monotonic() + 20), with_reports=with_reports)
        maybe_pause("before-commit", names.partition)

    producer._produce_changelog = produce_changelog  # type: ignore[assignment]
    persist = PartitionTable.persist

    def persist_or_pause(self: Any, changes: Any, checkpoint: Any) -> None:
        maybe_pause("before-store", -1)
        persist(self, changes, checkpoint)
        self._store._database.flush()  # what the store has is to outlive the process, so that it can be looked at

    PartitionTable.persist = persist_or_pause  # type: ignore[method-assign]


def _arrange_fault(name: str) -> None:
    async def hang(*_arguments: Any, **_options: Any) -> Any:
        await asyncio.sleep(3600)

    if name == "commits-hang":
        BatchConsumerThread._commit = hang  # type: ignore[method-assign]
    elif name == "fetches-hang":
        setattr(thread, "next_chunks", hang)  # noqa: B010 - a name that the module only imports
    elif name == "loop-hangs":
        BatchRunner.run = lambda *_: time.sleep(3600)  # type: ignore[method-assign, assignment]
    elif name:
        raise ValueError(name)


def _slow_claim(seconds: float, data_dir: Path) -> None:
    """Makes every claim of the first takeover reach the brokers late, as where they are still loading what they know of it."""
    original = producer.TransactionalProducer.claim
    begun = threading.Lock()
    late_until: list[float] = []

    def claim(self: Any) -> None:
        with begun:
            if not late_until:
                late_until.append(time.monotonic() + seconds)
                _tell(data_dir / "claiming", "")
        time.sleep(max(0.0, late_until[0] - time.monotonic()))
        original(self)

    producer.TransactionalProducer.claim = claim  # type: ignore[method-assign]


def _slow_recovery(seconds: float, data_dir: Path) -> None:
    """Makes each step of a recovery take a while, so that it can be hit."""
    from streams.store.recovery import Takeover

    original = Takeover._apply

    def apply(self: Any, item: Any, records: Any, ends: Any, report: Any) -> None:
        _tell(data_dir / "recovering", str(item.partition))
        time.sleep(seconds)
        original(self, item, records, ends, report)

    Takeover._apply = apply  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
