"""`reconciler actions`: send actions that stand in a file, and watch actions go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reconciler.json_form import to_json
from reconciler.records import Action
from reconciler.sdk import KafkaSettings, Producer, ProducerSettings, RedisFence
from reconciler.values.instant import format_instant
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.topics import TopicNames
from streams.cli.offline import read_actions
from streams.cli.output import as_json, print_json_lines
from streams.codec import codec_of
from streams.reading import Found, follow, read_topic
from streams.settings import Settings, load_settings

_bootstrap = click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")


@click.group()
def actions() -> None:
    """Send actions from a file, and watch them go by."""


@actions.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_bootstrap
@as_json
def send(file: Path, bootstrap_servers: str | None, is_json: bool) -> None:
    """Send the actions of FILE, one JSON object a line ('-' is standard input), in their order.

    The whole file is read first: if any line can't be used, nothing is sent. What was sent before is recognised by its
    action_id, so that sending a file again does no harm.
    """
    settings = _settings(bootstrap_servers)
    ready = list(read_actions(file))
    fence = None if settings.redis_url is None else RedisFence(settings.redis_url)
    with Producer(_producer_settings(settings), fence=fence) as producer:
        sent = [producer.emit(action) for action in ready]
    if is_json:
        print_json_lines({"action_id": each.action_id, "resource": each.resource, "stage": each.stage} for each in sent)
    click.echo(f"{len(sent)} actions sent.", err=True)


@actions.command()
@click.option("--resource", help="Only those of this resource.")
@click.option("--run", "run_id", help="Only those of this run.")
@click.option("--from-start", is_flag=True, help="All that are there, and not only what comes.")
@click.option("--follow/--no-follow", "is_following", default=True, show_default=True, help="Go on until Ctrl-C.")
@_bootstrap
@as_json
def tail(
    resource: str | None,
    run_id: str | None,
    from_start: bool,
    is_following: bool,
    bootstrap_servers: str | None,
    is_json: bool,
) -> None:
    """Show the actions as they come."""
    settings = _settings(bootstrap_servers)
    codec, topic = codec_of(settings), TopicNames(settings.topic_prefix).actions
    found = follow(settings, [topic], from_start=from_start) if is_following else read_topic(settings, topic)
    try:
        for each in found:
            action = None if each is None else _action(each, codec)
            if action is None or resource not in (None, action.resource) or run_id not in (None, action.run_id):
                continue
            if is_json:
                print_json_lines([to_json(action)])
            else:
                click.echo(_line(action))
    except KeyboardInterrupt:
        return


def _action(found: Found, codec: Codec) -> Action | None:
    """The action of a record; None, and a word on standard error, for what is none."""
    try:
        record = codec.decode(found.value)
    except DecodeError as error:
        click.echo(f"{found.topic}/{found.partition}/{found.offset} can't be read: {error}", err=True)
        return None
    return record if isinstance(record, Action) else None


def _line(action: Action) -> str:
    written = ", ".join([*sorted(action.set), *(f"-{path}" for path in sorted(action.unset))])
    by = f" by {action.actor.id}" if action.actor is not None else ""
    return (
        f"{format_instant(action.occurred_at)[:19]}  {action.stage:<9}  {action.resource}  {action.operation}"
        f"{f' ({written})' if written else ''}  {action.operation_id}{by}"
    )


def _settings(bootstrap_servers: str | None) -> Settings:
    return load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))


def _producer_settings(settings: Settings) -> ProducerSettings:
    client: dict[str, Any] = {
        name: value for name, value in settings.client_config().items() if name != "bootstrap.servers"
    }
    kafka = KafkaSettings(
        bootstrap_servers=settings.bootstrap_servers,
        topic_prefix=settings.topic_prefix,
        delivery_timeout_s=settings.delivery_timeout_s,
        client=client,
    )
    # The end of the file is the end of the process: what is lost is told then, and not after each line.
    return ProducerSettings(kafka=kafka, codec=codec_of(settings), wait=False)
