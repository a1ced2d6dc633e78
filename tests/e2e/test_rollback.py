"""A rollback as people run it: over several systems, by the command line, with the coordinator killed wherever it stands."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.records import Action, Command, Outcome, RollbackEvent, UndoStep
from reconciler.sdk.fences import RedisFence
from streams.exits import ExitCode
from tests.e2e.rollback_estate import CONTRACT, RollbackEstate
from tests.support.estate import Estate
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until

TWO = ("crm", "billing")
FOUR = ("crm", "billing", "erp", "mail")
WITHIN_S = 180.0


@pytest.fixture(params=["embedded", "real"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RollbackEstate]:
    if request.param == "embedded":
        estate = Estate.embedded(request.getfixturevalue("embedded_broker"), TWO)
        redis = request.getfixturevalue("embedded_redis")
    else:
        estate = Estate.real(request.getfixturevalue("kafka").bootstrap, partitions=4, systems=TWO)
        redis = request.getfixturevalue("redis_server")
    whole = RollbackEstate(estate, tmp_path, TWO, {"RECONCILER_REDIS_URL": redis.url})
    yield whole
    whole.stop()


def intake(two: RollbackEstate) -> None:
    """A run over two systems, and later work on what it touched."""
    two.create("run-1", "make", "crm", {"c1": {"name": "Ana", "phone": "1"}, "c2": {"name": "Bo", "phone": "2"}})
    two.update("run-7", "rename", "crm", "c1", name="Anna", phone="11")
    two.create("run-7", "bill", "billing", {"i1": {"name": "invoice"}}, depends_on=["run-7/rename"])
    two.update("run-7", "call", "crm", "c2", phone="22")
    two.update("run-8", "rename", "crm", "c1", name="Anne")
    two.flush()


@pytest.mark.timeout(600)
def test_a_run_is_rolled_back_over_two_systems_and_what_others_did_since_is_kept(two: RollbackEstate) -> None:
    two.ready(*two.services(), two.start("worker", "worker"))
    intake(two)
    rollback_id = two.rollback("request", "--run", "run-7", "--by", "ana", "--execute", "--reason", "A test.").strip()
    two.rollback("watch", rollback_id, "--until-done", "--timeout", str(WITHIN_S))
    assert two.systems["crm"].items() == {"c1": {"name": "Anne", "phone": "1"}, "c2": {"name": "Bo", "phone": "2"}}
    assert two.systems["billing"].items() == {}
    shown = two.shown(rollback_id)
    assert shown["status"] == "completed"
    assert [(kept["path"], kept["owner"]) for kept in shown["plan"]["kept"]] == [("/name", "run-8/rename")]
    waves = [sorted(command["resource"] for command in wave) for wave in shown["plan"]["waves"]]
    assert ("billing/item/i1" in waves[0], waves[1]) == (True, ["crm/item/c1"]), "what depends on something goes first"
    assert (shown["counts"]["verified"], shown["counts"]["kept"]) == (3, 1)
    assert "Anne" in shown["story"] or "name" in shown["story"]
    listed = [json.loads(line) for line in two.rollback("list", "--json").splitlines()]
    assert [(row["rollback_id"], row["status"]) for row in listed] == [(rollback_id, "completed")]
    _one_trace_tells_it_all(two, shown["traceparent"])
    _the_ledger_has_the_undo(two, rollback_id)
    fence = RedisFence(two.environment["RECONCILER_REDIS_URL"])
    wait_until(lambda: fence.is_fenced("run-7") is not None, deadline_s=WITHIN_S, what="the run is fenced")
    fence.close()
    assert not two.estate.read(two.estate.topics.dead_letters)


def _one_trace_tells_it_all(two: RollbackEstate, traceparent: str) -> None:
    """From the request over steps and commands to what the targets said."""
    topics = two.estate.topics
    journey = {
        topics.rollback_requests,
        topics.rollback_events,
        topics.gather_queries,
        topics.gathered,
        topics.undo_steps,
        topics.reversal("crm"),
        topics.reversal("billing"),
        topics.outcomes,
        topics.step_reports,
    }
    trace_id = traceparent.split("-")[1]
    for topic in journey:
        found = [each.headers.get("traceparent", b"").decode() for each in two.estate.read(topic)]
        assert found, topic
        assert {trace.split("-")[1] if trace else "" for trace in found} == {trace_id}, topic


def _the_ledger_has_the_undo(two: RollbackEstate, rollback_id: str) -> None:
    found = [two.estate.codec.decode(each.value) for each in two.estate.read(two.estate.topics.actions)]
    undone = [each for each in found if isinstance(each, Action) and each.stage == "reversed"]
    assert {(each.run_id, each.step_id) for each in undone} == {(rollback_id, "undo")}
    assert sorted(each.operation_id for each in undone) == ["run-7/bill-i1", "run-7/call", "run-7/rename"]
    two.command("ledger", "verify")
    rows = [
        json.loads(line) for line in two.command("ledger", "show", "--rollback", rollback_id, "--json").splitlines()
    ]
    assert [row["said"] for row in rows if "said" in row] == ["request"]
    assert [row["status"] for row in rows if "status" in row][-1] == "completed"
    told = {row["operation_id"]: row["undone_by"] for row in rows if row.get("stage") == "succeeded"}
    undo = f"{rollback_id}/undo"
    assert told == {"run-7/bill-i1": [undo], "run-7/call": [undo], "run-7/rename": [undo]}


@pytest.mark.timeout(600)
def test_the_undo_is_undone(two: RollbackEstate) -> None:
    two.ready(*two.services(), two.start("worker", "worker"))
    intake(two)
    after_run = {name: system.items() for name, system in two.systems.items()}
    first = two.rollback("request", "--run", "run-7", "--id", "rb-1", "--by", "ana", "--execute").strip()
    two.rollback("watch", first, "--until-done", "--timeout", str(WITHIN_S))
    assert {name: system.items() for name, system in two.systems.items()} != after_run
    second = two.rollback("request", "--run", first, "--id", "rb-2", "--by", "ana", "--execute").strip()
    two.rollback("watch", second, "--until-done", "--timeout", str(WITHIN_S))
    assert {name: system.items() for name, system in two.systems.items()} == after_run
    two.command("ledger", "verify")
    assert [row["undone_by"] for row in _ledger_of(two, "run-7")] == [[], [], []], "what undid them was undone itself"
    (row,) = [row for row in _ledger_of(two, first) if row["resource"] == "crm/item/c1" and row["stage"] == "reversed"]
    assert row["undone_by"] == [f"{second}/undo"]


def _ledger_of(two: RollbackEstate, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in two.command("ledger", "show", "--run", run_id, "--json").splitlines()]


APPROVED = CONTRACT + "approvals: [{when: 'true', count: 1}]\n"


@pytest.mark.timeout(600)
def test_the_coordinator_is_killed_wherever_it_stands_and_goes_on(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    estate = Estate.real(request.getfixturevalue("kafka").bootstrap, partitions=3, systems=TWO)
    two = RollbackEstate(estate, tmp_path, TWO, {}, APPROVED)
    try:
        _killed_everywhere(two)
    finally:
        two.stop()


def _killed_everywhere(two: RollbackEstate) -> None:
    coordinator = Coordinator(two)
    two.ready(*two.services(), two.start("resources", "worker", "--only", "resources"), coordinator.process)
    intake(two)
    two.systems["crm"].execute("UPDATE item SET phone = 'theirs' WHERE id = 'c2'")
    two.rollback("request", "--run", "run-7", "--id", "rb-1", "--by", "ana", "--execute")
    coordinator.kill_at("gathering")
    planned = coordinator.kill_at("needs_approval")
    assert planned.plan_hash is not None
    two.rollback("approve", "rb-1", "--plan", planned.plan_hash, "--by", "bo")
    coordinator.kill_at("executing")
    # Where all that could be done was seen by then, there is nothing to verify.
    if coordinator.kill_at("verifying", "halted").status == "verifying":
        coordinator.kill_at("halted")
    two.rollback("resolve", "rb-1", "--take", "force", "--by", "bo")
    coordinator.kill_at("gathering")
    again = coordinator.kill_at("needs_approval", "executing")
    if again.status == "needs_approval":
        assert again.plan_hash is not None
        two.rollback("approve", "rb-1", "--plan", again.plan_hash, "--by", "cy")
        coordinator.kill_at("executing")
    last = coordinator.kill_at("completed", "partial")
    assert last.status == "completed"
    assert two.systems["crm"].items() == {"c1": {"name": "Anne", "phone": "1"}, "c2": {"name": "Bo", "phone": "2"}}
    assert two.systems["billing"].items() == {}
    assert coordinator.kills >= 7
    _nothing_happened_twice(two)
    sequences = [event.sequence for event in two.events("rb-1")]
    assert sequences == list(range(1, len(sequences) + 1))


class Coordinator:
    """The process that drives rollbacks, and its killer."""

    def __init__(self, two: RollbackEstate) -> None:
        self._two = two
        self._seen = 0
        self.kills = 0
        self.process = self._start()

    def _start(self) -> ServerProcess:
        return self._two.start("rollbacks", "worker", "--only", "rollbacks")

    def kill(self) -> None:
        """Kills it, and starts it again."""
        self.process.kill()
        self.kills += 1
        self.process = self._start()

    def kill_at(self, *statuses: str, within_s: float = WITHIN_S) -> RollbackEvent:
        """Kills it as soon as the rollback has come to one of these, and starts it again."""
        event = self._two.await_status("rb-1", *statuses, after=self._seen, within_s=within_s)
        self._seen = event.sequence
        self.kill()
        return event


def _nothing_happened_twice(two: RollbackEstate) -> None:
    """Commands and steps stand once each, and every target was told once."""
    topics = two.estate.topics
    commands = [(topics.reversal(name), Command) for name in two.systems]
    for topic, kind in ((topics.undo_steps, UndoStep), *commands):
        found = [two.estate.codec.decode(each.value) for each in two.estate.read(topic)]
        names = [
            (each.step_id, each.verb) if isinstance(each, UndoStep) else (each.command_id, each.attempt)
            for each in found
            if isinstance(each, UndoStep | Command)
        ]
        assert len(names) == len(set(names)), kind
    outcomes = [two.estate.codec.decode(each.value) for each in two.estate.read(topics.outcomes)]
    assert {each.status for each in outcomes if isinstance(each, Outcome)} == {"applied"}


@pytest.mark.timeout(600)
def test_neither_of_the_two_processes_outlives_the_other(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    estate = Estate.embedded(request.getfixturevalue("embedded_broker"), TWO)
    two = RollbackEstate(estate, tmp_path, TWO, {})
    try:
        worker = two.start("worker", "worker")
        two.ready(worker)
        (second,) = _children(worker.pid)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: not worker.is_running(), deadline_s=WITHIN_S, what="the worker ends")
        assert worker.exit_code == ExitCode.COMPANION
        worker = two.start("worker", "worker")
        two.ready(worker)
        (second,) = _children(worker.pid)
        worker.kill()
        wait_until(lambda: not Path(f"/proc/{second}").exists(), deadline_s=WITHIN_S, what="the second process ends")
    finally:
        two.stop()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.timeout(900)
def test_two_thousand_operations_over_four_systems_are_rolled_back_by_a_coordinator_that_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    number = int(os.environ.get("RECONCILER_TEST_ROLLBACK_OPERATIONS", "2000"))
    estate = Estate.real(request.getfixturevalue("kafka").bootstrap, partitions=6, systems=FOUR)
    four = RollbackEstate(estate, tmp_path, FOUR, {}, APPROVED)
    try:
        _many(four, number)
    finally:
        four.stop()


def _many(four: RollbackEstate, number: int) -> None:
    coordinator = Coordinator(four)
    four.ready(*four.services(), four.start("resources", "worker", "--only", "resources"), coordinator.process)
    for name in FOUR:
        four.create("run-7", f"make-{name}", name, {f"i{item}": {"name": f"n{item}"} for item in range(number // 4)})
    four.systems["crm"].execute("INSERT INTO item (id, name) VALUES ('theirs', 'x')")
    four.flush()
    began = time.monotonic()
    four.rollback("request", "--run", "run-7", "--id", "rb-1", "--by", "ana", "--execute")
    coordinator.kill_at("gathering")
    planned = coordinator.kill_at("needs_approval", within_s=300)
    assert planned.counts["commands"] == number
    assert planned.plan_hash is not None
    four.rollback("approve", "rb-1", "--plan", planned.plan_hash, "--by", "bo")
    coordinator.kill_at("executing")
    for done in (number // 10, number // 2, number * 9 // 10):  # some of it is done, and some isn't
        wait_until(lambda: _left(four) <= number - done, deadline_s=300, what=f"{done} are undone")  # noqa: B023
        coordinator.kill()
    last = coordinator.kill_at("verifying", "completed", within_s=600)
    if last.status == "verifying":
        last = coordinator.kill_at("completed", within_s=300)
    print(f"\n{number} operations, {coordinator.kills} kills: verified after {time.monotonic() - began:.1f} s")
    assert last.counts["verified"] == number
    assert {name: list(system.items()) for name, system in four.systems.items()} == {
        name: ["theirs"] if name == "crm" else [] for name in FOUR
    }
    shown = four.shown("rb-1")
    assert sum(len(wave) for wave in shown["plan"]["waves"]) == number
    _nothing_happened_twice(four)


def _left(four: RollbackEstate) -> int:
    """How many items there are in all systems."""
    return sum(len(system.items()) for system in four.systems.values())
