"""`reconciler worker`: one worker of the running system."""

from __future__ import annotations

from pathlib import Path

import click

from streams.logs import configure_logging
from streams.settings import load_settings


@click.command()
@click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of the local state.")
@click.option("--contracts", "contracts_dir", type=click.Path(path_type=Path), help="Folder of contracts.")
@click.option("--http-port", type=int, help="Port of /live, /ready and /metrics; 0 takes any free one.")
def worker(
    bootstrap_servers: str | None, data_dir: Path | None, contracts_dir: Path | None, http_port: int | None
) -> None:
    """Run a worker until SIGTERM.

    Every setting is an environment variable with the prefix RECONCILER_ (see docs/worker.md); the options here go before
    them.
    """
    given = {
        "bootstrap_servers": bootstrap_servers,
        "data_dir": data_dir,
        "contracts_dir": contracts_dir,
        "http_port": http_port,
    }
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    configure_logging(settings.log_level, settings.log_format)
    # Imported late: Faust is slow to load, and --help shouldn't wait for it.
    from reconciler.wire.topics import TopicNames  # noqa: PLC0415
    from streams import wiring  # noqa: PLC0415
    from streams.codec import codec_of  # noqa: PLC0415
    from streams.runner.pipeline import resource_pipeline  # noqa: PLC0415
    from streams.worker.main import run_worker  # noqa: PLC0415

    contracts, codec = wiring.contracts_of(settings), codec_of(settings)
    pipeline = resource_pipeline(wiring.machine_of(contracts), TopicNames(settings.topic_prefix))
    run_worker(settings, pipeline, codec, wiring.services_of(settings, contracts, codec))
