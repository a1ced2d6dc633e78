"""`reconciler dev` and `reconciler demo`: the embedded estate, to work on and to watch."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from reconciler.values.errors import InputError, ReconcilerError
from streams.dev.demo import run_demo
from streams.dev.estate import DevEstate

EXIT_WRONG = 1
_WATCH_S = 0.5

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; a temporary folder that goes at the end, if none is named.",
)


@click.command()
@_folder
def dev(folder: Path | None) -> None:
    """Run the whole system here: broker, Redis, two target systems, their services and a worker, until Ctrl-C."""
    console = Console()
    _interrupt_on(signal.SIGTERM, signal.SIGHUP)
    with _kept(folder) as place, DevEstate(place) as estate:
        console.print("The system runs. Any command of ours works on it with these settings:\n", highlight=False)
        for name, value in estate.environment().items():
            console.print(f"  export {name}={value}", highlight=False, soft_wrap=True)
        console.print(
            f"\n  CRM (SQLite)   {estate.crm.file}\n  billing (HTTP) {estate.billing_url}/invoices\n"
            f"  worker         {estate.worker_url}/metrics\n  logs           {place / 'logs'}\n\nCtrl-C ends it.",
            highlight=False,
            soft_wrap=True,
        )
        try:
            while True:
                estate.check()
                time.sleep(_WATCH_S)
        except KeyboardInterrupt:
            console.print("Stopping.")


@click.command()
@_folder
def demo(folder: Path | None) -> None:
    """Watch drift put right and a run undone over two systems, on an embedded system; exits 0 only if all is as it must be."""
    console = Console()
    _interrupt_on(signal.SIGTERM, signal.SIGHUP)
    began = time.monotonic()
    wrong: list[str]
    with _kept(folder) as place:
        try:
            console.print("Starting a broker, Redis, two target systems with their services, and a worker…")
            with DevEstate(place) as estate:
                wrong = run_demo(estate, console)
        except InputError:
            raise
        except ReconcilerError as error:
            wrong = [str(error)]
    took = f"{time.monotonic() - began:.0f} s"
    if wrong:
        console.print(f"\n[bold red]Not as it must be, after {took}:[/]")
        for fault in wrong:
            console.print(f"  {fault}", highlight=False, markup=False)
        sys.exit(EXIT_WRONG)
    console.print(
        f"\n[bold green]Every field that the workflow owns is right, what was undone stays undone, and no other field was "
        f"touched ({took}).[/]"
    )


def _interrupt_on(*signals: signal.Signals) -> None:
    """Lets these end the command as Ctrl-C does: in order, with all that it has started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"the folder {folder} is not empty; name another one")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    place = Path(tempfile.mkdtemp(prefix="reconciler-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
