"""`reconciler ledger` on a real Kafka: what a machine took there, and topics that were built anew without, with or with other
records."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from reconciler.contracts.loader import Source, contract_set
from reconciler.machines.resource import ResourceMachine
from reconciler.records import Action, Actor, Stage
from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND
from streams.cli.main import cli
from tests.support.engines import engine_of, feed, own
from tests.support.estate import Estate, Found
from tests.support.kafka import KafkaBroker

PARTITIONS = 2
NOW = time.time_ns() // 1_000 - 3_600 * SECOND
CONTRACT = "contract: crm/contact\nfields: {/ssn: {sensitive: true}}\n"
ONE, OTHER = "crm/contact/1", "crm/contact/2"


def action(resource: str, step: str, at: int, stage: Stage = "succeeded", **more: object) -> Action:
    usual: dict[str, object] = {
        "run_id": "run-7",
        "step_id": step,
        "operation_id": f"run-7/{step}",
        "action_id": f"{resource}/{step}/{stage}",
        "operation": "update",
        "actor": Actor(id="ana@example.com", kind="user"),
        "rule": "Qualify hot leads",
    }
    return Action(stage=stage, occurred_at=NOW + at * SECOND, resource=resource, **{**usual, **more})  # type: ignore[arg-type]


ACTIONS = [
    action(ONE, "a", 1, "initiated"),
    action(ONE, "a", 2, before={"/phone": "1", "/ssn": "078-05-1120"}, set={"/phone": "2", "/ssn": "219-09-9999"}),
    action(OTHER, "b", 3, operation="create", set={"/name": "Ana"}),
    action(ONE, "c", 4, "failed"),
    action(ONE, "d", 5, before={"/fax": "9"}, unset=["/fax"]),
    action(ONE, "a", 6, "reversed", run_id="rollback-1", step_id="undo"),
    action(OTHER, "e", 7, operation="delete", before={"/name": "Ana"}),
]


@pytest.fixture(scope="module")
def taken(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    """An estate whose machine took all actions."""
    estate = Estate.real(kafka.bootstrap, PARTITIONS)
    for item in ACTIONS:
        estate.send_record(estate.topics.actions, item)
    estate.flush()

    async def take() -> None:
        machine = ResourceMachine(contract_set([Source("c.yaml", CONTRACT)]))
        engine = engine_of(estate.settings(tmp_path_factory.mktemp("engine")), estate.codec, machine)
        await own(engine, range(PARTITIONS))
        await feed(engine, estate, {})
        await engine.close()

    asyncio.run(take())
    return estate


@pytest.fixture
def rebuilt(taken: Estate, kafka: KafkaBroker) -> Callable[[Callable[[list[Found]], list[Found]]], Estate]:
    """Copies all topics, the ledger's with a change to the records of one resource."""

    def rebuild(change: Callable[[list[Found]], list[Found]]) -> Estate:
        copy = Estate.real(kafka.bootstrap, PARTITIONS)
        for topic, into in (
            (taken.topics.expected, copy.topics.expected),
            (taken.topics.history, copy.topics.history),
            (taken.topics.actions, copy.topics.actions),
        ):
            records = taken.read(topic)
            if topic == taken.topics.actions:
                of_one = [record for record in records if record.key == ONE.encode()]
                records = [*change(of_one), *(record for record in records if record not in of_one)]
            for record in records:
                copy.send(into, record.key, record.value, partition=record.partition)
        copy.flush()
        return copy

    return rebuild


def run(estate: Estate, *arguments: str) -> Result:
    environment = {"RECONCILER_TOPIC_PREFIX": estate.prefix, "RECONCILER_BOOTSTRAP_SERVERS": estate.bootstrap}
    return CliRunner().invoke(cli, ["ledger", *arguments], env=environment, catch_exceptions=False)


def faults(estate: Estate) -> list[dict[str, str]]:
    checked = run(estate, "verify", "--json")
    found = [json.loads(line) for line in checked.stdout.splitlines()]
    assert checked.exit_code == (1 if found else 0), checked.stderr
    return found


def test_a_ledger_that_nobody_touched_is_in_order(taken: Estate) -> None:
    checked = run(taken, "verify")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert checked.stderr.startswith("7 records of 2 resources: 0 faults. Seal ")
    assert faults(taken) == []
    assert run(taken, "verify", "--resource", ONE).stderr.startswith("5 records of 1 resource: 0 faults.")


def test_a_record_that_was_taken_out_is_named(rebuilt: Callable[..., Estate]) -> None:
    (fault,) = faults(rebuilt(lambda records: [*records[:1], *records[2:]]))
    assert (fault["kind"], fault["resource"], fault["operation_id"]) == ("removed", ONE, "run-7/a")
    assert "entry 1 of the history" in fault["message"]


def test_a_failed_step_that_was_taken_out_is_found(rebuilt: Callable[..., Estate]) -> None:
    (fault,) = faults(rebuilt(lambda records: [*records[:2], *records[3:]]))
    assert (fault["kind"], fault["resource"]) == ("removed", ONE)
    assert "a record of a step that began or failed is gone" in fault["message"]


def test_an_edited_record_is_named_with_what_was_edited(taken: Estate, rebuilt: Callable[..., Estate]) -> None:
    edited = msgspec.structs.replace(ACTIONS[1], actor=Actor(id="ben@example.com", kind="user"))
    value = taken.codec.encode(taken.topics.actions, edited)
    (fault,) = faults(rebuilt(lambda records: [records[0], records[1]._replace(value=value), *records[2:]]))
    assert (fault["kind"], fault["resource"], fault["operation_id"]) == ("edited", ONE, "run-7/a")
    assert fault["message"].endswith("was changed since it was taken: actor.")


def test_two_swapped_records_are_named(rebuilt: Callable[..., Estate]) -> None:
    (fault,) = faults(rebuilt(lambda records: [*records[:3], records[4], records[3]]))
    assert (fault["kind"], fault["resource"]) == ("moved", ONE)


def test_a_record_that_was_put_in_is_named(taken: Estate, rebuilt: Callable[..., Estate]) -> None:
    more = action(ONE, "x", 3, set={"/phone": "5"}, before={"/phone": "2"})
    value = taken.codec.encode(taken.topics.actions, more)
    (fault,) = faults(rebuilt(lambda records: [*records[:3], records[0]._replace(value=value), *records[3:]]))
    assert (fault["kind"], fault["operation_id"]) == ("inserted", "run-7/x")


def test_records_show_who_did_what_by_which_rule_and_what_undid_it(taken: Estate, tmp_path: Path) -> None:
    (tmp_path / "contact.yaml").write_text(CONTRACT, encoding="utf-8")
    shown = run(taken, "show", "--resource", ONE, "--contracts", str(tmp_path)).stdout
    assert "078-05-1120" not in shown
    assert "219-09-9999" not in shown
    lines = [line[21:] if not line.startswith(" ") else line for line in shown.splitlines()]
    assert lines == [
        f"initiated update  {ONE}  run-7/a  by ana@example.com  rule “Qualify hot leads”",
        f"succeeded update  {ONE}  run-7/a  by ana@example.com  rule “Qualify hot leads”",
        '    /phone: "1" → "2"',
        '    /ssn: "•••" → "•••"',
        "    undone by rollback-1/undo",
        f"failed    update  {ONE}  run-7/c  by ana@example.com  rule “Qualify hot leads”",
        f"succeeded update  {ONE}  run-7/d  by ana@example.com  rule “Qualify hot leads”",
        '    /fax: "9" → nothing',
        f"reversed  update  {ONE}  rollback-1/undo  by ana@example.com  rule “Qualify hot leads”",
        "    undoes run-7/a",
    ]


@pytest.mark.parametrize(
    ("option", "value", "steps"),
    [
        ("--run", "run-7", ["a", "a", "b", "c", "d", "e"]),
        ("--operation", "run-7/a", ["a", "a", "undo"]),
        ("--rollback", "rollback-1", ["a", "undo"]),
        ("--resource", OTHER, ["b", "e"]),
    ],
)
def test_a_part_of_the_ledger_is_shown_in_the_order_of_time(
    taken: Estate, option: str, value: str, steps: list[str]
) -> None:
    rows = [json.loads(line) for line in run(taken, "show", option, value, "--json").stdout.splitlines()]
    assert [row["step_id"] for row in rows] == steps


def test_what_is_asked_wrongly_is_told(taken: Estate) -> None:
    for arguments, message in (
        (["show"], "say of what: one of --run, --resource, --operation and --rollback"),
        (["show", "--run", "a", "--rollback", "b"], "say of what"),
        (["show", "--run", "nothing"], "the ledger has nothing of 'nothing'; check the name"),
        (["show", "--resource", "crm"], "'crm' must be system/type/id"),
        (["verify", "--file", "x", "--resource", ONE], "can't stand together"),
        (["verify", "--file", "/nowhere"], "/nowhere can't be read"),
    ):
        with pytest.raises(InputError, match=message):
            run(taken, *arguments)


# -- files


@pytest.fixture
def exported(taken: Estate, tmp_path: Path) -> Path:
    file = tmp_path / "ledger.jsonl"
    written = run(taken, "export", "--output", str(file))
    assert (written.exit_code, written.stderr) == (0, "7 records written.\n")
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def verified(file: Path) -> Result:
    return CliRunner().invoke(cli, ["ledger", "verify", "--file", str(file)], catch_exceptions=False)


def test_an_export_is_in_order_and_has_the_seal_of_the_ledger(taken: Estate, exported: Path) -> None:
    checked = verified(exported)
    assert (checked.exit_code, checked.stdout) == (0, "")
    seal = checked.stderr.partition("Seal ")[2]
    assert seal == run(taken, "verify").stderr.partition("Seal ")[2]
    assert len(seal.strip(".\n")) == 64


def test_an_export_is_folded_like_the_actions(exported: Path) -> None:
    lines = CliRunner().invoke(cli, ["fold", "--actions", str(exported)], catch_exceptions=False).stdout.splitlines()
    folded = {line["resource"]: line for line in map(json.loads, lines)}
    assert folded[ONE]["fields"] == {"/phone": "1", "/ssn": "078-05-1120"}
    assert folded[OTHER]["exists"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], ":2: crm/contact/1 run-7/c: a record is missing before it, after line 1."),
        (lambda lines: [*lines[:4], *lines[5:]], "its chain has 5 records, and the last in the file is number 4."),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], ":3: crm/contact/1 run-7/a: it stands after line 2"),
        (
            lambda lines: [lines[0].replace("ana@", "ben@"), *lines[1:]],
            ":1: crm/contact/1 run-7/a: it was changed: it doesn't give the link that stands beside it.",
        ),
        (lambda lines: lines[:-1], "the seal is missing: the end of the file is gone."),
        (lambda lines: [*lines[:-2], lines[-1]], "nothing says where its chain ends"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"seal":"', '"seal":"0')], "the seal isn't that of the records."),
        (lambda lines: [json.dumps({"stage": "failed"}), *lines], ":1: it has no place in the ledger"),
        (lambda lines: [*lines, lines[0]], "it stands after line 5, before which it came"),
    ],
)  # fmt: skip
def test_whatever_is_done_to_an_export_is_found(
    exported: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    lines = sorted(
        exported.read_text(encoding="utf-8").splitlines(),
        key=lambda line: (ONE not in line or '"stage"' not in line, '"stage"' not in line),
    )
    exported.write_text("\n".join(lines), encoding="utf-8")
    assert verified(exported).exit_code == 0
    exported.write_text("\n".join(change(lines)), encoding="utf-8")
    checked = verified(exported)
    assert checked.exit_code == 1
    assert message in checked.stdout, checked.stdout


def test_a_selection_is_checked_line_by_line_and_has_no_seal(taken: Estate, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    assert run(taken, "export", "--run", "rollback-1", "--output", str(file)).exit_code == 0
    checked = verified(file)
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert checked.stderr == "1 record of 1 resource: 0 faults. A selection has no seal.\n"
    file.write_text(file.read_text(encoding="utf-8").replace("rollback-1", "rollback-2"), encoding="utf-8")
    assert verified(file).exit_code == 1


def test_an_export_is_shown_like_the_ledger(taken: Estate, exported: Path) -> None:
    file = CliRunner().invoke(
        cli, ["ledger", "show", "--run", "run-7", "--file", str(exported)], catch_exceptions=False
    )
    assert file.stdout == run(taken, "show", "--run", "run-7").stdout


def test_a_faulty_ledger_is_exported_with_a_word_and_exits_with_1(
    rebuilt: Callable[..., Estate], tmp_path: Path
) -> None:
    written = run(rebuilt(lambda records: records[1:]), "export", "--output", str(tmp_path / "x"))
    assert written.exit_code == 1
    assert "the ledger has 1 fault; run `reconciler ledger verify`" in written.stderr
