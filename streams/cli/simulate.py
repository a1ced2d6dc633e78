"""`reconciler simulate`: the whole system under faults, by seed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

import click
import msgspec

from reconciler.values.errors import InputError
from streams.cli.output import as_json, print_json_lines
from streams.simulation.judging import judge_many, lived, shrunk
from streams.simulation.simulation import Simulation, Verdict

EXIT_BROKEN = 1
_SHOWN_LINES = 80
_MOST_TOLD = 5


@click.command()
@click.option("--seed", type=click.IntRange(0), help="One simulation.")
@click.option("--seeds", metavar="A..B", help="Many simulations, B included; 1..100 if neither is given.")
@click.option("--only", help="Of a seed's faults and doings only these, by name, separated by commas.")
@click.option("--trace", "is_traced", is_flag=True, help="With --seed: print all that happens.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes side by side.")
@as_json
def simulate(seed: int | None, seeds: str | None, only: str | None, is_traced: bool, jobs: int, is_json: bool) -> None:
    """Run the whole system in one process, under a virtual clock and faults chosen by seeds, and check what must always hold.

    A seed gives the same bytes on every run. Exit codes: 0 all invariants hold, 1 one of them doesn't (then the command that
    repeats it is printed), 2 the input can't be used.
    """
    if seed is not None and seeds is not None:
        raise InputError("give --seed or --seeds, not both")
    if seed is None:
        if only is not None or is_traced:
            raise InputError("--only and --trace are about one simulation: give its --seed")
        _many(_range_of(seeds or "1..100"), jobs, is_json)
    else:
        names = None if only is None else [name.strip() for name in only.split(",")]
        _one(seed, names, is_traced, is_json)


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
