"""How many processes fold in a worker, what each has of its own, and the one page on which they all tell their metrics."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.values.errors import InputError
from streams.logs import configure_logging
from streams.merged_metrics import merged
from streams.metrics import WorkerMetrics
from streams.processes import processes_of, quota, usable_processors
from streams.runner.counts import BatchCounts
from streams.settings import load_settings
from streams.wiring import RESOURCES, ROLLBACKS, settings_of
from streams.worker.companion import Companion
from streams.worker.main import WorkerPage


@pytest.mark.parametrize(
    ("given", "processors", "expected"),
    [
        ({}, 1.0, 1),
        ({}, 2.0, 2),
        ({}, 3.9, 3),
        ({}, 0.5, 1),
        ({}, 64.0, 4),
        ({"partitions": 3}, 64.0, 3),
        ({"fence": "none"}, 64.0, 1),
        ({"processes": 8}, 1.0, 8),
        ({"processes": 2, "fence": "none"}, 64.0, 2),
    ],
)
def test_how_many(given: dict[str, Any], processors: float, expected: int) -> None:
    assert processes_of(load_settings(**given), lambda: processors) == expected


def test_the_environment_can_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_PROCESSES", "3")
    assert processes_of(load_settings()) == 3


def test_more_than_there_are_partitions_are_refused() -> None:
    with pytest.raises(InputError, match="processes is 4, but there are only 3 partitions"):
        load_settings(processes=4, partitions=3)


def test_this_machine_has_processors() -> None:
    assert usable_processors() > 0


class TestQuota:
    """The quota of a control group, as the kernel shows it."""

    def of(self, folder: Path, group: str, **limits: str) -> float:
        (folder / "cgroup").write_text(group)
        for path, limit in limits.items():
            below = folder / "fs" / path.replace("_", "/")
            below.mkdir(parents=True, exist_ok=True)
            (below / "cpu.max").write_text(limit)
        return quota(folder / "cgroup", folder / "fs")

    def test_the_least_of_all_above_holds(self, tmp_path: Path) -> None:
        assert self.of(tmp_path, "0::/a/b\n", a="150000 100000\n", a_b="400000 100000\n") == 1.5

    def test_max_is_no_limit(self, tmp_path: Path) -> None:
        assert self.of(tmp_path, "0::/a\n", a="max 100000\n") == math.inf

    def test_a_container_that_sees_itself_as_the_root(self, tmp_path: Path) -> None:
        (tmp_path / "fs").mkdir()
        (tmp_path / "fs" / "cpu.max").write_text("200000 100000\n")
        assert self.of(tmp_path, "0::/\n") == 2
        assert self.of(tmp_path, "0::/docker/of-the-host\n") == 2

    @pytest.mark.parametrize("group", ["", "3:cpu:/a\n", "0::/nowhere\n", "0::/../../a\n"])
    def test_none_that_can_be_read_is_no_limit(self, tmp_path: Path, group: str) -> None:
        assert self.of(tmp_path, group, a="nonsense") == math.inf

    def test_no_control_groups_at_all(self, tmp_path: Path) -> None:
        assert quota(tmp_path / "none", tmp_path) == math.inf


def test_the_first_process_has_what_a_single_one_has_and_the_others_their_own() -> None:
    settings = load_settings(data_dir=Path("data"), instance_id="w-1", application_id="app", processes=3)
    assert settings_of(RESOURCES, settings) is settings
    second, third = (settings_of(RESOURCES, settings, process) for process in (2, 3))
    assert [second.data_dir, third.data_dir] == [Path("data/resources-2"), Path("data/resources-3")]
    assert [second.instance_id, third.instance_id] == ["w-1.resources-2", "w-1.resources-3"]
    assert {each.application_id for each in (second, third)} == {"app"}
    assert settings_of(ROLLBACKS, settings).data_dir == Path("data/rollbacks")
    assert settings_of(RESOURCES, load_settings(), 2).instance_id is None


class Told(Companion):
    """A companion that has told this page, or has gone silent."""

    def __init__(self, name: str, page: bytes | None) -> None:
        super().__init__(name, [])
        self._page = page

    def metrics(self) -> bytes | None:
        return self._page


def metrics_of(folded: int) -> WorkerMetrics:
    metrics = WorkerMetrics()
    counts = BatchCounts()
    counts.folded = folded
    metrics.count_batch('a"topic{of} \\ ours', counts)
    metrics.batch_seconds.observe(0.01)
    return metrics


def test_the_page_of_one_process_is_its_own() -> None:
    page = WorkerPage("resources-1", metrics_of(3), ()).render()
    assert page.startswith(metrics_of(3).render())
    assert page.endswith(b"\nreconciler_processes 1\n")


def test_the_page_of_several_adds_up_and_can_be_read() -> None:
    peers = [Told("resources-2", metrics_of(4).render()), Told("resources-3", None)]
    text = WorkerPage("resources-1", metrics_of(3), peers).render().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    own = {family.name for family in text_string_to_metric_families(metrics_of(3).render().decode())}
    assert families.keys() == own | {"reconciler_processes"}
    assert text.count("# TYPE reconciler_records_total") == 1
    records = {sample.labels["process"]: sample for sample in families["reconciler_records"].samples}
    assert {process: sample.value for process, sample in records.items()} == {"resources-1": 3, "resources-2": 4}
    assert records["resources-1"].labels["topic"] == 'a"topic{of} \\ ours'
    buckets = [sample for sample in families["reconciler_batch_seconds"].samples if sample.name.endswith("_bucket")]
    assert {sample.labels["process"] for sample in buckets} == {"resources-1", "resources-2"}
    assert families["reconciler_processes"].samples[0].value == 2


def test_what_only_one_process_tells_is_on_the_page() -> None:
    page = merged({"a": b"# HELP x X.\n# TYPE x gauge\nx 1.0\n", "b": b"# HELP y Y.\n# TYPE y gauge\ny 2.0\n"})
    assert page == (
        b'# HELP x X.\n# TYPE x gauge\nx{process="a"} 1.0\n# HELP y Y.\n# TYPE y gauge\ny{process="b"} 2.0\n'
    )


@pytest.fixture
def _logging_as_before() -> Any:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


@pytest.mark.usefixtures("_logging_as_before")
def test_every_line_says_which_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "text", "resources-2")
    logging.getLogger("some").info("a word")
    configure_logging("INFO", "json", "resources-2")
    logging.getLogger("some").info("a word")
    configure_logging("INFO", "json")
    logging.getLogger("some").info("a word")
    text, line, alone = capsys.readouterr().err.splitlines()
    assert text.endswith(" INFO [resources-2] some: a word")
    assert json.loads(line)["process"] == "resources-2"
    assert "process" not in json.loads(alone)
