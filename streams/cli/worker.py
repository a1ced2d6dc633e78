"""`reconciler worker`: one worker of the running system."""

from __future__ import annotations

from pathlib import Path

import click

from streams.logs import configure_logging
from streams.settings import Settings, load_settings
from streams.worker.companion import Companion, Supervisor


@click.command()
@click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of the local state.")
@click.option("--contracts", "contracts_dir", type=click.Path(path_type=Path), help="Folder of contracts.")
@click.option("--http-port", type=int, help="Port of /live, /ready and /metrics; 0 takes any free one.")
@click.option(
    "--only",
    type=click.Choice(["resources", "rollbacks"]),
    help="Run one half alone: what folds, detects and corrects, or what drives rollbacks. Otherwise the first looks after a "
    "process with the second.",
)
@click.option("--report-to", type=int, hidden=True, help="Given by the process that looks after this one.")
def worker(
    bootstrap_servers: str | None,
    data_dir: Path | None,
    contracts_dir: Path | None,
    http_port: int | None,
    only: str | None,
    report_to: int | None,
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
    companion = None if only else Companion("rollbacks", _arguments(settings, "rollbacks"))
    if companion is not None:
        companion.launch()  # it loads while we do
    # Imported late: Faust is slow to load, and --help shouldn't wait for it.
    from streams import wiring  # noqa: PLC0415
    from streams.codec import codec_of  # noqa: PLC0415
    from streams.worker.main import run_worker  # noqa: PLC0415

    name = only or wiring.RESOURCES
    contracts = wiring.contracts_of(settings)
    own = wiring.settings_of(name, settings)
    codec = codec_of(own)
    run_worker(
        own,
        wiring.pipeline_of(name, settings, contracts),
        codec,
        wiring.services_of(name, settings, contracts, codec),
        companion=companion,
        supervisor=None if report_to is None else Supervisor(report_to),
    )


def _arguments(settings: Settings, name: str) -> list[str]:
    """Python's arguments for a worker of one half with these settings; what isn't said here is in the environment."""
    arguments = ["-m", "streams.cli.main", "worker", "--only", name]
    arguments += ["--bootstrap-servers", settings.bootstrap_servers, "--data-dir", str(settings.data_dir)]
    if settings.contracts_dir is not None:
        arguments += ["--contracts", str(settings.contracts_dir)]
    return arguments
