"""The report on many rehearsals of one rollback: how often it comes to a good end, what stands in its way, how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from streams.simulation.rehearsing import Rehearsal

GOOD = ("completed", "nothing_to_do")
_MOST_TOLD = 10


class Trouble(msgspec.Struct, frozen=True):
    """Something that stood in the way, in how many runs, and a run that shows it."""

    what: str
    runs: int
    seed: int


class Report(msgspec.Struct, frozen=True):
    """What many rehearsals come to."""

    rollback_id: str
    runs: int
    level: str
    rate_of_success: float
    statuses: dict[str, int]
    duration_s: dict[str, float]
    """Median, 95 of a hundred, and longest, of the runs that came to a good end."""
    conflicts: list[Trouble]
    blocked: list[Trouble]
    reasons: list[Trouble]
    """Why runs stopped or stayed incomplete."""
    assumed: list[str]
    """Resources of which the files don't say what they hold: what is expected was taken for it."""
    broken: list[Trouble]
    """Invariants of the reconciler that didn't hold: its faults, not yours."""


def report_on(rollback_id: str, rehearsals: Sequence[Rehearsal], level: str, assumed: list[str]) -> Report:
    """The report on these."""
    statuses = Counter(item.status for item in rehearsals)
    good = [item for item in rehearsals if item.status in GOOD]
    durations = sorted(item.duration_s for item in good if item.duration_s is not None)
    return Report(
        rollback_id=rollback_id,
        runs=len(rehearsals),
        level=level,
        rate_of_success=round(len(good) / len(rehearsals), 4),
        statuses=dict(sorted(statuses.items(), key=lambda item: (-item[1], item[0]))),
        duration_s=_durations(durations),
        conflicts=_troubles((path, item.seed) for item in rehearsals for path in item.conflicts),
        blocked=_troubles((reason, item.seed) for item in rehearsals for reason in item.blocked),
        reasons=_troubles((item.reason, item.seed) for item in rehearsals if item.reason and item.status not in GOOD),
        assumed=assumed,
        broken=_troubles(
            (f"{violation.invariant}: {violation.message}", item.seed)
            for item in rehearsals
            for violation in item.violations
        ),
    )


def _durations(sorted_s: list[float]) -> dict[str, float]:
    if not sorted_s:
        return {}
    last = len(sorted_s) - 1
    at = {"median": last // 2, "p95": round(last * 0.95), "longest": last}
    return {name: round(sorted_s[place], 1) for name, place in at.items()}


def _troubles(found: Iterator[tuple[str, int]]) -> list[Trouble]:
    runs: dict[str, dict[int, None]] = {}
    for what, seed in found:
        runs.setdefault(what, {})[seed] = None
    troubles = [Trouble(what, len(seeds), min(seeds)) for what, seeds in runs.items()]
    return sorted(troubles, key=lambda item: (-item.runs, item.what))


def lines_of(report: Report) -> Iterator[str]:
    """The report for people."""
    yield f"{report.runs} rehearsals of {report.rollback_id}, with faults: {report.level}."
    yield f"Rate of success: {report.rate_of_success:.1%}"
    for status, count in report.statuses.items():
        yield f"  {status:<14} {count:>6}  {count / report.runs:6.1%}"
    if report.duration_s:
        told = ", ".join(f"{name} {seconds:g} s" for name, seconds in report.duration_s.items())
        yield f"How long it took where it succeeded: {told}"
    yield from _section("Conflicts, on which somebody would have to decide", report.conflicts, report.runs)
    yield from _section("Blocked, because it can't be undone", report.blocked, report.runs)
    yield from _section("Why it stopped or stayed incomplete", report.reasons, report.runs)
    if report.assumed:
        yield ""
        yield f"Of {len(report.assumed)} records the files don't say what they hold; what is expected was taken for it:"
        yield from (f"  {resource}" for resource in report.assumed[:_MOST_TOLD])
        if len(report.assumed) > _MOST_TOLD:
            yield f"  and {len(report.assumed) - _MOST_TOLD} more"
    yield from _section("FAULTS OF THE RECONCILER; please report them", report.broken, report.runs)


def _section(title: str, troubles: list[Trouble], runs: int) -> Iterator[str]:
    if not troubles:
        return
    yield ""
    yield f"{title}:"
    for trouble in troubles[:_MOST_TOLD]:
        yield f"  {trouble.runs:>6} of {runs}  {trouble.what}  (such as --seed {trouble.seed})"
    if len(troubles) > _MOST_TOLD:
        yield f"  and {len(troubles) - _MOST_TOLD} more"
