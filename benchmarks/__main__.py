"""`python -m benchmarks fold|stream`: how fast the offline fold is, and a worker beside a plain Faust agent."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import fold as fold_benchmark
from benchmarks import stream as stream_benchmark


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Without a command: both, on generated actions."""
    if context.invoked_subcommand is None:
        fold_benchmark.run(None, 40_000)
        stream_benchmark.run(None, 600_000, 10_000)


@main.command()
@click.option("--actions", type=click.Path(exists=True, path_type=Path), help="JSON Lines, may be gzipped.")
@click.option("--records", default=40_000, help="How many actions to generate where no file is given.")
def fold(actions: Path | None, records: int) -> None:
    """The offline fold, as a whole process, beside reading the same file with nothing but the json module."""
    fold_benchmark.run(actions, records)


@main.command()
@click.option("--actions", type=click.Path(exists=True, path_type=Path), help="JSON Lines, may be gzipped.")
@click.option("--records", default=600_000, help="How many actions to generate where no file is given.")
@click.option("--plain-records", default=40_000, help="How many of them the plain agent gets.")
@click.option("--processes", type=int, help="How many processes of the worker fold; otherwise as many as by default.")
def stream(actions: Path | None, records: int, plain_records: int, processes: int | None) -> None:
    """A worker beside a plain Faust agent that sets one table key an event, on one real Kafka (Java and Maven)."""
    stream_benchmark.run(actions, records, plain_records, processes)


if __name__ == "__main__":
    main()
