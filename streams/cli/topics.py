"""`reconciler topics`: make the topics, verify them, list them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.wire.topics import FOREVER_MS, TopicNames, TopicSpec
from streams.cli.output import as_json, print_json_lines, print_table
from streams.settings import Settings, load_settings
from streams.topics import Cluster, WantedTopic

EXIT_DEVIATIONS = 1
_DAY_MS = 24 * 60 * 60 * 1000

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def topics() -> None:
    """Make the topics with the settings that they must have, and verify them.

    The commands' topics, reversal.<system>, are made for the systems of the targets file and for those named by --system.
    """


def _which(command: F) -> F:
    """The options that say which topics are meant."""
    options = [
        click.option("--prefix", "topic_prefix", help="Put before every topic's name."),
        click.option("--partitions", type=click.IntRange(1, 10_000), help="Partitions of each topic."),
        click.option(
            "--targets", "targets_file", type=click.Path(path_type=Path, dir_okay=False), help="The targets file."
        ),
        click.option("--system", "systems", multiple=True, help="A system that has commands; may be given again."),
        as_json,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _where(command: F) -> F:
    """The options that say on which cluster."""
    options = [
        click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas."),
        click.option(
            "--replication-factor",
            type=click.IntRange(1, 32),
            envvar="RECONCILER_REPLICATION_FACTOR",
            help="Replicas of each partition; otherwise as many as there are brokers, at most 3.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return _which(command)


@topics.command()
@_where
def create(replication_factor: int | None, systems: tuple[str, ...], is_json: bool, **given: Any) -> None:
    """Make the topics that are missing. Those that exist stay as they are; `verify` says whether they are right."""
    settings = _settings(given)
    cluster = Cluster(settings.client_config())
    made = cluster.create(_wanted(cluster, settings, systems, replication_factor))
    if is_json:
        print_json_lines({"topic": topic.name, "created": topic.is_new} for topic in made)
    else:
        print_table(("topic", ""), [(topic.name, "created" if topic.is_new else "exists") for topic in made])


@topics.command()
@_where
def verify(replication_factor: int | None, systems: tuple[str, ...], is_json: bool, **given: Any) -> None:
    """Name each way in which a topic isn't as it must be; exit with 1 if there is one."""
    settings = _settings(given)
    cluster = Cluster(settings.client_config())
    wanted = _wanted(cluster, settings, systems, replication_factor)
    deviations = cluster.deviations(wanted)
    if is_json:
        print_json_lines(
            {"topic": found.topic, "setting": found.setting, "message": found.sentence} for found in deviations
        )
    else:
        for found in deviations:
            click.echo(f"{found.topic}: {found.sentence}")
    if deviations:
        sys.exit(EXIT_DEVIATIONS)
    click.echo(f"All {len(wanted)} topics are as they must be.", err=True)


@topics.command(name="list")
@_which
def list_(systems: tuple[str, ...], is_json: bool, **given: Any) -> None:
    """List the topics, what travels on each, and how it is kept. Asks no broker."""
    settings = _settings(given)
    specs = _specs(settings, systems)
    if is_json:
        print_json_lines(
            {"topic": spec.name, "record": _record(spec), "partitions": settings.partitions, "config": spec.config()}
            for spec in specs
        )
    else:
        print_table(
            ("topic", "record", "partitions", "cleanup", "kept"),
            [(spec.name, _record(spec), settings.partitions, ",".join(spec.cleanup), _kept(spec)) for spec in specs],
        )


def _settings(given: dict[str, Any]) -> Settings:
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def systems_of(settings: Settings, named: tuple[str, ...]) -> tuple[str, ...]:
    """The systems that have commands: those named, and those of the targets file. Raises InputError."""
    if settings.targets_file is None:
        return tuple(sorted(set(named)))
    from reconciler.targets.config import load_targets  # noqa: PLC0415  brings in every adapter

    return tuple(sorted({*named, *load_targets(settings.targets_file)}))


def _specs(settings: Settings, systems: tuple[str, ...]) -> tuple[TopicSpec, ...]:
    return TopicNames(settings.topic_prefix).specs(systems_of(settings, systems))


def _wanted(
    cluster: Cluster, settings: Settings, systems: tuple[str, ...], replication_factor: int | None
) -> list[WantedTopic]:
    return cluster.wanted(
        _specs(settings, systems), partitions=settings.partitions, replication_factor=replication_factor
    )


def _record(spec: TopicSpec) -> str:
    return "raw bytes" if spec.record is None else spec.record.__name__


def _kept(spec: TopicSpec) -> str:
    if spec.retention_ms is None:
        return "the last of each key"
    return "for ever" if spec.retention_ms == FOREVER_MS else f"{spec.retention_ms // _DAY_MS} days"
