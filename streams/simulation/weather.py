"""How often what fails in a simulation: each seed has some kinds of faults and not others, so that they also show alone."""

from __future__ import annotations

from typing import Final

from streams.simulation.chance import Chance

RATES: Final[dict[str, float]] = {
    # the network between producers and brokers
    "delayed": 0.08,
    "lost": 0.04,
    "doubled": 0.06,
    "misplaced": 0.02,
    "lagging": 0.10,
    # worker processes
    "crash-after-stepping": 0.02,
    "crash-after-effects": 0.02,
    "crash-after-changelog": 0.02,
    "crash-before-store": 0.02,
    "crash-after-store": 0.02,
    "crash-before-commit": 0.02,
    "uncommitted": 0.30,
    "pause": 0.02,
    "disk-lost": 0.30,
    "gatherer-forgets": 0.30,
    # targets, as they are read
    "read-fails": 0.10,
    "read-empty": 0.05,
    "read-stale": 0.05,
    "read-partial": 0.05,
    # targets, as they are written, and the services before them
    "apply-transient": 0.15,
    "apply-permanent": 0.04,
    "apply-lies": 0.06,
    "apply-times-out": 0.10,
    "apply-slow": 0.10,
    "edit-in-between": 0.15,
    "service-crash": 0.06,
    "service-uncommitted": 0.30,
}
"""Kinds of faults, and in what part of all opportunities they strike where the seed has them."""


def rates_of(seed: int) -> dict[str, float]:
    """The faults of a seed: about half of all kinds, each weaker or stronger than usual; some seeds have none."""
    chance = Chance(seed, "weather")
    if chance.hits(0.04):
        return {}
    return {kind: rate * chance.pick((0.5, 1.0, 2.0)) for kind, rate in RATES.items() if chance.hits(0.5)}
