"""The simulation itself: it repeats itself byte for byte, is clean where nothing is broken, and finds the shortest schedule."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.history.resource import ResourceHistory
from reconciler.values.errors import InputError
from streams.cli.main import cli
from streams.simulation.judging import judge, lived, shrunk
from streams.simulation.reading import brought_back_with, undone_with
from streams.simulation.simulation import Parts
from tests.core.histories import RESOURCE, make_action, make_reversal
from tests.streams.simulation.test_mutants import Careless

SEEDS = range(1, int(os.environ.get("SIMULATION_SEEDS", "25")) + 1)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments], catch_exceptions=False)


def test_invariants_hold() -> None:
    broken = {seed: verdict.violations for seed in SEEDS if not (verdict := judge(seed)).is_good}
    assert not broken


def test_a_simulation_is_busy() -> None:
    """That nothing is broken says something only if something happens."""
    verdicts = [judge(seed) for seed in range(1, 16)]
    kinds = {name.partition("#")[0] for verdict in verdicts for name in verdict.faults}
    assert {"crash-after-effects", "pause", "doubled", "misplaced", "read-partial", "edit", "decision", "run"} <= kinds
    assert sum(verdict.counts["outcomes"] for verdict in verdicts) > 25


@pytest.mark.timeout(300)
def test_a_seed_gives_the_same_bytes_in_every_process() -> None:
    """The order of sets and dicts of texts differs between these."""
    program = "from streams.simulation.judging import judge; print([judge(seed).digest for seed in range(20, 24)])"
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in (1, 2)
    ]
    assert told[0] == told[1] == f"{[judge(seed).digest for seed in range(20, 24)]}\n"


def test_nothing_happens_that_is_left_out() -> None:
    simulation, verdict = lived(7, only=["run#1", "edit#2"])
    assert set(verdict.faults) <= {"run#1", "edit#2"}
    assert verdict.is_good
    assert any(line for line in simulation.trace.lines())


@pytest.mark.timeout(300)
def test_the_shortest_schedule_still_breaks_and_nothing_more_can_go() -> None:
    parts = Parts(target=Careless)
    broken = [verdict for seed in SEEDS[:12] if not (verdict := judge(seed, parts=parts)).is_good]
    verdict = min(broken, key=lambda found: len(found.faults))
    names = shrunk(verdict, parts)
    assert len(names) < len(verdict.faults)
    assert not judge(verdict.seed, names, parts).is_good
    assert all(judge(verdict.seed, [other for other in names if other != name], parts).is_good for name in names)


def test_one_seed_on_the_command_line() -> None:
    done = run("--seed", "3", "--trace")
    assert done.exit_code == 0
    assert "owns resources/0 in epoch 1" in done.stdout
    assert f"digest {judge(3).digest}" in done.stdout


def test_many_seeds_on_the_command_line() -> None:
    done = run("--seeds", "1..3", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["seed"] for row in rows] == [1, 2, 3]
    assert all(row["is_good"] and row["again"] == f"reconciler simulate --seed {row['seed']}" for row in rows)
    assert "All invariants hold." in run("--seeds", "1..3").stdout


def test_a_broken_invariant_is_told_with_its_schedule_and_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in SEEDS if not judge(seed, parts=Parts(target=Careless)).is_good)
    monkeypatch.setattr("streams.simulation.simulation.Parts", lambda: Parts(target=Careless))
    monkeypatch.setattr("streams.cli.simulate.shrunk", lambda verdict: verdict.faults)
    done = run("--seeds", f"{seed}..{seed}")
    assert done.exit_code == 1
    assert "no edit destroyed" in done.stdout
    assert f"Again: reconciler simulate --seed {seed} --trace --only " in done.stdout


@pytest.mark.parametrize(
    "arguments", [("--seeds", "5"), ("--seeds", "9..1"), ("--seed", "1", "--seeds", "1..2"), ("--trace",)]
)
def test_wrong_options_are_told(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        run(*arguments)


def test_with_the_undo_of_an_undo_what_it_had_put_back_is_undone() -> None:
    """The third entry undid the second, which had undone the first: without it the second undoes the first again."""
    history = ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    written = make_action(1, before={"/phone": "1"}, set={"/phone": "2"})
    first = make_reversal(2, written.operation_id, "rb-1")
    second = make_reversal(3, "rb-1/undo", "rb-2")
    for action in (written, first, second):
        history.take(action)
    assert undone_with(history.entries, [3]) == {second.action_id, written.action_id}
    assert undone_with(history.entries, [1]) == {written.action_id}
    assert undone_with(history.entries, []) == set()
    assert brought_back_with(history.entries, [3]) == [history.entry(2)]
    assert brought_back_with(history.entries[:2], [2]) == [history.entry(1)]
