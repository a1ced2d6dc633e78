"""`fold`, `diff`, `plan` and `apply`: the rules of the product on JSON Lines files alone."""

from __future__ import annotations

import gc
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from reconciler.contracts.model import ContractSet
from reconciler.json_form import (
    action_from_json,
    action_from_text,
    observation_from_json,
    parse_record,
    to_json,
)
from reconciler.ledger.export import MEMBER, action_in
from reconciler.offline import FaultyPlan, applied, diffed, folded, latest_observations, planned
from reconciler.plan.model import Plan
from reconciler.plan.request import request_from_json
from reconciler.plan.showing import plan_from_json, plan_to_json
from reconciler.records import Action, Observation, Record, RollbackRequest
from reconciler.values.errors import InputError
from reconciler.values.instant import parse_instant
from reconciler.values.json_value import Json

EXIT_REJECTED = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

_R = TypeVar("_R")

_LEDGER = f'"{MEMBER}"'.encode()

_file = click.Path(exists=False, dir_okay=False, allow_dash=True, path_type=Path)
_actions = click.option("--actions", "actions_file", type=_file, required=True, help="Actions, one JSON object a line.")
_actual = click.option(
    "--actual", "actual_file", type=_file, required=True, help="Observations, one JSON object a line."
)
_contracts = click.option(
    "--contracts", "contracts_folder", type=click.Path(path_type=Path), help="Folder of contracts, a YAML file each."
)


@click.command()
@_actions
@_contracts
def fold(actions_file: Path, contracts_folder: Path | None) -> None:
    """Fold actions into expected state: one line a resource."""
    remarks: list[str] = []
    _print_lines(folded(read_actions(actions_file), _load(contracts_folder), remarks))
    _say(remarks)


@click.command()
@_actions
@_actual
@_contracts
def diff(actions_file: Path, actual_file: Path, contracts_folder: Path | None) -> None:
    """Compare expected with actual state: one line a resource, with the command that would be sent."""
    check_one_stdin(actions_file, actual_file)
    observations = read_observations(actual_file)
    remarks: list[str] = []
    _print_lines(diffed(read_actions(actions_file), observations, _load(contracts_folder), remarks))
    _say(remarks)


@click.command()
@_actions
@_actual
@click.option("--request", "request_file", type=_file, required=True, help="The rollback request, one JSON object.")
@_contracts
@click.option("--now", "now", help="The instant to judge ages by; without it the latest that the files speak of.")
def plan(
    actions_file: Path, actual_file: Path, request_file: Path, contracts_folder: Path | None, now: str | None
) -> None:
    """Plan a rollback. Exits with 3 if a contract rejects it."""
    check_one_stdin(actions_file, actual_file, request_file)
    request = located(request_file, None, request_from_json, read_json(request_file, RollbackRequest))
    instant = None if now is None else located(Path("--now"), None, parse_instant, now)
    contracts = _load(contracts_folder)
    actions, observations = list(read_actions(actions_file)), read_observations(actual_file)
    remarks: list[str] = []
    try:
        result = located(
            request_file,
            None,
            lambda asked: planned(actions, observations, asked, contracts, instant, remarks),
            request,
        )
    except FaultyPlan as error:
        _say(map(str, error.faults))
        _say(["the plan that was made is wrong, so it isn't shown. This is a bug: please report it with the files."])
        sys.exit(EXIT_BUG)
    _print_lines(iter([plan_to_json(result, contracts)]))
    _say(remarks)
    if result.status == "rejected":
        sys.exit(EXIT_REJECTED)


@click.command()
@click.option("--plan", "plan_file", type=_file, required=True, help="A plan, as `plan` printed it.")
@_actual
def apply(plan_file: Path, actual_file: Path) -> None:
    """Apply every command of a plan to actual state: one line a resource."""
    check_one_stdin(plan_file, actual_file)
    result = located(plan_file, None, plan_from_json, read_json(plan_file, Plan))
    latest = latest_observations(read_observations(actual_file))
    refusals: list[str] = []
    after = applied(result, latest, refusals)
    _print_lines(to_json(after[resource]) for resource in sorted(after))
    _say(refusals)
    if refusals:
        sys.exit(1)


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        click.echo(f"reconciler: {sentence}", err=True)


def check_one_stdin(*files: Path) -> None:
    """Raises InputError where more than one of these is the standard input."""
    if [str(file) for file in files].count("-") > 1:
        raise InputError("only one file can be '-', the standard input; give the others by their names")


def _load(folder: Path | None) -> ContractSet:
    # All that is read from here on is kept until the end of the process: looking for garbage would cost a sixth of the time.
    gc.disable()
    if folder is None:
        return ContractSet(())
    from reconciler.contracts.loader import load_contracts  # noqa: PLC0415  YAML is a third of what `fold` would import

    return load_contracts(folder)


def _print_lines(lines: Iterator[Any]) -> None:
    write = sys.stdout.buffer.write
    for line in lines:
        write(canonical_line(line))
    sys.stdout.buffer.flush()


def canonical_line(line: Json) -> bytes:
    """A line of output: keys in the order in which they are meant to be read."""
    return orjson.dumps(line) + b"\n"


def read_actions(file: Path) -> Iterator[Action]:
    """The actions of a file of JSON Lines, which may be an export of the ledger. Raises InputError naming file and line."""
    return (action for action in read_lines(file, _action_of) if action is not None)


def _action_of(text: bytes) -> Action | None:
    """The action of a line; None for one that closes an export."""
    if _LEDGER not in text:
        return action_from_text(text)
    data = action_in(parse_record(Action, text))
    return None if data is None else action_from_json(data)


def read_observations(file: Path) -> list[Observation]:
    """The observations of a file. Raises InputError naming file, line and field."""
    return list(read_lines(file, lambda text: observation_from_json(parse_record(Observation, text))))


def read_lines(file: Path, read: Callable[[bytes], _R]) -> Iterator[_R]:
    for number, line in enumerate(_open(file), 1):
        # Without its end, so that no reader can find anything wrong on the line behind it.
        text = (line.removeprefix(BOM_UTF8) if number == 1 else line).rstrip()
        if text:
            yield located(file, number, read, text)


def read_json(file: Path, kind: type[Record]) -> Json:
    """The JSON of a file, which describes a record of a kind. Raises InputError naming the file."""
    text = b"".join(_open(file)).removeprefix(BOM_UTF8).rstrip()
    return located(file, None, lambda whole: parse_record(kind, whole), text)


def _open(file: Path) -> Iterator[bytes]:
    try:
        if str(file) == "-":
            if sys.stdin is None:
                raise InputError("-: the standard input is closed; give a file by its name")
            yield from sys.stdin.buffer
            return
        with file.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}; check the path") from None


def located(file: Path, line: int | None, read: Callable[[Any], _R], data: Any) -> _R:
    """Reads, and puts the file and line before what an input error says."""
    try:
        return read(data)
    except InputError as error:
        place = str(file) if line is None else f"{file}:{line}"
        raise InputError(f"{place}: {error}") from None


__all__ = ["apply", "diff", "fold", "plan", "read_actions"]
