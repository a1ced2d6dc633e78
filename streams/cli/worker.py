"""`reconciler worker`: one worker of the running system."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.values.errors import ReconcilerError
from streams.logs import configure_logging
from streams.processes import name_of, processes_of
from streams.settings import Settings, load_settings
from streams.worker.companion import Companion, Companions, Supervisor

_RESOURCES = "resources"
_ROLLBACKS = "rollbacks"


@click.command()
@click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of the local state.")
@click.option("--contracts", "contracts_dir", type=click.Path(path_type=Path), help="Folder of contracts.")
@click.option("--http-port", type=int, help="Port of /live, /ready and /metrics; 0 takes any free one.")
@click.option(
    "--processes",
    type=int,
    help="How many processes fold. Otherwise one a processor, but at most 4, and at most one a partition.",
)
@click.option(
    "--only",
    type=click.Choice([_RESOURCES, _ROLLBACKS]),
    help="Run one half alone: what folds, detects and corrects, or what drives rollbacks. Otherwise the first looks after a "
    "process with the second.",
)
@click.option("--process", type=int, default=1, hidden=True, help="Which of the processes that fold this one is.")
@click.option("--report-to", type=int, hidden=True, help="Given by the process that looks after this one.")
def worker(
    bootstrap_servers: str | None,
    data_dir: Path | None,
    contracts_dir: Path | None,
    http_port: int | None,
    processes: int | None,
    only: str | None,
    process: int,
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
        "processes": processes,
    }
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    # Found out once, for all of them.
    settings = settings.model_copy(update={"processes": processes_of(settings)})
    pipeline = only or _RESOURCES
    name = pipeline if pipeline == _ROLLBACKS else name_of(pipeline, process)
    configure_logging(settings.log_level, settings.log_format, name)
    companions = _companions(settings, only) if report_to is None else Companions()
    companions.launch()  # they load while we do
    # Imported late: Faust is slow to load, and --help shouldn't wait for it.
    from streams import wiring  # noqa: PLC0415
    from streams.codec import codec_of  # noqa: PLC0415
    from streams.worker.main import run_worker  # noqa: PLC0415

    supervisor = None if report_to is None else Supervisor(report_to)
    own = wiring.settings_of(pipeline, settings, process)
    try:
        contracts = wiring.contracts_of(settings)
        codec = codec_of(own)
        services = wiring.services_of(pipeline, settings, contracts, codec)
    except ReconcilerError:
        if supervisor is not None:
            supervisor.await_start()  # the first process finds the same, and says it once for all
        raise
    run_worker(
        own,
        wiring.pipeline_of(pipeline, settings, contracts),
        codec,
        services,
        companions=companions,
        supervisor=supervisor,
        name=name,
    )


def _companions(settings: Settings, only: str | None) -> Companions:
    """The processes beside the first one."""
    folding = range(2, processes_of(settings) + 1) if only != _ROLLBACKS else ()
    peers = [
        Companion(name_of(_RESOURCES, process), [*_arguments(settings, _RESOURCES), "--process", str(process)])
        for process in folding
    ]
    return Companions(peers, [] if only else [Companion(_ROLLBACKS, _arguments(settings, _ROLLBACKS))])


def _arguments(settings: Settings, pipeline: str) -> list[str]:
    """Python's arguments for a process of one half with these settings; what isn't said here is in the environment."""
    arguments = ["-m", "streams.cli.main", "worker", "--only", pipeline, "--processes", str(settings.processes)]
    arguments += ["--bootstrap-servers", settings.bootstrap_servers, "--data-dir", str(settings.data_dir)]
    if settings.contracts_dir is not None:
        arguments += ["--contracts", str(settings.contracts_dir)]
    return arguments
