"""Judging simulations: one, many side by side, and the smallest schedule of faults that still breaks what broke."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from streams.simulation.checks import violations
from streams.simulation.simulation import Parts, Simulation, Verdict

_MOST_TRIES: Final = 400
"""How many simulations the search for a smaller schedule may take."""

_AT_ONCE: Final = 25


def lived(seed: int, without: Collection[str] = (), parts: Parts | None = None) -> tuple[Simulation, Verdict]:
    """A simulation that is over, and its verdict."""
    # What fails here fails on purpose, and would be logged as if it didn't.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        simulation = Simulation(seed, without, parts)
        simulation.live()
        digest = simulation.broker.digest()
        counts = simulation.counts()
        found = violations(simulation)
    finally:
        logging.disable(before)
    return simulation, Verdict(seed, digest, found, list(simulation.faults.struck), counts)


def judge(seed: int, without: Collection[str] = (), parts: Parts | None = None) -> Verdict:
    """The verdict on a seed."""
    return lived(seed, without, parts)[1]


def judge_many(seeds: Iterable[int], jobs: int) -> Iterator[Verdict]:
    """The verdicts on many seeds, in their order, from so many processes."""
    if jobs == 1:
        yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(jobs) as processes:
        try:
            yield from processes.map(judge, seeds, chunksize=_AT_ONCE)
        finally:
            processes.shutdown(cancel_futures=True)


def shrunk(verdict: Verdict, without: Collection[str] = (), parts: Parts | None = None) -> list[str]:
    """What can be left out of a schedule without making the same invariants hold: the longer, the shorter the schedule."""
    broken = {violation.invariant for violation in verdict.violations}
    left_out = list(without)
    tries = 0

    def still_breaks(candidates: Collection[str]) -> bool:
        found = judge(verdict.seed, [*left_out, *candidates], parts)
        return bool(broken & {violation.invariant for violation in found.violations})

    size = max(1, len(verdict.faults) // 2)
    names = list(verdict.faults)
    while size and tries < _MOST_TRIES:
        kept: list[str] = []
        for start in range(0, len(names), size):
            group = names[start : start + size]
            tries += 1
            if tries < _MOST_TRIES and still_breaks(group):
                left_out += group
            else:
                kept += group
        names, size = kept, size // 2
    return left_out
