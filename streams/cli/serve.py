"""`reconciler serve TARGET`: carries out the reconciler's commands for a system that has no service of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from confluent_kafka import KafkaException

from reconciler.targets.config import load_targets
from reconciler.values.errors import InputError
from streams.codec import codec_of
from streams.logs import configure_logging
from streams.serve.host import applying_target, serve_target
from streams.serve.settings import load_serve_settings
from streams.settings import load_settings

EXIT_FAILED = 1


@click.command()
@click.argument("target")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
@click.option("--targets", "targets_file", type=click.Path(path_type=Path), help="The targets file.")
@click.option("--http-port", type=int, help="Port of /live, /ready and /metrics; 0 takes any free one.")
def serve(target: str, bootstrap_servers: str | None, targets_file: Path | None, http_port: int | None) -> None:
    """Carry out commands for TARGET, a system of the targets file, until SIGTERM.

    Every setting is an environment variable with the prefix RECONCILER_ or RECONCILER_SERVE_ (see docs/sdk.md); the options
    here go before them. As many processes as there are partitions may serve one target.
    """
    given = {"bootstrap_servers": bootstrap_servers, "targets_file": targets_file, "http_port": http_port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    configure_logging(settings.log_level, settings.log_format)
    if settings.targets_file is None:
        raise InputError("no targets file is given: use --targets or set RECONCILER_TARGETS_FILE")
    served = applying_target(load_targets(settings.targets_file), target)
    try:
        asyncio.run(serve_target(served, settings, load_serve_settings(), codec_of(settings)))
    except KafkaException as error:
        click.echo(f"reconciler: Kafka's client can't go on: {error}", err=True)
        sys.exit(EXIT_FAILED)
