"""`reconciler simulate`: the whole system under faults, by seed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from reconciler.contracts.loader import load_contracts
from reconciler.contracts.model import ContractSet
from reconciler.plan.request import request_from_json
from reconciler.plan.selection import check
from reconciler.records import RollbackRequest
from reconciler.values.errors import InputError
from streams.cli.offline import check_one_stdin, located, read_actions, read_json, read_observations
from streams.cli.output import as_json, print_json_lines
from streams.simulation.judging import judge_many, lived, rehearse_many, rehearsed, shrunk
from streams.simulation.rehearsing import FAULT_LEVELS, Material, assumed
from streams.simulation.report import lines_of, report_on
from streams.simulation.simulation import Simulation, Verdict

EXIT_BROKEN = 1
EXIT_REJECTED = 3
EXIT_TOO_SELDOM = 4
_SHOWN_LINES = 80
_MOST_TOLD = 5


_file = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@click.command()
@click.option("--seed", type=click.IntRange(0), help="One simulation.")
@click.option("--seeds", metavar="A..B", help="Many simulations, B included; 1..100 if neither is given.")
@click.option("--only", help="Of a seed's faults and doings only these, by name, separated by commas.")
@click.option("--trace", "is_traced", is_flag=True, help="With --seed: print all that happens.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes side by side.")
@click.option("--actions", "actions_file", type=_file, help="Rehearse: actions, one JSON object a line.")
@click.option("--request", "request_file", type=_file, help="Rehearse: the rollback request, one JSON object.")
@click.option("--actual", "actual_file", type=_file, help="Rehearse: observations, one JSON object a line.")
@click.option("--contracts", "contracts_folder", type=click.Path(path_type=Path), help="Rehearse: folder of contracts.")
@click.option("--runs", type=click.IntRange(1), help="Rehearse: how often; 100 if it isn't said.")
@click.option(
    "--faults",
    type=click.Choice(list(FAULT_LEVELS)),
    default="some",
    show_default=True,
    help="Rehearse: how much fails, and whether people edit meanwhile.",
)
@click.option(
    "--at-least", type=click.FloatRange(0, 1), default=0.0, help="Rehearse: exit with 4 below this rate of success."
)
@as_json
def simulate(
    seed: int | None,
    seeds: str | None,
    only: str | None,
    is_traced: bool,
    jobs: int,
    actions_file: Path | None,
    request_file: Path | None,
    actual_file: Path | None,
    contracts_folder: Path | None,
    runs: int | None,
    faults: str,
    at_least: float,
    is_json: bool,
) -> None:
    """Run the whole system in one process, under a virtual clock and faults chosen by seeds, and check what must always hold.

    With --actions and --request, rehearse a rollback on your own data instead, as often as --runs says, and report how often it
    comes to a good end and what stands in its way.

    A seed gives the same bytes on every run. Exit codes: 0 all is well, 1 an invariant of the reconciler is broken (then the
    command that repeats it is printed), 2 the input can't be used, 3 the rollback is rejected in every run, 4 it succeeds less
    often than --at-least.
    """
    if seed is not None and seeds is not None:
        raise InputError("give --seed or --seeds, not both")
    if seed is None and (only is not None or is_traced):
        raise InputError("--only and --trace are about one simulation: give its --seed")
    names = None if only is None else [name.strip() for name in only.split(",")]
    if actions_file is None and request_file is None:
        if actual_file is not None or contracts_folder is not None or runs is not None:
            raise InputError(
                "--actual, --contracts and --runs are for a rehearsal: give --actions and --request as well"
            )
        if seed is None:
            _many(_range_of(seeds or "1..100"), jobs, is_json)
        else:
            _one(seed, names, is_traced, is_json)
        return
    if actions_file is None or request_file is None:
        raise InputError("a rehearsal needs both --actions and --request")
    if seeds is not None:
        raise InputError("a rehearsal is repeated as often as --runs says; --seeds doesn't go with it")
    material = read_material(actions_file, request_file, actual_file, contracts_folder, faults)
    if seed is None:
        _rehearsals(material, runs or 100, jobs, at_least, is_json)
    else:
        _rehearsal(material, seed, names, is_traced, is_json)


def read_material(
    actions_file: Path, request_file: Path, actual_file: Path | None, contracts_folder: Path | None, faults: str
) -> Material:
    """What is rehearsed on. Raises InputError naming file, line and field."""
    files = [file for file in (actions_file, request_file, actual_file) if file is not None]
    check_one_stdin(*files)
    request = located(request_file, None, request_from_json, read_json(request_file, RollbackRequest))
    located(request_file, None, lambda asked: check(asked.select), request)
    contracts = ContractSet(()) if contracts_folder is None else load_contracts(contracts_folder)
    actions = list(read_actions(actions_file))
    if not actions:
        raise InputError(f"{actions_file}: holds no action; a rehearsal needs the history that is to be undone")
    observations = [] if actual_file is None else read_observations(actual_file)
    return Material(actions, observations, request, contracts, faults)


def _rehearsals(material: Material, runs: int, jobs: int, at_least: float, is_json: bool) -> None:
    verdicts = rehearse_many(material, range(1, runs + 1), jobs)
    with click.progressbar(verdicts, length=runs, label="rehearsing", file=sys.stderr) as shown:
        rehearsals = list(shown)
    report = report_on(material.request.rollback_id, rehearsals, material.level, assumed(material))
    if is_json:
        print_json_lines([msgspec.to_builtins(report)])
    else:
        for line in lines_of(report):
            click.echo(line)
    if report.broken:
        sys.exit(EXIT_BROKEN)
    if set(report.statuses) == {"rejected"}:
        sys.exit(EXIT_REJECTED)
    if report.rate_of_success < at_least:
        sys.exit(EXIT_TOO_SELDOM)


def _rehearsal(material: Material, seed: int, only: Sequence[str] | None, is_traced: bool, is_json: bool) -> None:
    """One rehearsal, to be looked into."""
    simulation, rehearsal = rehearsed(material, seed, only)
    if is_json:
        print_json_lines([msgspec.to_builtins(rehearsal)])
    else:
        if is_traced:
            for line in simulation.trace.lines():
                click.echo(line)
        click.echo(f"seed {seed}: {rehearsal.status}" + (f"; {rehearsal.reason}" if rehearsal.reason else ""))
        for what in (*rehearsal.conflicts, *rehearsal.blocked):
            click.echo(f"  {what}")
        click.echo(f"  faults and doings: {', '.join(rehearsal.faults) or 'none'}")
    if rehearsal.violations:
        sys.exit(EXIT_BROKEN)
    if rehearsal.status == "rejected":
        sys.exit(EXIT_REJECTED)


def _range_of(text: str) -> range:
    first, dots, last = text.partition("..")
    if not (dots and first.isdecimal() and last.isdecimal()) or int(first) > int(last):
        raise InputError(f"--seeds {text!r} is no range of seeds; write it as 1..2000")
    return range(int(first), int(last) + 1)


def _one(seed: int, only: Sequence[str] | None, is_traced: bool, is_json: bool) -> None:
    simulation, verdict = lived(seed, only)
    if is_json:
        print_json_lines([_row(verdict)])
    else:
        if is_traced:
            for line in simulation.trace.lines():
                click.echo(line)
        click.echo(_summary(verdict))
        _tell_violations(verdict)
        if not verdict.is_good and only is None:
            _tell_shortest(verdict)
    if not verdict.is_good:
        sys.exit(EXIT_BROKEN)


def _many(seeds: range, jobs: int, is_json: bool) -> None:
    digest = hashlib.blake2b(digest_size=16)
    counts: dict[str, int] = {}
    broken: list[Verdict] = []
    with click.progressbar(judge_many(seeds, jobs), length=len(seeds), label="simulating", file=sys.stderr) as verdicts:
        for verdict in verdicts:
            digest.update(f"{verdict.seed} {verdict.digest}\n".encode())
            for name, count in verdict.counts.items():
                counts[name] = counts.get(name, 0) + count
            if is_json:
                print_json_lines([_row(verdict)])
            if not verdict.is_good:
                broken.append(verdict)
    if not is_json:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        click.echo(f"seeds {seeds[0]}..{seeds[-1]}: {len(seeds)} simulations with {told}.")
        click.echo(f"digest {digest.hexdigest()}")
        click.echo("All invariants hold." if not broken else f"Invariants are broken in {len(broken)} of them.")
        for verdict in broken[:_MOST_TOLD]:
            click.echo(f"\n{_summary(verdict)}")
            _tell_violations(verdict)
        if broken:
            _tell_shortest(broken[0])
    if broken:
        sys.exit(EXIT_BROKEN)


def _row(verdict: Verdict) -> dict[str, object]:
    return {
        **msgspec.to_builtins(verdict),
        "is_good": verdict.is_good,
        "again": f"reconciler simulate --seed {verdict.seed}",
    }


def _summary(verdict: Verdict) -> str:
    state = "all invariants hold" if verdict.is_good else "broken"
    return f"seed {verdict.seed}: {state}; {len(verdict.faults)} faults and doings; digest {verdict.digest}"


def _tell_violations(verdict: Verdict) -> None:
    for violation in verdict.violations:
        click.echo(f"  {violation.invariant}: {violation.message}")


def _tell_shortest(verdict: Verdict) -> None:
    """The shortest schedule found that breaks the same, what happens in it, and how to see it again."""
    click.echo("\nlooking for the shortest schedule that breaks it …", err=True)
    names = shrunk(verdict)
    simulation, shortest = lived(verdict.seed, names)
    click.echo(f"\nThe shortest schedule found: {', '.join(names)}")
    for line in _telling_lines(simulation, shortest):
        click.echo(f"  {line}")
    _tell_violations(shortest)
    click.echo(f"\nAgain: reconciler simulate --seed {verdict.seed} --trace --only {','.join(names)}")


def _telling_lines(simulation: Simulation, verdict: Verdict) -> list[str]:
    """The last lines of the trace, without those on resources that no violation speaks of."""
    told = " ".join(violation.message for violation in verdict.violations)
    others = [resource for resource in simulation.estate.resources if resource not in told]
    if len(others) == len(simulation.estate.resources):
        others = []
    lines = list(simulation.trace.lines(lambda line: not any(resource in line for resource in others)))
    return lines[-_SHOWN_LINES:]
