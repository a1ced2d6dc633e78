"""`reconciler drift` and `reconciler holds`: what has drifted, what is stopped, and what a person decides about it."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any, TypeVar

import click

from reconciler.contracts.loader import load_contracts
from reconciler.contracts.masking import masked_drift
from reconciler.contracts.model import Contract, ContractSet
from reconciler.json_form import to_json
from reconciler.machines.head import Head
from reconciler.values.instant import format_instant
from reconciler.values.resource_key import parse_resource_key
from streams.cli.output import as_json, print_json_lines, print_table
from streams.codec import codec_of
from streams.decisions import Verb, decide
from streams.expected import read_heads
from streams.settings import load_settings

F = TypeVar("F", bound=Callable[..., Any])

_bootstrap = click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")


def _deciding(command: F) -> F:
    """What every decision says."""
    options = [
        click.argument("resource"),
        click.option("--by", "decided_by", default=getpass.getuser, show_default="you", help="Who decides."),
        click.option("--reason", default="", help="Why; it is kept."),
        _bootstrap,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def drift() -> None:
    """See what has drifted, and decide what the contracts leave to people."""


@drift.command("list")
@_bootstrap
@as_json
def list_drift(bootstrap_servers: str | None, is_json: bool) -> None:
    """Every open drift."""
    heads = [head for head in _heads(bootstrap_servers) if head.drift is not None]
    if is_json:
        folder = load_settings().contracts_dir
        contracts = ContractSet() if folder is None else load_contracts(folder)
        print_json_lines(_drift_row(head, contracts.for_resource(head.resource)) for head in heads)
        return
    rows = [
        (head.resource, head.drift.verdict, ", ".join(change.path or "the record" for change in head.drift.changes))
        for head in heads
        if head.drift is not None
    ]
    print_table(("RESOURCE", "VERDICT", "FIELDS"), rows)


@drift.command("decide")
@_deciding
@click.option("--take", type=click.Choice(["expected", "actual"]), required=True, help="What stands from now on.")
@click.option("--path", help="The field; all that drifted, if none is named.")
@click.option("--version", "version_seen", help="The version that you saw: on another one nothing is done.")
def decide_drift(
    resource: str,
    decided_by: str,
    reason: str,
    bootstrap_servers: str | None,
    take: str,
    path: str | None,
    version_seen: str | None,
) -> None:
    """Put a drifted resource back, or take what is there as expected."""
    verb: Verb = "expected" if take == "expected" else "adopt"
    _decide(resource, verb, decided_by, reason, bootstrap_servers, path=path, version_seen=version_seen)


@click.group()
def holds() -> None:
    """See what is stopped, stop corrections of a resource, and release them."""


@holds.command("list")
@_bootstrap
@as_json
def list_holds(bootstrap_servers: str | None, is_json: bool) -> None:
    """Every resource on hold."""
    heads = [head for head in _heads(bootstrap_servers) if head.hold is not None]
    rows = [
        {
            "resource": head.resource,
            "kind": head.hold.kind,
            "since_at": format_instant(head.hold.since_at),
            "reason": head.hold.reason,
        }
        for head in heads
        if head.hold is not None
    ]
    if is_json:
        print_json_lines(rows)
    else:
        print_table(("RESOURCE", "KIND", "SINCE", "REASON"), [tuple(row.values()) for row in rows])


@holds.command("place")
@_deciding
def place_hold(resource: str, decided_by: str, reason: str, bootstrap_servers: str | None) -> None:
    """Stop corrections of a resource."""
    _decide(resource, "hold", decided_by, reason, bootstrap_servers)


@holds.command("release")
@_deciding
def release_hold(resource: str, decided_by: str, reason: str, bootstrap_servers: str | None) -> None:
    """Let corrections of a resource go on."""
    _decide(resource, "release", decided_by, reason, bootstrap_servers)


def _heads(bootstrap_servers: str | None) -> list[Head]:
    settings = load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))
    return sorted(read_heads(settings, codec_of(settings)), key=lambda head: head.resource)


def _drift_row(head: Head, contract: Contract) -> dict[str, Any]:
    assert head.drift is not None
    return {
        "resource": head.resource,
        "drift_id": head.drift.drift_id,
        "verdict": head.drift.verdict,
        "changes": [to_json(masked_drift(contract, change)) for change in head.drift.changes],
        "version": head.drift.version,
        "observed_at": None if head.drift.observed_at is None else format_instant(head.drift.observed_at),
        "is_held": head.hold is not None,
        "pending_command": None if head.pending is None else head.pending.command.command_id,
    }


def _decide(
    resource: str,
    verb: Verb,
    decided_by: str,
    reason: str,
    bootstrap_servers: str | None,
    *,
    path: str | None = None,
    version_seen: str | None = None,
) -> None:
    parse_resource_key(resource)
    settings = load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))
    decision = decide(
        settings,
        codec_of(settings),
        resource,
        verb,
        decided_by,
        path=path,
        version_seen=version_seen,
        reason=reason,
    )
    click.echo(f"Sent as decision {decision.decision_id}; `reconciler drift list` shows what comes of it.", err=True)
