"""`reconciler ledger`: the record of what was done, checked against its chain, and as a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import click
import msgspec
import orjson

from reconciler.contracts.loader import load_contracts
from reconciler.contracts.model import ContractSet
from reconciler.ledger.checking import Fault, Stored
from reconciler.ledger.export import check_lines, closing_lines, line_of, placed_action, seal_of
from reconciler.ledger.telling import ToldChange, ToldRecord, told
from reconciler.records import Action, RollbackEvent, RollbackRequest, operation_of
from reconciler.values.errors import InputError
from reconciler.values.instant import format_instant
from reconciler.values.json_value import ABSENT, RECORD_DEPTH, Absent, Json, canonical, parse
from reconciler.values.resource_key import parse_resource_key
from streams.cli.offline import read_lines
from streams.cli.output import as_json, print_json_lines
from streams.codec import codec_of
from streams.ledger import Ledger, PartitionChecked
from streams.settings import Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAULTS: Final = 1
_SHOWN_VALUE_CHARACTERS: Final = 200
_OWNER_ONLY: Final = 0o600

_bootstrap = click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
_file = click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="An export of the ledger, in the place of Kafka.",
)


def _choosing(command: F) -> F:
    """Of what the record is asked."""
    options = [
        click.option("--run", "run_id", help="What this run did."),
        click.option("--resource", help="Everything about this resource, system/type/id."),
        click.option("--operation", "operation_id", help="What this operation did."),
        click.option("--rollback", "rollback_id", help="What this rollback undid."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def ledger() -> None:
    """The immutable record: of a run, an operation, a resource or a rollback; checked; and as a file."""


# -- show


@ledger.command()
@_choosing
@_file
@click.option("--contracts", "contracts_dir", type=click.Path(path_type=Path), help="Folder of contracts, for masking.")
@_bootstrap
@as_json
def show(
    file: Path | None,
    contracts_dir: Path | None,
    bootstrap_servers: str | None,
    is_json: bool,
    **chosen: str | None,
) -> None:
    """Who did what, by which rule, what it changed, and what undid it, in the order of time."""
    name, value = _one(chosen)
    settings = _settings(bootstrap_servers)
    contracts = _contracts(contracts_dir or settings.contracts_dir)
    if file is not None:
        rows = _chosen_rows(told(_stored_in(file), contracts), name, value)
        said: list[dict[str, Any]] = []
    else:
        with Ledger(settings, codec_of(settings)) as source:
            records = source.of_resource(value) if name == "resource" else source.touched(_wanted(name, value))
            rows = _chosen_rows(told(records, contracts), name, value)
            said = _said(source, value) if name == "rollback_id" else []
    if not rows and not said:
        raise InputError(f"the ledger has nothing of {value!r}; check the name")
    if is_json:
        print_json_lines([*said, *(_row(row) for row in rows)])
        return
    for item in said:
        click.echo(_said_line(item))
    for row in rows:
        for line in _lines(row):
            click.echo(line)
    click.echo(_counted(len(rows), "record"), err=True)


def _one(chosen: dict[str, str | None]) -> tuple[str, str]:
    given = [(name, value) for name, value in chosen.items() if value is not None]
    if len(given) != 1:
        raise InputError("say of what: one of --run, --resource, --operation and --rollback")
    if given[0][0] == "resource":
        parse_resource_key(given[0][1])
    return given[0]


def _wanted(name: str, value: str) -> Callable[[Action], bool]:
    if name == "operation_id":
        return lambda action: value in (action.operation_id, operation_of(action))
    return lambda action: action.run_id == value


def _chosen_rows(rows: list[ToldRecord], name: str, value: str) -> list[ToldRecord]:
    """The rows that are asked for; of a rollback also those that it undid."""
    if name == "resource":
        return [row for row in rows if row.resource == value]
    if name == "operation_id":
        return [row for row in rows if value in (row.operation_id, row.undoes)]
    if name == "run_id":
        return [row for row in rows if row.run_id == value]
    return [row for row in rows if row.run_id == value or any(_run_of(each) == value for each in row.undone_by)]


def _run_of(operation_id: str) -> str:
    return operation_id.rpartition("/")[0]


def _said(source: Ledger, rollback_id: str) -> list[dict[str, Any]]:
    """What people said to a rollback and where it stood, in the order of time."""
    requests = [_request_row(each) for each in source.requests(rollback_id)]
    events = [_event_row(each) for each in source.events(rollback_id)]
    return sorted([*requests, *events], key=lambda row: row["at"] or "")


def _request_row(said: RollbackRequest) -> dict[str, Any]:
    return {
        "at": None if said.requested_at is None else format_instant(said.requested_at),
        "said": said.verb,
        "by": None if said.requested_by is None else msgspec.to_builtins(said.requested_by),
        "roles": said.roles,
        "mode": said.mode,
        "reason": said.reason,
        "plan_hash": said.plan_hash,
        "approvals": [approval.by.id for approval in said.approvals],
        # The values that people decided on aren't told: they may be sensitive.
        "resolutions": [f"{item.take} {item.resource}{item.path}" for item in said.resolutions],
    }


def _event_row(event: RollbackEvent) -> dict[str, Any]:
    return {
        "at": format_instant(event.occurred_at),
        "status": event.status,
        "sequence": event.sequence,
        "reason": event.reason,
        "plan_hash": event.plan_hash,
        "counts": event.counts,
    }


def _said_line(item: dict[str, Any]) -> str:
    at = (item["at"] or "")[:19]
    if "status" in item:
        counts = ", ".join(f"{count} {name}" for name, count in item["counts"].items() if count)
        return f"{at:19}  rollback  {item['status']}{f' ({counts})' if counts else ''}"
    by = item["by"]["id"] if item["by"] else "somebody"
    more = "; ".join([*item["approvals"], *item["resolutions"]])
    reason = f": {item['reason']}" if item["reason"] else ""
    return f"{at:19}  said      {item['said']} by {by}{f' ({more})' if more else ''}{reason}"


def _row(row: ToldRecord) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(row)
    return data | {"occurred_at": format_instant(row.occurred_at)}


def _lines(row: ToldRecord) -> Iterator[str]:
    by = "" if row.actor is None else f"  by {row.actor.id}"
    rule = f"  rule “{row.rule}”" if row.rule else ""
    again = "  (came again)" if row.is_repeated else ""
    yield (
        f"{format_instant(row.occurred_at)[:19]:19}  {row.stage:<9} {row.operation:<6}  {row.resource}  {row.operation_id}"
        f"{by}{rule}{again}"
    )
    for change in row.changes:
        yield f"    {change.path or 'the record'}: {_before(change)} → {_value(change.after)}"
    if row.undoes is not None:
        yield f"    undoes {row.undoes}"
    if row.compensation is not None:
        yield f"    made good by {row.compensation}"
    for name in row.undone_by:
        yield f"    undone by {name}"


def _before(change: ToldChange) -> str:
    return _value(change.before) if change.is_before_known else "not known"


def _value(value: Json | Absent) -> str:
    text = "nothing" if value is ABSENT else canonical(value).decode()
    return text if len(text) <= _SHOWN_VALUE_CHARACTERS else f"{text[:_SHOWN_VALUE_CHARACTERS]}…"


# -- verify


@ledger.command()
@click.option("--resource", help="Only this resource.")
@_file
@_bootstrap
@as_json
def verify(resource: str | None, file: Path | None, bootstrap_servers: str | None, is_json: bool) -> None:
    """Check the ledger against its hash chains: each gap, edit, insertion and swap is named. Exit with 1 for one."""
    if file is not None:
        if resource is not None:
            raise InputError("--file and --resource can't stand together; an export is checked whole")
        _verify_file(file, is_json)
        return
    settings = _settings(bootstrap_servers)
    totals = _Totals()
    with Ledger(settings, codec_of(settings)) as source:
        for checked in _checks(source, resource):
            faults = [*_lost(checked, resource), *checked.faults]
            totals.take(checked, len(faults))
            if is_json:
                print_json_lines(msgspec.to_builtins(fault) for fault in faults)
                continue
            for fault in faults:
                where = f"{fault.resource or 'the ledger'} at {fault.place}" if fault.place else fault.resource
                click.echo(f"{fault.kind:8}  {where}: {fault.message}")
    click.echo(totals.told(), err=True)
    if totals.faults:
        sys.exit(EXIT_FAULTS)


def _checks(source: Ledger, resource: str | None) -> Iterator[PartitionChecked]:
    if resource is not None:
        parse_resource_key(resource)
        yield source.check(source.partition_of(resource), resource)
        return
    for partition in source.partitions:
        yield source.check(partition)


def _lost(checked: PartitionChecked, resource: str | None) -> list[Fault]:
    """A partition of which the beginning was deleted: told once, beside what is missing of each resource."""
    partition = checked.partition
    if partition.begins_at == 0 or resource is not None:
        return []
    message = (
        f"Partition {partition.number} begins at offset {partition.begins_at}: older records were deleted;"
        " the topic must have retention.ms=-1 (`reconciler topics verify`)."
    )
    return [
        Fault(
            kind="removed",
            resource="",
            place=f"{partition.number}/{partition.begins_at}",
            operation_id="",
            message=message,
        )
    ]


class _Totals:
    def __init__(self) -> None:
        self.faults = self.resources = self.records = self.unread = self.repeated = self.unusable = 0
        self.ends: dict[str, tuple[int, str]] = {}

    def take(self, checked: PartitionChecked, faults: int) -> None:
        self.faults += faults
        self.resources += checked.resources
        self.records += checked.records
        self.unread += checked.unread
        self.repeated += checked.repeated
        self.unusable += len(checked.partition.unusable)
        for link in checked.links:
            if link.position:
                self.ends[link.stored.action.resource] = (link.position, link.chain)

    def told(self) -> str:
        parts = [f"{_counted(self.records, 'record')} of {_counted(self.resources, 'resource')}"]
        parts += [f"{self.repeated} came again"] if self.repeated else []
        parts += [f"{self.unread} not read by the worker yet"] if self.unread else []
        parts += [f"{self.unusable} that are no part of it"] if self.unusable else []
        return f"{', '.join(parts)}: {_counted(self.faults, 'fault')}. Seal {seal_of(self.ends)}."


def _verify_file(file: Path, is_json: bool) -> None:
    checked = check_lines(read_lines(file, lambda text: parse(text, RECORD_DEPTH)))
    if is_json:
        print_json_lines(fault._asdict() for fault in checked.faults)
    else:
        for fault in checked.faults:
            place = f"{file}:{fault.line}" if fault.line else str(file)
            about = " ".join(part for part in (fault.resource, fault.operation_id) if part)
            click.echo(f"{place}: {f'{about}: ' if about else ''}{fault.message}.")
    ending = "A selection has no seal" if checked.seal is None else f"Seal {checked.seal}"
    click.echo(
        f"{_counted(checked.records, 'record')} of {_counted(checked.resources, 'resource')}: "
        f"{_counted(len(checked.faults), 'fault')}. {ending}.",
        err=True,
    )
    if checked.faults:
        sys.exit(EXIT_FAULTS)


# -- export


@ledger.command()
@_choosing
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, readable by you alone; otherwise standard output.",
)
@_bootstrap
def export(output: Path | None, bootstrap_servers: str | None, **chosen: str | None) -> None:
    """Write the ledger, or a part of it, as JSON Lines that `verify --file` checks and `fold --actions` reads.

    Values are written as they are, sensitive ones too. Exits with 1 where the ledger itself is faulty.
    """
    is_whole = all(value is None for value in chosen.values())
    name, value = ("", "") if is_whole else _one(chosen)
    settings = _settings(bootstrap_servers)
    is_wanted = _wanted(name, value) if name not in ("", "resource") else None
    faults = records = 0
    ends: dict[str, tuple[int, str]] = {}
    with Ledger(settings, codec_of(settings)) as source, _written(output) as stream:
        for checked in _checks(source, value if name == "resource" else None):
            faults += len(checked.faults)
            for link in checked.links:
                action = link.stored.action
                if is_wanted is None or is_wanted(action):
                    stream.write(orjson.dumps(line_of(link)) + b"\n")
                    records += 1
                if link.position:
                    ends[action.resource] = (link.position, link.chain)
        if is_wanted is None:
            for line in closing_lines(ends, records):
                stream.write(orjson.dumps(line) + b"\n")
    click.echo(f"{_counted(records, 'record')} written.", err=True)
    if faults:
        click.echo(f"reconciler: the ledger has {_counted(faults, 'fault')}; run `reconciler ledger verify`", err=True)
        sys.exit(EXIT_FAULTS)


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    except OSError as error:
        raise InputError(f"{output} can't be written: {error.strerror}; check the path") from None
    with os.fdopen(descriptor, "wb") as stream:
        yield stream


def _stored_in(file: Path) -> Iterator[Stored]:
    """The records of an export."""
    for found in read_lines(file, lambda text: placed_action(parse(text, RECORD_DEPTH))):
        if found is not None:
            yield found


def _contracts(folder: Path | None) -> ContractSet:
    return ContractSet() if folder is None else load_contracts(folder)


def _settings(bootstrap_servers: str | None) -> Settings:
    return load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
