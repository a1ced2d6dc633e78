"""Judging simulations: one, many side by side, and the smallest schedule of faults that still breaks what broke."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from streams.simulation.checks import CHECKS, CHECKS_OF_THE_SYSTEM, Check, violations
from streams.simulation.rehearsing import Material, Rehearsal, scene_of, told
from streams.simulation.simulation import Parts, Simulation, Verdict, Violation

R = TypeVar("R")

_MOST_TRIES: Final = 400
"""How many simulations the search for a smaller schedule may take."""

_AT_ONCE: Final = 10


def lived(seed: int, only: Collection[str] | None = None, parts: Parts | None = None) -> tuple[Simulation, Verdict]:
    """A simulation that is over, and its verdict. With `only`, none but these faults strike and these things are done."""
    with _silence():
        simulation = Simulation(seed, only, parts)
        found = _found(simulation, CHECKS)
    struck = list(simulation.faults.struck)
    return simulation, Verdict(seed, simulation.broker.digest(), found, struck, simulation.counts())


@contextmanager
def _silence() -> Iterator[None]:
    """What fails here fails on purpose, and would be logged as if it didn't."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _found(simulation: Simulation, checks: Sequence[Check]) -> list[Violation]:
    try:
        simulation.live()
        return violations(simulation, checks)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed that leads to it is what is wanted
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(where.filename).name}, {where.name}: {error}"
        return [Violation("no exception", message)]


def judge(seed: int, only: Collection[str] | None = None, parts: Parts | None = None) -> Verdict:
    """The verdict on a seed."""
    return lived(seed, only, parts)[1]


def judge_many(seeds: Iterable[int], jobs: int) -> Iterator[Verdict]:
    """The verdicts on many seeds, in their order, from so many processes."""
    return _side_by_side(judge, seeds, jobs)


def _side_by_side(work: Callable[[int], R], seeds: Iterable[int], jobs: int) -> Iterator[R]:
    if jobs == 1:
        yield from map(work, seeds)
        return
    with ProcessPoolExecutor(jobs) as processes:
        try:
            yield from processes.map(work, seeds, chunksize=_AT_ONCE)
        finally:
            processes.shutdown(cancel_futures=True)


def rehearsed(material: Material, seed: int, only: Collection[str] | None = None) -> tuple[Simulation, Rehearsal]:
    """A rehearsal that is over, and what became of it."""
    with _silence():
        simulation = Simulation(seed, only, scene=scene_of(material, seed))
        found = _found(simulation, CHECKS_OF_THE_SYSTEM)
        return simulation, told(material, simulation, found)


def _rehearse(material: Material, seed: int) -> Rehearsal:
    return rehearsed(material, seed)[1]


def rehearse_many(material: Material, seeds: Iterable[int], jobs: int) -> Iterator[Rehearsal]:
    """What became of many rehearsals, in the order of their seeds, from so many processes."""
    return _side_by_side(partial(_rehearse, material), seeds, jobs)


def shrunk(verdict: Verdict, parts: Parts | None = None) -> list[str]:
    """A schedule that breaks one of the same invariants, and of which no part can be left out that was tried: halves first,
    then ever smaller parts, at last each fault by itself."""
    broken = {violation.invariant for violation in verdict.violations}
    left = list(verdict.faults)
    tries = 0

    def still_breaks(names: Collection[str]) -> bool:
        found = judge(verdict.seed, names, parts)
        return bool(broken & {violation.invariant for violation in found.violations})

    if not still_breaks(left):
        return left
    size = len(left)
    while size and tries < _MOST_TRIES:
        for start in range(0, len(left), size):
            names = [*left[:start], *left[start + size :]]
            tries += 1
            if still_breaks(names):
                left = names
                break
        else:
            size //= 2
    return left
