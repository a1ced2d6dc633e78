"""The demo: a workflow writes, people edit behind its back, the drift is found and put right; then a run is undone over both
systems; and at the end the targets are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table

from reconciler.records import RollbackEvent
from reconciler.sdk import KafkaSettings, Producer, ProducerSettings
from reconciler.wire.codec import Codec
from streams.decisions import decide
from streams.dev.campaign import RUN, run_campaign
from streams.dev.check import faults
from streams.dev.errors import DemoError
from streams.dev.estate import SYSTEMS, DevEstate
from streams.dev.people import Edits, edit_behind_the_back
from streams.dev.undo import UndoAct
from streams.dev.view import View
from streams.dev.watch import Watcher
from streams.dev.workflow import Written, run_workflow
from streams.settings import load_settings

_WITHIN_S = 45.0
_POLL_S = 0.1
_LOOKS_ON_S = 7.0  # two periods of the contracts' sample_every_s
_SETTLE_S = 1.5  # above the contracts' settle_s: an edit before it would meet no verdict yet


def run_demo(estate: DevEstate, console: Console) -> list[str]:
    """Drives a started estate through the demo. Returns what is wrong at the end: nothing, if all is well."""
    with Watcher(estate.broker.bootstrap, estate.names, SYSTEMS) as watcher:
        with View(console, watcher, estate.worker_url) as view:
            drama = _Drama(estate, watcher, view)
            written = drama.workflow()
            edits = drama.people()
            drama.corrections(edits)
            drama.decision(edits)
            told = drama.undo(written)
            view.phase("Reading the targets themselves")
            wrong = drama.verdict(written, edits)
        _print_edits(console, edits)
        console.print(Panel(Markdown(told.story), title=f"The story of the undo of {RUN}", title_align="left"))
        return wrong


class _Drama:
    def __init__(self, estate: DevEstate, watcher: Watcher, view: View) -> None:
        self._estate = estate
        self._watcher = watcher
        self._view = view
        self._undone: list[str] = []

    def _producer(self) -> Producer:
        return Producer(ProducerSettings(kafka=KafkaSettings(bootstrap_servers=self._estate.broker.bootstrap)))

    def workflow(self) -> Written:
        with self._producer() as producer:
            written = run_workflow(
                producer,
                self._estate.crm,
                self._estate.billing,
                lambda what: self._view.phase(f"A workflow writes to two systems: {what}"),
            )
        actions = 2 * len(written.contacts) + 2 * len(written.invoices)
        self._until("the actions were told", lambda: self._watcher.counts["actions succeeded"] >= actions)
        return written

    def people(self) -> Edits:
        self._view.phase("The targets settle")
        until = time.monotonic() + _SETTLE_S
        self._until("the targets settled", lambda: time.monotonic() >= until)
        self._view.phase("Somebody edits and deletes behind the workflow's back")
        return edit_behind_the_back(self._estate.crm, self._estate.billing)

    def corrections(self, edits: Edits) -> None:
        self._view.phase("Drift is detected, and put right where the contracts say so")
        expected = {edit.resource for edit in edits.done if edit.policy.startswith("correct")}
        self._until("all drift was put right", lambda: expected <= self._watcher.corrected)
        self._until("drift was reported", lambda: edits.reported.keys() <= self._watcher.reported)

    def decision(self, edits: Edits) -> None:
        settings = load_settings(bootstrap_servers=self._estate.broker.bootstrap)
        for resource, path in edits.reported.items():
            self._view.phase(f"A person decides what was only reported: {resource}{path} is put back")
            decide(settings, Codec.packaged(), resource, "expected", "ana@example.com", path=path)
            self._until("the decision was carried out", partial(self._watcher.corrected.__contains__, resource))

    def undo(self, written: Written) -> RollbackEvent:
        self._view.phase(
            "A campaign changes records in both systems, and sends an invoice; it goes to the wrong people"
        )
        with self._producer() as producer:
            aftermath = run_campaign(producer, self._estate.crm, self._estate.billing, written)
        self._view.phase("The samplers see what the campaign has left")
        changed = {f"crm/contact/{name}" for name in aftermath.contacts}
        changed |= {f"billing/invoice/{name}" for name in aftermath.invoices}
        since = time.time_ns() // 1_000
        self._until(
            "all was sampled anew",
            lambda: all(self._watcher.observed.get(resource, 0) > since for resource in changed),
        )
        act = UndoAct(self._estate, self._watcher, self._view.phase, self._until)
        last = act.play()
        self._undone = act.faults(last)
        written.contacts |= aftermath.contacts
        written.invoices |= aftermath.invoices
        self._view.phase("The samplers look twice more: nothing that was undone is put back")
        until = time.monotonic() + _LOOKS_ON_S
        self._until("the samplers looked on", lambda: time.monotonic() >= until)
        return last

    def verdict(self, written: Written, edits: Edits) -> list[str]:
        wrong = self._undone + faults(written, edits, self._estate.crm, self._estate.billing)
        wrong += [f"{resource}: its drift is still open" for resource in sorted(self._watcher.open_drift)]
        if self._watcher.counts["dead letters"]:
            wrong.append(f"{self._watcher.counts['dead letters']} records could not be used")
        return wrong + [f"alert: {message}" for message in self._watcher.alerts]

    def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Waits until something is so. Raises DemoError where it isn't in time, ProcessError where a part has ended."""
        deadline = time.monotonic() + _WITHIN_S
        while not is_so():
            self._estate.check()
            self._watcher.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"waited {_WITHIN_S:.0f} s in vain until {what}; the logs are in {self._estate.folder / 'logs'}"
                )
            time.sleep(_POLL_S)


def _print_edits(console: Console, edits: Edits) -> None:
    table = Table(title="What was done behind the workflow's back", title_justify="left")
    table.add_column("record", no_wrap=True)
    table.add_column("what happened")
    table.add_column("the contract says")
    for edit in edits.done:
        table.add_row(edit.resource, edit.what, edit.policy)
    console.print(table)
