"""CI=true turns every kind of skip into a failure, and leaves expected failures alone."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
_MODULE = """
import pytest

@pytest.fixture
def missing():
    pytest.skip("no such server")

def test_by_fixture(missing): ...
def test_by_call(): pytest.skip("called")
@pytest.mark.skip(reason="marked")
def test_by_mark(): ...
@pytest.mark.may_skip_in_ci("needs another machine")
def test_allowed(): pytest.skip("allowed")
@pytest.mark.xfail(reason="known")
def test_expected_failure(): assert False
def test_passes(): ...
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(f"{_INI}markers =\n    may_skip_in_ci(why): may be skipped in CI\n")
    pytester.makepyfile(_MODULE)
    return pytester


def test_in_ci_a_skip_is_a_failure(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.runpytest_inprocess("-p", "tests.support.no_skips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    # The skip of a fixture comes in the set-up, so pytest calls its failure an error.
    assert (outcomes["failed"], outcomes["errors"], outcomes["skipped"]) == (1, 2, 1)
    assert (outcomes["passed"], outcomes["xfailed"]) == (1, 1)
    result.stdout.fnmatch_lines(["*CI=true doesn't allow*no such server*"])


def test_in_ci_a_module_that_skips_itself_is_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makeini(_INI)
    pytester.makepyfile("import pytest\npytest.importorskip('no_such_module')\ndef test_it(): ...\n")
    result = pytester.runpytest_inprocess("-p", "tests.support.no_skips")
    assert result.ret != pytest.ExitCode.OK
    assert result.parseoutcomes()["errors"] == 1


def test_elsewhere_a_skip_is_a_skip(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = project.runpytest_inprocess("-p", "tests.support.no_skips")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(skipped=4, passed=1, xfailed=1)
