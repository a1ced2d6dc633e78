"""`reconciler schemas`: list them, check them before a release, freeze them, register them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from reconciler.values.errors import InputError
from reconciler.wire.codec import subject_of
from reconciler.wire.conversion import RECORDS
from reconciler.wire.schema_check import check_schemas, freeze_schemas
from reconciler.wire.schema_folder import SchemaFolder, packaged_folder
from reconciler.wire.topics import TopicNames
from streams.cli.output import as_json, print_json_lines, print_table
from streams.cli.topics import systems_of
from streams.settings import Settings, load_settings

EXIT_FINDINGS = 1

_PATIENCE_S = 30
_RETRIES = 3

_NAMES = {kind: name for name, kind in RECORDS.items()}

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Another folder of schemas than that of this installation.",
)


@click.group()
def schemas() -> None:
    """The Avro schemas of the records: what is packaged, whether it is compatible, and the registry."""


@schemas.command(name="list")
@_folder
@as_json
def list_(folder: Path | None, is_json: bool) -> None:
    """List every committed version with its packaged id."""
    versions = [version for versions in _open(folder).versions.values() for version in versions]
    if is_json:
        print_json_lines({"schema": each.name, "version": each.version, "id": each.id} for each in versions)
    else:
        print_table(("schema", "version", "id"), [(each.name, each.version, each.id) for each in versions])


@schemas.command()
@_folder
@as_json
def check(folder: Path | None, is_json: bool) -> None:
    """Check that the schemas are complete, documented, and FULL_TRANSITIVE compatible with every committed version; exit
    with 1 if not."""
    opened = _open(folder)
    findings = check_schemas(opened)
    if is_json:
        print_json_lines({"finding": finding} for finding in findings)
    else:
        for finding in findings:
            click.echo(finding)
    if findings:
        sys.exit(EXIT_FINDINGS)
    count = sum(len(versions) for versions in opened.versions.values())
    click.echo(f"{len(opened.versions)} schemas in {count} versions are complete and compatible.", err=True)


@schemas.command()
@_folder
@as_json
def freeze(folder: Path | None, is_json: bool) -> None:
    """Commit the schemas that changed as new versions, each with a packaged id of its own, and write the lock."""
    frozen = freeze_schemas(_open(folder))
    if is_json:
        print_json_lines({"frozen": each} for each in frozen)
    else:
        for each in frozen:
            click.echo(each)
    if not frozen:
        click.echo("Every schema is committed already.", err=True)


@schemas.command()
@click.option("--registry-url", help="The schema registry.")
@click.option("--prefix", "topic_prefix", help="Put before every topic's name.")
@click.option("--targets", "targets_file", type=click.Path(path_type=Path, dir_okay=False), help="The targets file.")
@click.option("--system", "systems", multiple=True, help="A system that has commands; may be given again.")
@as_json
def register(systems: tuple[str, ...], is_json: bool, **given: Any) -> None:
    """Register every version for every topic that carries it, and set each subject's compatibility to FULL_TRANSITIVE.

    What is registered already stays. The commands' topics are registered for the systems of the targets file and for those
    named by --system.
    """
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    if settings.registry_url is None:
        raise InputError("no registry is configured; give --registry-url or set RECONCILER_REGISTRY_URL")
    from reconciler.wire.registry import Registry  # noqa: PLC0415  its client is slow to load

    # Nothing waits behind this but a person or a deployment: better patient than wrong.
    registry = Registry(settings.registry_url, settings={"timeout": _PATIENCE_S, "max.retries": _RETRIES})
    folder = packaged_folder()
    done = [
        registered
        for subject, name in _subjects(settings, systems)
        for registered in registry.register(subject, folder.versions[name])
    ]
    if is_json:
        print_json_lines(
            {"subject": each.subject, "version": each.version, "id": each.id, "registered": each.is_new}
            for each in done
        )
    else:
        print_table(
            ("subject", "version", "id", ""),
            [(each.subject, each.version, each.id, "registered" if each.is_new else "exists") for each in done],
        )


def _open(folder: Path | None) -> SchemaFolder:
    return packaged_folder() if folder is None else SchemaFolder(folder)


def _subjects(settings: Settings, systems: tuple[str, ...]) -> list[tuple[str, str]]:
    """Subject and schema name of every topic that carries records."""
    specs = TopicNames(settings.topic_prefix).specs(systems_of(settings, systems))
    return [(subject_of(spec.name), _NAMES[spec.record]) for spec in specs if spec.record is not None]
