"""Under CI=true a skipped test is a failed one: what is missing there must be installed, not passed over.

A test that can't run anywhere like CI carries the marker `may_skip_in_ci("why")`; the reason is printed.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns the skip of a test, by mark, call or fixture, into a failure with the same reason."""
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and _in_ci() and item.get_closest_marker("may_skip_in_ci") is None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true doesn't allow: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself, as `pytest.importorskip` does."""
    report = yield
    if report.outcome == "skipped" and _in_ci():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which CI=true doesn't allow: {report.longrepr}"
    return report


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return str(report.longrepr)
