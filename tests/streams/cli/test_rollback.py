"""`reconciler rollback` on the embedded broker, with what a worker would publish."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition

from reconciler.plan.parts import parts_of
from reconciler.records import Actor, RollbackEvent, RollbackRequest, RollbackStatus, Selector, StepConflict
from reconciler.values.errors import InputError
from reconciler.values.instant import parse_instant
from reconciler.values.json_value import ABSENT
from reconciler.wire.changelog import HistoryEntry
from streams.cli.main import cli
from streams.embedded.broker import EmbeddedBroker
from streams.rollbacks import NotTaken
from streams.runner.dead_letter import dead_letter
from tests.support.batches import Raw
from tests.support.estate import Estate

NEW_YEAR = parse_instant("2026-01-01T00:00:00Z")
HASH = "0224904b15bb3f3bc442b0a97e55e8aa"
CONFLICT = {"resource": "crm/contact/3", "path": "/note", "actual": "new", "resolution": "manual"}
PLAN: dict[str, Any] = {
    "status": "needs_approval",
    "waves": [
        [{"resource": "billing/invoice/3", "action": "delete", "changes": [{"path": "", "op": "unset"}]}],
        [{"resource": "crm/contact/3", "action": "patch", "changes": [{"path": "/phone", "op": "set", "value": "1"}]}],
    ],
    "conflicts": [CONFLICT],
    "kept": [{"resource": "crm/contact/3", "path": "/stage", "owner": "run-9/qualify", "value": "won"}],
    "blocked": [{"operation_id": "run-7/mail", "rule": "irreversible", "reason": "A mail can't be taken back."}],
    "unchanged": [],
    "operations": ["run-7/create-invoice", "run-7/update-contact"],
    "approvals_needed": [{"contract": "crm/contact", "roles": ["steward"], "count": 1}],
    "plan_hash": HASH,
}


@pytest.fixture
def estate(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Estate:
    estate = Estate.embedded(embedded_broker)
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", estate.bootstrap)
    monkeypatch.setenv("RECONCILER_TOPIC_PREFIX", estate.prefix)
    return estate


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["rollback", *arguments], catch_exceptions=False, input=given)


def event(sequence: int, status: RollbackStatus, **fields: Any) -> RollbackEvent:
    values: dict[str, Any] = {
        "event_id": f"e{sequence}",
        "rollback_id": "rb-1",
        "status": status,
        "sequence": sequence,
        "occurred_at": parse_instant("2026-11-25T10:00:00Z") + sequence,
        "mode": "execute",
        "select": Selector(run_id="run-7"),
        "requested_by": Actor(id="ana", kind="user"),
        "story": f"The story at {sequence}.",
        "counts": {"steps": 2, "done": 0},
    }
    return RollbackEvent(**values | fields)


def publish(estate: Estate, *events: RollbackEvent) -> None:
    topic = estate.topics.rollback_events
    for each in events:
        estate.send(topic, each.rollback_id.encode(), estate.codec.encode(topic, each))
    estate.flush()


def planned(estate: Estate, **fields: Any) -> None:
    publish(
        estate,
        event(1, "gathering"),
        event(2, "needs_approval", plan=PLAN, plan_hash=HASH, approvals_needed=1, waves=2, **fields),
    )


def requests(estate: Estate) -> list[RollbackRequest]:
    found = [estate.codec.decode(each.value) for each in estate.read(estate.topics.rollback_requests)]
    return [request for request in found if isinstance(request, RollbackRequest)]


@contextmanager
def reacting(estate: Estate, react: Callable[[RollbackRequest, Raw, int], None]) -> Iterator[None]:
    """Somebody who reacts to the next request, as a worker does."""
    topic = estate.topics.rollback_requests
    consumer = Consumer(
        {"bootstrap.servers": estate.bootstrap, "group.id": "reacting", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(estate.partitions)])
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                request = estate.codec.decode(message.value())
                assert isinstance(request, RollbackRequest)
                raw = Raw(message.offset() or 0, message.key(), message.value())
                react(request, raw, message.partition() or 0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        consumer.close()


def answering(estate: Estate, *events: RollbackEvent) -> Callable[[RollbackRequest, Raw, int], None]:
    def react(request: RollbackRequest, raw: Raw, partition: int) -> None:
        publish(estate, *(msgspec.structs.replace(each, rollback_id=request.rollback_id) for each in events))

    return react


# -- asking


def test_a_request_says_what_who_and_why_and_gives_its_id(estate: Estate) -> None:
    with reacting(estate, answering(estate, event(1, "gathering"))):
        done = run(
            "request", "--run", "run-7", "--after-step", "s2", "--by", "ana", "--role", "operator", "--reason", "Why."
        )
    (asked,) = requests(estate)
    assert done.stdout.strip() == asked.rollback_id
    assert asked.select == Selector(run_id="run-7", after_step="s2")
    assert (asked.mode, asked.reason, asked.roles) == ("plan", "Why.", ["operator"])
    assert asked.requested_by == Actor(id="ana", kind="user")
    (sent,) = estate.read(estate.topics.rollback_requests)
    assert sent.headers["traceparent"].decode() == asked.traceparent


@pytest.mark.parametrize(
    ("options", "select"),
    [
        (["--operation", "a/1", "--operation", "a/2"], Selector(operations=["a/1", "a/2"])),
        (["--workflow", "w", "--from", "2026-01-01T00:00:00Z"], Selector(workflow_id="w", from_at=NEW_YEAR)),
        (["--actor", "ana"], Selector(actor="ana")),
        (["--system", "crm", "--to", "2026-01-01T00:00:00Z"], Selector(system="crm", to_at=NEW_YEAR)),
        (["--resource", "crm/contact/1"], Selector(resource="crm/contact/1")),
    ],
)  # fmt: skip
def test_every_way_to_select(estate: Estate, options: list[str], select: Selector) -> None:
    done = run("request", *options, "--id", "rb-9", "--execute", "--wait", "0")
    assert done.stdout == "rb-9\n"
    (asked,) = requests(estate)
    assert (asked.select, asked.mode, asked.rollback_id) == (select, "execute", "rb-9")


def test_a_request_from_a_file(estate: Estate, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"rollback_id": "rb-5", "select": {"run_id": "run-7"}, "requested_by": "bo"}))
    run("request", "--file", str(file), "--by", "ana", "--reason", "Why.", "--wait", "0")
    run(
        "request",
        "--file",
        "-",
        "--id",
        "rb-6",
        "--wait",
        "0",
        given='{"select": {"run_id": "run-8"}, "mode": "execute"}',
    )
    first, second = sorted(requests(estate), key=lambda request: request.rollback_id)
    assert (first.rollback_id, first.requested_by, first.reason) == ("rb-5", Actor(id="bo", kind="user"), "Why.")
    assert (second.rollback_id, second.mode, second.select) == ("rb-6", "execute", Selector(run_id="run-8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["request"], "say what to undo"),
        (["request", "--run", "r", "--file", "-"], "--file says all"),
        (["request", "--run", "r", "--from", "yesterday"], "--from: "),
        (["request", "--run", "r", "--id", "a/b"], "the rollback's id 'a/b' must be"),
        (["request", "--file", "-"], "-: "),
        (["show", "rb-1"], "no rollback rb-1 is known"),
        (["cancel", "rb-1"], "no rollback rb-1 is known"),
        (["approve", "rb-1", "--plan", HASH], "no rollback rb-1 is known"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(estate: Estate, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments, given="[]")
    assert not requests(estate)


def test_a_refused_request_is_an_error_with_the_reason(estate: Estate) -> None:
    def refuse(request: RollbackRequest, raw: Raw, partition: int) -> None:
        letter = dead_letter(
            dead_letters_topic=estate.topics.dead_letters,
            record=raw,
            topic=estate.topics.rollback_requests,
            partition=partition,
            group="workers",
            exception="Rejected",
            message="roles: The contract lets only operators ask for this.",
            max_bytes=1_000_000,
        )
        estate.send(letter.topic, letter.key, letter.value, headers=letter.headers)
        estate.flush()

    with reacting(estate, refuse), pytest.raises(NotTaken, match="lets only operators ask"):
        run("request", "--run", "run-7")


def test_no_answer_is_said_and_is_no_error(estate: Estate) -> None:
    done = run("request", "--run", "run-7", "--wait", "0.5")
    assert done.exit_code == 0
    assert "no worker has answered yet" in done.stderr


# -- seeing


def test_a_plan_is_asked_for_awaited_and_shown(estate: Estate) -> None:
    events = [event(1, "gathering", mode="plan"), event(2, "executable", mode="plan", plan=PLAN, plan_hash=HASH)]
    with reacting(estate, answering(estate, *events)):
        done = run("plan", "--run", "run-7", "--id", "rb-1")
    assert done.exit_code == 0
    assert f"Plan {HASH}" in done.stdout
    with reacting(estate, answering(estate, event(1, "rejected", mode="plan", plan=PLAN))):
        assert run("plan", "--run", "run-7", "--id", "rb-2").exit_code == 3


def test_show_tells_the_story_and_all_of_the_plan(estate: Estate) -> None:
    planned(estate, complete_up_to={"10": 4, "2": 31})
    shown = run("show", "rb-1").stdout
    assert shown.splitlines()[-2:] == ["2                              31", "10                             4"]
    for name in PLAN["operations"]:
        assert name in shown.splitlines()
    for text in (
        *("The story at 2.", f"Plan {HASH}", "needs_approval, 1 approvals needed"),
        *("billing/invoice/3  delete  the record", "crm/contact/3      patch   /phone"),
        *('"new"      nothing         manual', "run-9/qualify", "A mail can't be taken back.", "steward"),
    ):
        assert text in shown
    whole = json.loads(run("show", "rb-1", "--json").stdout)
    assert whole["plan"] == PLAN
    assert (whole["status"], whole["story"], whole["plan_hash"]) == ("needs_approval", "The story at 2.", HASH)


def test_a_plan_in_parts_is_put_together_and_an_older_one_forgotten(estate: Estate) -> None:
    large = PLAN | {
        "blocked": [{"operation_id": f"o{number}", "rule": "r", "reason": "x" * 50} for number in range(40)]
    }
    parts = parts_of(large, 500)
    assert len(parts) > 2
    planned(estate)
    publish(estate, *(event(3 + place, "needs_approval", plan=part) for place, part in enumerate(parts)))
    assert json.loads(run("show", "rb-1", "--json").stdout)["plan"] == large
    publish(estate, event(90, "needs_approval", plan=parts[0]))
    with pytest.raises(InputError, match=f"of the plan's {len(parts)} parts only 1 are there"):
        run("show", "rb-1")


def test_list_shows_each_rollback_once_as_it_stands(estate: Estate) -> None:
    planned(estate)
    publish(estate, event(1, "completed", rollback_id="rb-2", select=Selector(operations=["a/1", "a/2"])))
    listed = run("list").stdout.splitlines()
    assert [line.split()[0:2] for line in listed[1:]] == [["rb-1", "needs_approval"], ["rb-2", "completed"]]
    assert "operations a/1 a/2" in listed[2]
    (row,) = [json.loads(line) for line in run("list", "--open", "--json").stdout.splitlines()]
    assert (row["rollback_id"], row["status"], "plan" in row) == ("rb-1", "needs_approval", False)


@pytest.mark.parametrize(
    ("status", "mode", "code"),
    [
        ("completed", "execute", 0),
        ("nothing_to_do", "execute", 0),
        ("executable", "plan", 0),
        ("needs_approval", "plan", 0),
        ("rejected", "execute", 3),
        ("partial", "execute", 4),
        ("halted", "execute", 5),
        ("cancelled", "execute", 6),
        ("needs_approval", "execute", 7),
        ("executing", "execute", 8),
        ("executable", "execute", 8),
    ],
)
def test_watch_ends_with_a_code_for_how_it_stands(estate: Estate, status: RollbackStatus, mode: str, code: int) -> None:
    publish(estate, event(1, "gathering", mode=mode), event(2, status, mode=mode))
    done = run("watch", "rb-1", "--until-done", "--timeout", "3" if code == 8 else "60")
    assert done.exit_code == code
    lines = done.stdout.splitlines()
    assert [line.split()[1].rstrip(",") for line in lines[:2]] == ["gathering", status]
    if code != 8:
        assert lines[-1] == "The story at 2."


def test_watch_goes_on_until_it_is_over(estate: Estate) -> None:
    publish(estate, event(1, "gathering"), event(2, "executing", wave=1, waves=2))
    later = threading.Timer(1.0, publish, (estate, event(3, "verifying"), event(4, "completed")))
    later.start()
    done = run("watch", "rb-1", "--until-done", "--json", "--timeout", "60")
    later.join()
    assert done.exit_code == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == [
        *("gathering", "executing", "verifying", "completed")
    ]


# -- deciding


def test_an_approval_is_bound_to_the_plan_that_was_read(estate: Estate) -> None:
    planned(estate)
    with reacting(estate, answering(estate, event(3, "executing"))):
        done = run("approve", "rb-1", "--plan", HASH[:8], "--by", "bo", "--role", "steward")
    assert "executing" in done.stdout
    (said,) = requests(estate)
    (approval,) = said.approvals
    assert (said.verb, said.plan_hash, approval.plan_hash) == ("approve", HASH, HASH)
    assert (approval.by.id, approval.roles) == ("bo", ["steward"])


@pytest.mark.parametrize("given", ["ffffffff", HASH[:7], ""])
def test_another_plan_is_not_approved(estate: Estate, given: str) -> None:
    planned(estate)
    with pytest.raises(InputError, match=f"the plan that holds now is {HASH}"):
        run("approve", "rb-1", "--plan", given)
    assert not requests(estate)


def test_what_has_no_plan_can_not_be_approved(estate: Estate) -> None:
    publish(estate, event(1, "gathering"))
    with pytest.raises(InputError, match="has no plan yet"):
        run("approve", "rb-1", "--plan", HASH)


def test_cancel_and_resume(estate: Estate) -> None:
    planned(estate)
    run("cancel", "rb-1", "--reason", "Not needed.", "--wait", "0")
    run("resume", "rb-1", "--plan", HASH[:10], "--execute", "--wait", "0")
    cancel, resume = requests(estate)
    assert (cancel.verb, cancel.reason, cancel.select) == ("cancel", "Not needed.", None)
    assert (resume.verb, resume.plan_hash, resume.mode) == ("resume", HASH, "execute")
    assert cancel.request_id != resume.request_id


def open_conflicts(estate: Estate, resource: str, *conflicts: StepConflict) -> None:
    topic = estate.topics.rollback_history
    entry = HistoryEntry(
        table="rollbacks",
        resource="rb-1",
        entry_id=f"c:{resource}",
        machine_version=1,
        entry=msgspec.json.encode(list(conflicts)),
    )
    key = f"rb-1\0c:{resource}".encode()
    partition = partition_for(estate)
    estate.send(topic, key, estate.codec.encode(topic, entry) if conflicts else None, partition=partition)
    estate.flush()


def partition_for(estate: Estate) -> int:
    from reconciler.wire.partition import partition_of

    return partition_of(b"rb-1", estate.partitions)


def test_open_conflicts_are_listed_as_the_plan_shows_them(estate: Estate) -> None:
    planned(estate)
    open_conflicts(
        estate, "crm/contact/3", StepConflict(path="/note", actual="new"), StepConflict(path="/ssn", actual="1")
    )
    listed = run("resolve", "rb-1").stdout
    assert '"new"' in listed
    assert "/ssn" in listed
    assert '"1"' not in listed, "what no plan shows may be sensitive"
    assert not requests(estate)


def test_a_decision_is_bound_to_what_is_there(estate: Estate) -> None:
    planned(estate)
    open_conflicts(estate, "crm/contact/3", StepConflict(path="/note", actual="new"), StepConflict(path="/fax"))
    open_conflicts(estate, "crm/contact/4", StepConflict(path="/note", actual=None))
    run("resolve", "rb-1", "--take", "keep", "--resource", "crm/contact/3", "--path", "/note", "--wait", "0")
    run("resolve", "rb-1", "--take", "force", "--wait", "0")
    one, all_ = requests(estate)
    assert [(item.resource, item.path, item.take, item.seen) for item in one.resolutions] == [
        ("crm/contact/3", "/note", "keep", "new")
    ]
    assert (one.plan_hash, len(all_.resolutions)) == (HASH, 3)
    assert [item.seen for item in all_.resolutions] == ["new", ABSENT, None]


def test_a_value_of_ones_own(estate: Estate) -> None:
    planned(estate)
    open_conflicts(estate, "crm/contact/3", StepConflict(path="/note", actual="new"))
    run("resolve", "rb-1", "--take", "value", "--value", '"mine"', "--wait", "0")
    (said,) = requests(estate)
    assert said.resolutions[0].value == "mine"
    for options, message in (
        (["--take", "value"], "--value goes with"),
        (["--take", "keep", "--value", "1"], "--value goes with"),
        (["--take", "value", "--value", "mine"], "a text needs its quotes"),
        (["--take", "keep", "--path", "/other"], "no such conflict"),
    ):
        with pytest.raises(InputError, match=message):
            run("resolve", "rb-1", *options)


def test_what_was_decided_is_no_longer_open(estate: Estate) -> None:
    planned(estate)
    open_conflicts(estate, "crm/contact/3", StepConflict(path="/note", actual="new"))
    open_conflicts(estate, "crm/contact/3")
    with pytest.raises(InputError, match="no such conflict"):
        run("resolve", "rb-1", "--take", "keep")
