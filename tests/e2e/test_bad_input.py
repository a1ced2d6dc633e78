"""Everything that comes and can't be right, to a running worker with the real machine: each leaves a clear error, nothing is
lost, and the partition goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.history.tree import known_value
from reconciler.json_form import action_from_json
from reconciler.machines.head import Head, decode_head
from reconciler.records import Action, Alert, Observation, Outcome
from reconciler.values.instant import SECOND, parse_instant
from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.partition import partition_of
from streams.embedded.broker import EmbeddedBroker
from streams.embedded.redis import EmbeddedRedis
from tests.e2e.system import SqliteCrm, System
from tests.support.estate import Estate, Found
from tests.support.waiting import wait_until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WITHIN_S = 60.0
HAPPENED_AT = parse_instant("2026-05-03T10:00:00Z")
YEAR = 365 * 24 * 3_600 * SECOND


@pytest.fixture(scope="module")
def running(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """One worker for all; each test has a resource of its own. Nothing is sampled, so that nothing else comes."""
    folder = tmp_path_factory.mktemp("worker")
    with EmbeddedRedis() as redis:
        system = System(
            Estate.embedded(embedded_broker),
            SqliteCrm(folder / "crm.sqlite"),
            folder,
            {"RECONCILER_REDIS_URL": redis.url, "RECONCILER_SAMPLER_LIMITS__READS_PER_S": "0.001"},
        )
        system.worker()
        try:
            yield system.estate
        finally:
            system.stop()


def act(resource: str, step: str, **fields: Any) -> Action:
    action = {
        "stage": "succeeded",
        "action_id": f"{resource}/{step}",
        "run_id": "run",
        "step_id": step,
        "occurred_at": "2026-05-03T10:00:00Z",
        "resource": resource,
        "operation": "update",
        "set": {"/v": step},
    }
    return action_from_json({**action, **fields})


def encoded(estate: Estate, resource: str) -> bytes:
    return estate.codec.encode(estate.topics.actions, act(resource, "bad"))


class Sent(msgspec.Struct):
    """A bad record as it is sent."""

    value: bytes | None
    key: bytes | None
    topic: str = ""


def _unknown_magic(estate: Estate, resource: str) -> Sent:
    return Sent(b'{"json": true}', resource.encode())


def _unknown_schema(estate: Estate, resource: str) -> Sent:
    return Sent(b"\0\0\0\0\x07" + encoded(estate, resource)[5:], resource.encode())


def _truncated(estate: Estate, resource: str) -> Sent:
    return Sent(encoded(estate, resource)[:-3], resource.encode())


def _gigabytes(estate: Estate, resource: str) -> Sent:
    value = encoded(estate, resource)
    return Sent(value[:6] + b"\xfe\xff\xff\xff\x0f" + value[7:], resource.encode())


def _unknown_enum(estate: Estate, resource: str) -> Sent:
    value = bytearray(encoded(estate, resource))
    value[5] = 0x7E  # the index of `stage`, which stands first
    return Sent(bytes(value), resource.encode())


def _null_value(estate: Estate, resource: str) -> Sent:
    return Sent(None, resource.encode())


def _null_key(estate: Estate, resource: str) -> Sent:
    return Sent(encoded(estate, resource), None)


def _key_of_another(estate: Estate, resource: str) -> Sent:
    return Sent(encoded(estate, f"{resource}-another"), resource.encode())


def _in_1970(estate: Estate, resource: str) -> Sent:
    action = msgspec.structs.replace(act(resource, "bad"), occurred_at=1_780_000_000)
    return Sent(estate.codec.encode(estate.topics.actions, action), resource.encode())


def _next_year(estate: Estate, resource: str) -> Sent:
    action = msgspec.structs.replace(act(resource, "bad"), occurred_at=HAPPENED_AT + 2 * YEAR)
    return Sent(estate.codec.encode(estate.topics.actions, action), resource.encode())


def _outcome_of_nothing(estate: Estate, resource: str) -> Sent:
    outcome = Outcome(command_id="nobody-sent-it", resource=resource, status="applied", occurred_at=HAPPENED_AT)
    topic = estate.topics.outcomes
    return Sent(estate.codec.encode(topic, outcome), resource.encode(), topic)


UNUSABLE: dict[str, tuple[Callable[[Estate, str], Sent], str]] = {
    "an unknown magic byte": (_unknown_magic, "DecodeError"),
    "an unknown schema id": (_unknown_schema, "UnknownSchemaError"),
    "truncated Avro": (_truncated, "DecodeError"),
    "a length that claims gigabytes": (_gigabytes, "DecodeError"),
    "an unknown enum": (_unknown_enum, "DecodeError"),
    "a null value": (_null_value, "NullValue"),
    "a null key": (_null_key, "NullKey"),
    "the key of another resource": (_key_of_another, "WrongKey"),
    "an instant in 1970": (_in_1970, "InstantTooOld"),
    "an instant next year": (_next_year, "InstantAhead"),
    "an outcome of a command that nobody sent": (_outcome_of_nothing, "Rejected"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_can_not_be_used_is_kept_whole_and_the_partition_goes_on(running: Estate, name: str) -> None:
    make, exception = UNUSABLE[name]
    resource = f"crm/bad/{list(UNUSABLE).index(name)}"
    bad = make(running, resource)
    topic = bad.topic or running.topics.actions
    partition = partition_of(resource.encode(), running.partitions)
    _send(running, act(resource, "before"))
    running.send(topic, bad.key, bad.value, partition=partition, headers=[("traceparent", TRACEPARENT.encode())])
    _send(running, act(resource, "after"))
    head = _settled(running, resource, entries=2)
    assert known_value(head.tree) == {"v": "after"}
    (letter,) = wait_until(
        lambda: [found for found in running.read(running.topics.dead_letters) if _is_of(found, topic, bad)],
        deadline_s=WITHIN_S,
        what="the record stands among the dead letters",
    )
    assert (letter.key, letter.value) == (bad.key, bad.value)
    headers = {name: value.decode() for name, value in letter.headers.items()}
    assert headers["__dlq.errors.topic"] == topic
    assert headers["__dlq.errors.partition"] == str(partition)
    assert headers["__dlq.errors.group"] == running.group
    assert headers["__dlq.errors.exception"] == exception
    assert headers["__dlq.errors.message"]
    assert headers["__dlq.errors.attempt"] == "1"
    assert headers["traceparent"] == TRACEPARENT
    place = int(headers["__dlq.errors.offset"])
    (original,) = [found for found in running.read(topic) if (found.partition, found.offset) == (partition, place)]
    assert (original.key, original.value) == (bad.key, bad.value)


def test_the_wrong_partition(running: Estate) -> None:
    resource = "crm/bad/misplaced"
    wrong = (partition_of(resource.encode(), running.partitions) + 1) % running.partitions
    running.send_record(running.topics.actions, act(resource, "misplaced"), partition=wrong)
    assert known_value(_settled(running, resource, entries=1).tree) == {"v": "misplaced"}


def test_an_action_for_a_deleted_resource(running: Estate) -> None:
    """Somebody must have made it again: what the action says stands, and an undo of the delete would meet it."""
    resource = "crm/bad/deleted"
    _send(running, act(resource, "create", operation="create", set={"/v": "1", "/w": "1"}))
    _send(running, act(resource, "delete", operation="delete", set={}, before={"/v": "1", "/w": "1"}))
    _send(running, act(resource, "update", before={"/v": "2"}))
    assert known_value(_settled(running, resource, entries=3).tree) == {"v": "update"}


def test_the_same_action_id_with_another_body(running: Estate) -> None:
    resource = "crm/bad/contradicted"
    _send(running, act(resource, "one"))
    _send(running, act(resource, "one", set={"/v": "another"}))
    _send(running, act(resource, "two", set={"/w": "2"}))
    assert known_value(_settled(running, resource, entries=2).tree) == {"v": "one", "w": "2"}
    (alert,) = wait_until(
        lambda: [each for each in _records(running, running.topics.alerts, Alert) if each.subject == resource],
        deadline_s=WITHIN_S,
        what="people are told",
    )
    assert alert.kind == "action_contradicted"


def test_a_before_that_contradicts_what_was_expected(running: Estate) -> None:
    """Somebody wrote in between: that goes into the history as an external write, which no undo takes back."""
    resource = "crm/bad/contradicting"
    _send(running, act(resource, "one", before={"/v": "0"}))
    _send(running, act(resource, "two", before={"/v": "theirs"}))
    _settled(running, resource, entries=2)

    def entries() -> list[str]:
        return [
            each.entry.decode()
            for each in _records(running, running.topics.history, HistoryEntry)
            if each.resource == resource and each.entry_id.startswith("a:")
        ]

    wait_until(lambda: len(entries()) == 2, deadline_s=WITHIN_S, what="both entries can be read")
    assert "theirs" in entries()[-1]
    assert not [found for found in running.read(running.topics.dead_letters) if found.key == resource.encode()]


def test_an_observation_older_than_the_last(running: Estate) -> None:
    resource = "crm/bad/old-news"
    _send(running, act(resource, "one"))
    for minutes in (60, 30):
        observed_at = HAPPENED_AT + minutes * 60 * SECOND
        seen = Observation(resource=resource, exists=True, fields={"v": str(minutes)}, observed_at=observed_at)
        running.send_record(running.topics.observations, seen)
    _send(running, act(resource, "two"))
    running.flush()
    letters = wait_until(
        lambda: [each for each in running.read(running.topics.dead_letters) if each.key == resource.encode()],
        deadline_s=WITHIN_S,
        what="the older observation is put aside",
    )
    assert [letter.headers["__dlq.errors.topic"].decode() for letter in letters] == [running.topics.observations]
    assert b"older than the last observation" in letters[0].headers["__dlq.errors.message"]
    head = _settled(running, resource, entries=2)
    assert head.observed_at == HAPPENED_AT + 60 * 60 * SECOND


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contract: crm/contact\nfieldz: {}\n", "contact.yaml:2:1: "),
        ("contract: crm/contact\nlabels: &a {x: &b [1]}\nfields: {/a: *a, /b: *b}\n", "contact.yaml:2:"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
                for before, name in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "holds more than 20000 values, aliases written out",
        ),
    ],
    ids=["an unknown key", "aliases", "an alias bomb"],
)
def test_contracts_that_can_not_be_used_keep_the_worker_from_starting(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "contact.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "worker", "--processes", "1", "--contracts", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count(said) == 1, "the other process leaves it to the first"
    assert "Traceback" not in done.stderr


def _send(estate: Estate, action: Action) -> None:
    estate.send_record(estate.topics.actions, action)
    estate.flush()


def _settled(estate: Estate, resource: str, *, entries: int) -> Head:
    """The head of a resource, once so many actions are in its history."""

    def head() -> Head | None:
        latest = None
        for record in _records(estate, estate.topics.expected, ExpectedHead):
            if record.resource == resource:
                latest = decode_head(record.state)
        return latest if latest is not None and latest.entries == entries else None

    found = wait_until(head, deadline_s=WITHIN_S, what=f"{entries} actions on {resource} are folded")
    assert found is not None
    return found


def _is_of(found: Found, topic: str, bad: Sent) -> bool:
    return (found.key, found.value) == (bad.key, bad.value) and found.headers["__dlq.errors.topic"].decode() == topic


def _records(estate: Estate, topic: str, kind: type[Any]) -> list[Any]:
    values = [found.value for found in estate.read(topic) if found.value is not None]
    records = [estate.codec.decode(value) for value in values]
    return [record for record in records if isinstance(record, kind)]
