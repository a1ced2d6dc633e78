"""`reconciler contracts`: what may stand in a contract, what is wrong with those that are there, what holds for a resource, and
whether its authors' scenarios come out as they expect."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec

from reconciler.contracts.explain import Explanation, FieldExplanation, explain
from reconciler.contracts.form import json_schema
from reconciler.contracts.lint import lint
from reconciler.contracts.loader import SCENARIO_SUFFIX, load_contracts, read_scenarios, read_sources
from reconciler.contracts.model import FieldRule
from reconciler.scenarios.form import scenarios_of
from reconciler.scenarios.trial import Verdict, try_scenario
from reconciler.values.errors import InputError
from streams.cli.output import as_json, print_json_lines

EXIT_FINDINGS = 1
_FOLDER_VARIABLE = "RECONCILER_CONTRACTS_DIR"


@click.group()
def contracts() -> None:
    """The contracts: their form, their faults, and what they say about a resource."""


@contracts.command()
def schema() -> None:
    """Print the JSON Schema of a contract file, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())


@contracts.command(name="lint")
@click.argument("folder", type=click.Path(path_type=Path), envvar=_FOLDER_VARIABLE)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings as well.")
@as_json
def lint_(folder: Path, strict: bool, is_json: bool) -> None:
    """Check every contract in FOLDER, or one file; exit with 1 for an error."""
    sources = read_sources(folder)
    faults = lint(sources)
    if is_json:
        print_json_lines(msgspec.to_builtins(fault) for fault in faults)
    else:
        for fault in faults:
            place = f"{fault.file}:{fault.line}:{fault.column}" if fault.line else fault.file
            click.echo(f"{place}: {fault.severity}: {fault.message}")
    counts = Counter(fault.severity for fault in faults)
    click.echo(
        f"{_counted(len(sources), 'contract')}: {_counted(counts['error'], 'error')}, {_counted(counts['warning'], 'warning')}.",
        err=True,
    )
    if counts["error"] or (strict and faults):
        sys.exit(EXIT_FINDINGS)


@contracts.command(name="explain")
@click.argument("resource")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--contracts",
    "folder",
    type=click.Path(path_type=Path),
    envvar=_FOLDER_VARIABLE,
    required=True,
    help="Folder of contracts, a YAML file each.",
)
@as_json
def explain_(resource: str, paths: tuple[str, ...], folder: Path, is_json: bool) -> None:
    """Say which contract holds for RESOURCE, which rule for each PATH in it, and why.

    Without a PATH, for each that the contract names; … stands for any member.
    """
    explanation = explain(load_contracts(folder), resource, paths)
    if is_json:
        print_json_lines([msgspec.to_builtins(explanation)])
        return
    for line in _told(explanation):
        click.echo(line)


@contracts.command(name="test")
@click.argument("folder", type=click.Path(path_type=Path), envvar=_FOLDER_VARIABLE)
@as_json
def test_(folder: Path, is_json: bool) -> None:
    """Try the scenarios beside the contracts in FOLDER, its files *.test.yaml, or one of them; exit with 1 if one fails."""
    sources = read_scenarios(folder)
    if not sources:
        raise InputError(
            f"{folder} holds no scenarios; write some into a file such as crm-contact{SCENARIO_SUFFIX} there"
        )
    loaded = load_contracts(folder.parent if folder.is_file() else folder)
    verdicts = [try_scenario(scenario, loaded) for source in sources for scenario in scenarios_of(source)]
    if is_json:
        print_json_lines(_verdict_row(verdict) for verdict in verdicts)
    else:
        for verdict in verdicts:
            for line in _verdict_lines(verdict):
                click.echo(line)
    failed = sum(not verdict.holds for verdict in verdicts)
    click.echo(f"{_counted(len(verdicts), 'scenario')}: {len(verdicts) - failed} as expected, {failed} not.", err=True)
    if failed:
        sys.exit(EXIT_FINDINGS)


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    scenario = verdict.scenario
    return {
        "file": scenario.file,
        "line": scenario.line,
        "name": scenario.name,
        "holds": verdict.holds,
        "differences": msgspec.to_builtins(verdict.differences),
        "refused": verdict.refused,
    }


def _verdict_lines(verdict: Verdict) -> list[str]:
    scenario = verdict.scenario
    lines = [f"{'ok' if verdict.holds else 'FAILED':6}  {scenario.file}:{scenario.line}: {scenario.name}"]
    if verdict.refused is not None:
        lines.append(f"  nothing was computed: {verdict.refused}")
    return lines + [f"  {line}" for difference in verdict.differences for line in difference.told()]


def _told(explanation: Explanation) -> list[str]:
    lines = [
        f"{explanation.resource}: contract {explanation.contract}, version {explanation.version}",
        f"  {explanation.why}",
        f"  digest {explanation.digest}",
    ]
    for field in explanation.fields:
        lines += ["", f"{field.path or 'the resource itself'}: {_place(field)}", f"  {field.why}", *_settings(field)]
    return lines


def _place(field: FieldExplanation) -> str:
    return "no rule" if field.place is None else f"the rule under {field.place or 'the empty path'}"


def _settings(field: FieldExplanation) -> list[str]:
    """What the rule says: drift and conflict always, anything else where it isn't the default."""
    rule = field.rule
    first = f"{_counted(field.resolvers, 'resolver')}, then " if field.resolvers else ""
    lines = [f"  drift: {rule.drift}", f"  conflict: {first}{rule.conflict}"]
    default = FieldRule()
    for name in ("normalise", "kind", "key", "sensitive", "sources", "immutable", "generated", "confirm"):
        value = getattr(rule, name)
        if value != getattr(default, name):
            lines.append(f"  {name}: {msgspec.json.encode(value).decode()}")
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
