"""`python -m benchmarks fold|stream`: how fast the offline fold is, and a worker beside a plain Faust agent."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from benchmarks import fold as fold_benchmark
from benchmarks import stream as stream_benchmark

_FOLDED: Final = 40_000
_RECORDS: Final = 1_000_000
_PLAIN_RECORDS: Final = 40_000
"""So many that both run for some seconds: a shorter run says more about how it begins and ends."""


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Without a command: both, on generated actions."""
    if context.invoked_subcommand is None:
        fold_benchmark.run(None, _FOLDED)
        stream_benchmark.run(None, _RECORDS, _PLAIN_RECORDS)


@main.command()
@click.option("--actions", type=click.Path(exists=True, path_type=Path), help="JSON Lines, may be gzipped.")
@click.option("--records", default=_FOLDED, help="How many actions to generate where no file is given.")
def fold(actions: Path | None, records: int) -> None:
    """The offline fold, as a whole process, beside reading the same file with nothing but the json module."""
    fold_benchmark.run(actions, records)


@main.command()
@click.option("--actions", type=click.Path(exists=True, path_type=Path), help="JSON Lines, may be gzipped.")
@click.option("--records", default=_RECORDS, help="How many actions to generate where no file is given.")
@click.option("--plain-records", default=_PLAIN_RECORDS, help="How many of them the plain agent gets.")
@click.option("--processes", type=int, help="How many processes of the worker fold; otherwise as many as by default.")
def stream(actions: Path | None, records: int, plain_records: int, processes: int | None) -> None:
    """A worker beside a plain Faust agent that sets one table key an event, on one real Kafka (Java and Maven)."""
    stream_benchmark.run(actions, records, plain_records, processes)


if __name__ == "__main__":
    main()
