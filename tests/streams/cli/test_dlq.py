"""`reconciler dlq` on the embedded broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.values.errors import InputError
from streams.cli.main import cli
from streams.embedded.broker import EmbeddedBroker
from streams.runner.dead_letter import dead_letter
from tests.support.batches import Raw
from tests.support.estate import Estate, action

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = b"crm/contact/1"


@pytest.fixture
def estate(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Estate:
    estate = Estate.embedded(embedded_broker)
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", estate.bootstrap)
    monkeypatch.setenv("RECONCILER_TOPIC_PREFIX", estate.prefix)
    return estate


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dlq", *arguments], catch_exceptions=False)


def rows(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


def put_aside(
    estate: Estate,
    value: bytes | None,
    *,
    key: bytes | None = KEY,
    offset: int = 7,
    partition: int = 2,
    exception: str = "DecodeError",
    headers: list[tuple[str, bytes | None]] | None = None,
    max_bytes: int = 1_000_000,
) -> None:
    """A dead letter, as the worker writes it."""
    letter = dead_letter(
        dead_letters_topic=estate.topics.dead_letters,
        record=Raw(offset, key, value, 0, headers or []),
        topic=estate.topics.actions,
        partition=partition,
        group="workers",
        exception=exception,
        message="it can't be used",
        max_bytes=max_bytes,
    )
    sent = [(name, text or b"") for name, text in letter.headers]
    estate.send(letter.topic, letter.key, letter.value, headers=sent)
    estate.flush()


def test_what_is_there_and_why(estate: Estate) -> None:
    assert rows("list") == []
    put_aside(estate, b"\x07nonsense")
    (row,) = rows("list")
    assert (row["topic"], row["partition"], row["offset"]) == (estate.topics.actions, 2, 7)
    assert (row["key"], row["exception"], row["attempt"], row["bytes"]) == ("crm/contact/1", "DecodeError", 1, 9)
    listed = run("list")
    assert row["id"] in listed.stdout
    assert "it can't be used" in listed.stdout
    (shown,) = rows("show", row["id"])
    assert shown["first_bytes"] == "07 6e 6f 6e 73 65 6e 73 65"
    assert "0x07" in shown["unreadable"]


def test_one_that_can_be_read_by_now_is_shown_as_a_record(estate: Estate) -> None:
    put_aside(estate, estate.codec.encode(estate.topics.actions, action("crm/contact/1", "a")))
    (shown,) = rows("show", rows("list")[0]["id"])
    assert (shown["kind"], shown["record"]["action_id"]) == ("Action", "a")
    assert '"/v":1' in run("show", shown["id"]).stdout


def test_driving_again_sends_what_was_found_once(estate: Estate) -> None:
    put_aside(estate, b"bytes", headers=[("traceparent", TRACEPARENT), ("__dlq.errors.attempt", b"2")])
    assert rows("redrive", "--all", "--dry-run")[0]["redriven"] is False
    assert not estate.read(estate.topics.actions)
    assert len(rows("redrive", "--all")) == 1
    (sent,) = estate.read(estate.topics.actions)
    assert (sent.key, sent.value) == (KEY, b"bytes")
    # The attempt stays, so that the worker that refuses it again counts on.
    assert sent.headers == {"traceparent": TRACEPARENT, "__dlq.errors.attempt": b"3"}
    assert rows("list") == []
    assert [row["redriven"] for row in rows("list", "--all")] == [True]
    assert rows("redrive", "--all") == []
    assert len(estate.read(estate.topics.actions)) == 1


def test_null_keys_and_values_go_back_as_they_were(estate: Estate) -> None:
    put_aside(estate, None)
    put_aside(estate, b"x", key=None, partition=3)
    run("redrive", "--all")
    sent = {record.key: record for record in estate.read(estate.topics.actions)}
    assert sent[KEY].value is None
    assert (sent[None].value, sent[None].partition) == (b"x", 3)


def test_choosing(estate: Estate) -> None:
    put_aside(estate, b"one")
    put_aside(estate, b"two", exception="UnknownSchemaError", key=b"crm/contact/2")
    assert [row["key"] for row in rows("list", "--exception", "UnknownSchemaError")] == ["crm/contact/2"]
    assert [row["key"] for row in rows("list", "--key", "crm/contact/1")] == ["crm/contact/1"]
    assert rows("list", "--topic", "another") == []
    assert len(rows("redrive", "--all", "--exception", "UnknownSchemaError")) == 1
    (sent,) = estate.read(estate.topics.actions)
    assert sent.value == b"two"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "9/9"), "there is no dead letter '9/9'"),
        (("redrive",), "say which"),
        (("redrive", "1/1", "--all"), "not both"),
        (("redrive", "1/1"), "there is no dead letter '1/1'"),
    ],
)
def test_what_can_not_be_meant(estate: Estate, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(*arguments)


def test_one_that_was_cut_is_not_sent(estate: Estate) -> None:
    put_aside(estate, b"x" * 2_000, max_bytes=1_000)
    with pytest.raises(InputError, match=f"the whole record is at {estate.topics.actions}/2/7"):
        run("redrive", "--all")
    assert not estate.read(estate.topics.actions)
