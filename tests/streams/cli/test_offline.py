"""`fold`, `diff`, `plan` and `apply` as a person calls them: results alone on standard output, errors with their places."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.offline import FaultyPlan
from reconciler.plan.model import Plan
from reconciler.plan.verify import Fault
from reconciler.values.errors import InputError, ReconcilerError
from streams.cli.main import cli
from streams.cli.offline import read_actions

ACTION: dict[str, Any] = {
    "action_id": "a1",
    "operation_id": "o1",
    "stage": "succeeded",
    "run_id": "r",
    "step_id": "s",
    "occurred_at": "2026-05-03T10:00:00Z",
    "resource": "crm/contact/42",
    "operation": "update",
    "before": {"/a": "1"},
    "set": {"/a": "2"},
}
ACTUAL: dict[str, Any] = {
    "resource": "crm/contact/42",
    "exists": True,
    "fields": {"/a": "2"},
    "observed_at": "2026-05-04T10:00:00Z",
}
REQUEST: dict[str, Any] = {"rollback_id": "rb", "select": {"run_id": "r"}, "requested_by": "ana"}
PLAN_KEYS = (
    "rollback_id", "status", "waves", "conflicts", "kept", "blocked", "unchanged", "approvals_needed", "plan_hash", "story",
)  # fmt: skip


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


class Desk:
    """A folder with the files that the commands read, each of which a test may replace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("a.jsonl", lines(ACTION))
        self.write("s.jsonl", lines(ACTUAL))
        self.write("r.json", lines(REQUEST))

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def run(self, command: str, *more: str, stdin: bytes | None = None) -> Result:
        files = {
            "fold": ["--actions", "a.jsonl"],
            "diff": ["--actions", "a.jsonl", "--actual", "s.jsonl"],
            "plan": ["--actions", "a.jsonl", "--actual", "s.jsonl", "--request", "r.json"],
            "apply": ["--plan", "p.json", "--actual", "s.jsonl"],
        }[command]
        return CliRunner().invoke(cli, [command, *files, *more], input=stdin)

    def said(self, command: str, *more: str) -> list[Any]:
        result = self.run(command, *more)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def refused(result: Result) -> str:
    """The one sentence of an input error, for which `main` exits with 2; nothing stands on standard output."""
    assert isinstance(result.exception, ReconcilerError), result.stderr
    assert result.stdout == ""
    return str(result.exception)


def test_the_four_commands_work_on_files_alone(desk: Desk) -> None:
    assert desk.said("fold") == [
        {"resource": "crm/contact/42", "exists": True, "fields": {"/a": "2"}, "owners": {"/a": ["o1"]}}
    ]
    assert desk.said("diff") == [{"resource": "crm/contact/42", "verdict": "in_sync", "changes": [], "command": None}]
    (plan,) = desk.said("plan")
    (command,) = plan["waves"][0]
    assert command["changes"] == [{"path": "/a", "op": "set", "value": "1", "expect": "2"}]
    desk.write("p.json", lines(plan))
    (after,) = desk.said("apply")
    assert after["fields"] == {"a": "1"}


def test_bom_line_ends_and_blank_lines_are_nothing(desk: Desk) -> None:
    plain = desk.said("fold"), desk.said("diff"), desk.said("plan")
    for name in ("a.jsonl", "s.jsonl", "r.json"):
        text = (desk.folder / name).read_bytes()
        desk.write(name, b"\xef\xbb\xbf\r\n \r\n" + text.replace(b"\n", b"\r\n") + b"\r\n\n")
    assert (desk.said("fold"), desk.said("diff"), desk.said("plan")) == plain


def test_a_last_line_needs_no_end_and_a_file_no_line(desk: Desk) -> None:
    desk.write("a.jsonl", lines(ACTION).rstrip())
    assert len(desk.said("fold")) == 1
    desk.write("a.jsonl", b"")
    assert desk.said("fold") == []


def test_a_line_may_be_long(desk: Desk) -> None:
    desk.write("a.jsonl", lines(ACTION | {"set": {"/a": "x" * 5_000_000}}))
    assert len(desk.said("fold")[0]["fields"]["/a"]) == 5_000_000


def test_absent_null_and_the_empty_ones_stay_four(desk: Desk) -> None:
    desk.write(
        "a.jsonl", lines(ACTION | {"before": {}, "set": {"/n": None, "/o": {}, "/l": [], "/s": ""}, "unset": ["/x"]})
    )
    (expected,) = desk.said("fold")
    assert expected["fields"] == {"/n": None, "/o": {}, "/l": [], "/s": ""}
    desk.write("s.jsonl", lines(ACTUAL | {"fields": {"n": {}, "o": [], "l": None, "s": None, "x": None}}))
    (verdict,) = desk.said("diff")
    changes = {change["path"]: change for change in verdict["changes"]}
    assert changes.keys() == {"/n", "/o", "/l", "/s", "/x"}
    assert "expected" not in changes["/x"] and changes["/x"]["actual"] is None
    desk.write("s.jsonl", lines(ACTUAL | {"fields": {"id": 1}}))
    (verdict,) = desk.said("diff")
    assert {change["path"]: "actual" in change for change in verdict["changes"]} == {
        "/n": False,
        "/o": False,
        "/l": False,
        "/s": False,
    }


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", b"\n" + lines(ACTION) + b"{bad\n", "a.jsonl:3: is not JSON"),
        ("a.jsonl", lines(ACTION, ACTION | {"stage": "done"}), "a.jsonl:2: stage: "),
        ("a.jsonl", lines(ACTION | {"foo": 1}), "a.jsonl:1: an action has no key 'foo'; use stage, "),
        ("a.jsonl", lines([1]), "a.jsonl:1: must be a JSON object"),
        ("a.jsonl", lines(ACTION).replace(b'"2"', b"18446744073709551616"), "a.jsonl:1: set: the integer"),
        ("a.jsonl", lines(ACTION).replace(b'"2"', b"[" * 200 + b"]" * 200), "a.jsonl:1: set: is nested more than 100"),
        ("a.jsonl", lines(ACTION).decode().encode("utf-16"), "a.jsonl:1: is not UTF-8: byte 1 is 0xFF; save"),
        ("s.jsonl", lines(ACTUAL, ACTUAL | {"exists": "yes"}), "s.jsonl:2: exists: "),
        ("s.jsonl", lines(ACTUAL | {"fields": {"a": 1, "/a/b": 2}}), "s.jsonl:1: fields: '/a/b' is below"),
        (
            "s.jsonl",
            lines(ACTUAL | {"vresion": "9"}),
            "s.jsonl:1: an observation has no key 'vresion'; did you mean version?",
        ),
        ("r.json", b"{\n\nfoo}", "r.json: is not JSON: unexpected character, expected a string key (line 3, column 1)"),
        ("r.json", lines(REQUEST, REQUEST), "r.json: is not JSON"),
        ("r.json", lines(REQUEST | {"foo": 1}), "r.json: a rollback request has no key 'foo'; use "),
        ("r.json", lines(REQUEST | {"select": {}}), "r.json: select: must name exactly one of"),
        ("r.json", lines(REQUEST | {"select": {"run": "r"}}), "r.json: select: has no key 'run'; did you mean run_id?"),
        (
            "r.json",
            lines(REQUEST | {"select": {"actor": "a", "from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}}),
            "r.json: select.to: must not be before `from`",
        ),
        ("r.json", lines(REQUEST | {"mode": "now"}), "r.json: mode: must be plan or execute, not 'now'"),
        ("a.jsonl", lines(ACTION).rstrip()[:-1] + b"\r\n", "a.jsonl:1: is not JSON: unexpected end of data (column "),
        ("a.jsonl", lines(ACTION, ACTION) + b"{\n", "a.jsonl:3: is not JSON: unexpected end of data (column 2); check"),
        ("a.jsonl", lines(ACTION | {"run_id": "é"}).replace(b"\\u00e9", b"\xe9"), "a.jsonl:1: is not UTF-8: byte "),
        ("a.jsonl", lines(ACTION | {"sequence": 10**30}), f"a.jsonl:1: sequence: the integer 1{'0' * 23}… is beyond"),
        ("r.json", b"{\n", "r.json: is not JSON: unexpected end of data (column 2)"),
        ("r.json", lines(REQUEST | {"select": {"run_id": 10**30}}), f"r.json: select: the integer 1{'0' * 23}… is"),
        (
            "r.json",
            lines(REQUEST | {"select": {"resource": "crm", "to": "2026-01-01T00:00:00Z"}}),
            "r.json: select.resource: the resource 'crm' must be system/type/id",
        ),
        (
            "r.json",
            lines(REQUEST | {"resolutions": [{"resource": "crm", "path": "/a", "take": "keep"}]}),
            "r.json: resolutions[0].resource: the resource 'crm' must be system/type/id",
        ),
        (
            "r.json",
            lines(REQUEST | {"resolutions": [{"resource": "crm/contact/42", "path": "a", "take": "keep"}]}),
            "r.json: resolutions[0].path: the path 'a' must be empty or begin with '/'",
        ),
        (
            "r.json",
            lines(REQUEST | {"resolutions": [{"resource": "crm/contact/42", "path": "/a", "take": "x"}]}),
            "r.json: resolutions[0].take: must be keep, force or value, not 'x'",
        ),
    ],
)
def test_input_errors_say_where(desk: Desk, name: str, content: bytes, place: str) -> None:
    desk.write(name, content)
    assert refused(desk.run("plan")).startswith(place)
    if name != "r.json":
        assert refused(desk.run("diff")).startswith(place)
    if name == "a.jsonl":
        assert refused(desk.run("fold")).startswith(place)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda plan: plan.update(foo=1), "p.json: a plan has no key 'foo'; use "),
        (lambda plan: plan.pop("waves"), "p.json: a plan needs the key waves; add it"),
        (lambda plan: plan["waves"][0][0]["changes"][0].update(op="put"), "p.json: waves[0][0].changes[0].op: "),
        (lambda plan: plan["waves"][0][0]["changes"][0].update(path="a"), "p.json: waves[0][0].changes[0].path: "),
    ],
)
def test_a_plan_that_cant_be_used_is_refused_with_its_place(
    desk: Desk, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    (plan,) = desk.said("plan")
    change(plan)
    desk.write("p.json", lines(plan))
    assert refused(desk.run("apply")).startswith(place)


def test_a_plan_needs_only_what_it_is_carried_out_by(desk: Desk) -> None:
    (plan,) = desk.said("plan")
    desk.write("p.json", lines({name: value for name, value in plan.items() if name in PLAN_KEYS}))
    assert desk.said("apply")[0]["fields"] == {"a": "1"}
    desk.write("p.json", b"[]")
    assert refused(desk.run("apply")) == "p.json: must be a JSON object that describes a plan"


def test_the_instant_of_a_plan_is_checked(desk: Desk) -> None:
    assert refused(desk.run("plan", "--now", "tomorrow")).startswith("--now: 'tomorrow' is no instant")


def test_files_and_folders_that_arent_there_are_named(desk: Desk) -> None:
    assert refused(desk.run("fold", "--actions", "none.jsonl")).startswith("none.jsonl can't be read")
    assert refused(desk.run("fold", "--contracts", "none")).startswith("none is no folder")
    assert "only one file can be '-'" in refused(desk.run("diff", "--actions", "-", "--actual", "-"))


def test_actions_may_come_on_standard_input(desk: Desk) -> None:
    result = desk.run("fold", "--actions", "-", stdin=lines(ACTION))
    assert json.loads(result.stdout)["fields"] == {"/a": "2"}
    assert refused(desk.run("fold", "--actions", "-", stdin=b"\nx")).startswith("-:2: is not JSON")


def test_a_standard_input_that_is_closed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="-: the standard input is closed; give a file"):
        list(read_actions(Path("-")))


def test_a_command_for_another_state_is_refused_aloud(desk: Desk) -> None:
    (plan,) = desk.said("plan")
    desk.write("p.json", lines(plan))
    for actual, says in (
        (ACTUAL | {"fields": {"/a": "7"}}, "crm/contact/42/a: the field holds something else"),
        (ACTUAL | {"exists": None, "fields": {}}, "crm/contact/42: the file of actual states doesn't say"),
        (ACTUAL | {"resource": "crm/contact/43"}, "crm/contact/42: the file of actual states doesn't say"),
    ):
        desk.write("s.jsonl", lines(actual))
        result = desk.run("apply")
        assert result.exit_code == 1
        assert says in result.stderr
        (after,) = [json.loads(line) for line in result.stdout.splitlines()]
        assert (after["exists"], after["resource"]) == (actual["exists"], actual["resource"])


@pytest.mark.parametrize("command", ["fold", "diff", "plan"])
def test_an_id_that_comes_again_with_another_body_is_said_aloud(desk: Desk, command: str) -> None:
    desk.write("a.jsonl", lines(ACTION, ACTION, ACTION | {"set": {"/a": "3"}}))
    result = desk.run(command)
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "the action a1 of crm/contact/42 comes again with another body" in result.stderr
    desk.write("a.jsonl", lines(ACTION))
    assert json.loads(result.stdout) == desk.said(command)[0]


def test_a_rejected_plan_is_printed_and_exits_with_3(desk: Desk) -> None:
    (desk.folder / "contracts").mkdir()
    rule = '{when: "true", because: "Nothing here is ever undone."}'
    desk.write("contracts/contact.yaml", f"contract: crm/contact\nversion: 1\nundo: {{forbid: [{rule}]}}\n".encode())
    result = desk.run("plan", "--contracts", "contracts")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["status"] == "rejected"


def test_a_faulty_plan_is_not_printed_and_every_fault_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [
        Fault("waves[0][0].changes[0].expect", "it isn't what is there"),
        Fault("plan_hash", "it isn't the digest"),
    ]

    def faulty(*_: Any) -> Plan:
        raise FaultyPlan(faults)

    monkeypatch.setattr("streams.cli.offline.planned", faulty)
    result = desk.run("plan")
    assert result.exit_code == 70
    assert result.stdout == ""
    assert all(str(fault) in result.stderr for fault in faults) and "This is a bug" in result.stderr


def test_a_plan_masks_what_is_sensitive_in_its_report_and_can_be_applied(desk: Desk) -> None:
    (desk.folder / "c").mkdir()
    desk.write("c/contact.yaml", b"contract: crm/contact\nfields: {/a: {sensitive: true}}\n")
    result = desk.run("plan", "--contracts", "c")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["waves"][0][0]["changes"] == [{"path": "/a", "op": "set", "value": "1", "expect": "2"}]
    assert "what it holds isn't shown" in plan["story"]
    desk.write("p.json", result.stdout.encode())
    assert json.loads(desk.run("apply").stdout)["fields"] == {"a": "1"}


def test_a_contract_that_cant_be_used_is_refused_with_file_and_line(desk: Desk) -> None:
    (desk.folder / "contracts").mkdir()
    desk.write("contracts/contact.yaml", b"contract: crm/contact\nversion: 1\nfeilds: {}\n")
    for command in ("fold", "diff", "plan"):
        assert "contact.yaml:3:" in refused(desk.run(command, "--contracts", "contracts"))
