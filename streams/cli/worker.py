"""`reconciler worker`: one worker of the running system."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.logs import configure_logging
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from reconciler.machines.protocol import Machine
    from reconciler.wire.codec import Codec


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
    from streams.runner.pipeline import resource_pipeline  # noqa: PLC0415
    from streams.worker.main import run_worker  # noqa: PLC0415

    pipeline = resource_pipeline(_machine(settings), TopicNames(settings.topic_prefix))
    run_worker(settings, pipeline, _codec(settings))


def _codec(settings: Settings) -> Codec:
    from reconciler.wire.codec import Codec  # noqa: PLC0415

    if settings.registry_url is None:
        return Codec.packaged()
    registry = import_module("reconciler.wire.registry")
    codec: Codec = registry.codec_with_registry(settings.registry_url)
    return codec


def _machine(settings: Settings) -> Machine:
    module = import_module("reconciler.machines.resource")
    machine: Machine = module.ResourceMachine.from_folder(settings.contracts_dir)
    return machine
