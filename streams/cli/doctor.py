"""`reconciler doctor`: is everything there that the settings name?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from streams.cli.output import as_json, print_json_lines
from streams.settings import load_settings

EXIT_WRONG = 1

_MARKS = {"ok": "ok     ", "wrong": "WRONG  ", "not checked": "-      "}


@click.command()
@click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
@click.option("--contracts", "contracts_dir", type=click.Path(path_type=Path), help="Folder of contracts.")
@click.option("--targets", "targets_file", type=click.Path(path_type=Path, dir_okay=False), help="The targets file.")
@as_json
def doctor(is_json: bool, **given: Any) -> None:
    """Check settings, contracts, targets, brokers, topics, registry and Redis; exit with 1 if something is wrong.

    Run it with the settings of the process that doesn't do what it should. It changes nothing.
    """
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    from streams.doctor import examine  # noqa: PLC0415  brings in every client

    wrong = 0
    for finding in examine(settings):
        wrong += finding.state == "wrong"
        if is_json:
            print_json_lines([msgspec.to_builtins(finding)])
        else:
            click.echo(f"{_MARKS[finding.state]}{finding.check}: {finding.detail}")
    if wrong:
        click.echo(f"{wrong} of these must be put right.", err=True)
        sys.exit(EXIT_WRONG)
