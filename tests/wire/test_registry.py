"""Ids from a real registry, and what happens while it is down."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from reconciler.json_form import action_from_json
from reconciler.records import Action, Timer
from reconciler.wire.codec import Codec, schema_header, subject_of
from reconciler.wire.errors import DecodeError, NotRegisteredError, RegistryDownError, RegistryError
from reconciler.wire.plain_reader import IS_SHORTER
from reconciler.wire.registry import RETRY_AFTER_S, Registry
from reconciler.wire.schema_folder import packaged_folder
from reconciler.wire.topics import TopicNames
from tests.support.ports import free_port
from tests.support.registry import SchemaRegistry
from tests.wire.schema_folders import with_further_version
from tests.wire.strategies import full_action

ACTION = full_action()
FOLDER = packaged_folder()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def names() -> TopicNames:
    """Topics of this test alone."""
    return TopicNames(f"{uuid.uuid4().hex[:8]}.")


@pytest.fixture(scope="module")
def stoppable() -> Iterator[SchemaRegistry]:
    """A registry that a test may stop."""
    with SchemaRegistry() as server:
        yield server


def register(url: str, topic: str, name: str = "action") -> int:
    (done,) = Registry(url).register(subject_of(topic), FOLDER.versions[name])
    return done.id


def counted(monkeypatch: pytest.MonkeyPatch, registry: Registry, question: str) -> list[Any]:
    """The first argument of each question that goes to the registry from now on."""
    asked: list[Any] = []
    ask = getattr(registry._client, question)

    def count(*arguments: Any) -> Any:
        asked.append(arguments[0])
        return ask(*arguments)

    monkeypatch.setattr(registry._client, question, count)
    return asked


def id_in(payload: bytes) -> int:
    assert payload[0] == 0
    return int.from_bytes(payload[1:5], "big")


def test_ids_come_from_the_registry(registry: SchemaRegistry, names: TopicNames) -> None:
    schema_id = register(registry.url, names.actions)
    codec = Codec.with_registry(registry.url)
    payload = codec.encode(names.actions, ACTION)
    assert id_in(payload) == schema_id != FOLDER.latest("action").id
    assert codec.decode(payload) == ACTION
    assert Codec.with_registry(registry.url).decode(payload) == ACTION
    with pytest.raises(DecodeError):
        Codec.packaged().decode(payload)


def test_plain_updates_are_known_by_the_registrys_ids(registry: SchemaRegistry, names: TopicNames) -> None:
    register(registry.url, names.actions)
    writer, reader = Codec.with_registry(registry.url), Codec.with_registry(registry.url)
    action = action_from_json(
        {
            "stage": "succeeded",
            "run_id": "run",
            "step_id": "step",
            "occurred_at": "2026-05-03T10:00:00Z",
            "resource": "crm/contact/42",
            "operation": "update",
            "before": {},
            "set": {"/a": 1},
        }
    )
    payload = writer.encode(names.actions, action)
    assert (writer.read_plain_update(payload) is not None) == IS_SHORTER
    assert reader.read_plain_update(payload) is None  # it hasn't seen that id yet
    assert reader.decode(payload) == action
    assert (reader.read_plain_update(payload) is not None) == IS_SHORTER


def test_an_action_of_another_version_is_never_plain(
    registry: SchemaRegistry, names: TopicNames, tmp_path: Path
) -> None:
    def with_note(schema: dict[str, Any]) -> None:
        schema["fields"].append({"name": "note", "type": "string", "default": "", "doc": "A note."})

    later = with_further_version(tmp_path, "action", with_note)
    done = Registry(registry.url).register(subject_of(names.actions), later.versions["action"])
    codec = Codec.with_registry(registry.url)
    payload = schema_header(done[-1].id) + Codec.packaged().encode(names.actions, ACTION)[5:] + b"\x04hi"
    assert codec.decode(payload) == ACTION
    assert payload[:5] not in codec._of_newest_actions


def test_what_the_registry_has_is_what_we_have(registry: SchemaRegistry, names: TopicNames) -> None:
    schema_id = register(registry.url, names.actions)
    client = SchemaRegistryClient({"url": registry.url})
    text = client.get_schema(schema_id).schema_str
    assert text is not None
    assert json.loads(text) == FOLDER.latest("action").schema
    assert client.get_compatibility(subject_of(names.actions)) == "FULL_TRANSITIVE"


def test_registering_again_changes_nothing(registry: SchemaRegistry, names: TopicNames) -> None:
    subject = subject_of(names.actions)
    (first,) = Registry(registry.url).register(subject, FOLDER.versions["action"])
    (again,) = Registry(registry.url).register(subject, FOLDER.versions["action"])
    assert (first.is_new, again.is_new) == (True, False)
    assert first.id == again.id
    assert SchemaRegistryClient({"url": registry.url}).get_versions(subject) == [1]


def test_the_registry_refuses_a_break(registry: SchemaRegistry, names: TopicNames) -> None:
    register(registry.url, names.actions)
    broken = json.loads(FOLDER.latest("action").text)
    del broken["fields"][0]
    with pytest.raises(SchemaRegistryError):
        SchemaRegistryClient({"url": registry.url}).register_schema(
            subject_of(names.actions), Schema(json.dumps(broken), "AVRO")
        )


def test_a_version_from_the_future_is_read(registry: SchemaRegistry, names: TopicNames, tmp_path: Path) -> None:
    def with_note(schema: dict[str, Any]) -> None:
        schema["fields"].insert(0, {"name": "note", "type": "string", "default": "", "doc": "A note."})

    later = with_further_version(tmp_path, "timer", with_note)
    done = Registry(registry.url).register(subject_of(names.timers), later.versions["timer"])
    assert [version.version for version in done] == [1, 2]
    payload = schema_header(done[1].id) + b"\x04hi" + b"\x1ccrm/contact/42" + b"\x0a"
    assert Codec.with_registry(registry.url).decode(payload) == Timer(resource="crm/contact/42", due_at=5)


def test_prepare_refuses_topics_that_are_not_registered(registry: SchemaRegistry, names: TopicNames) -> None:
    codec = Codec.with_registry(registry.url)
    with pytest.raises(
        NotRegisteredError, match=r"hasn't version 1 of the schema action; run `reconciler schemas register`"
    ):
        codec.prepare([(names.actions, Action)])
    register(registry.url, names.actions)
    Codec.with_registry(registry.url).prepare([(names.actions, Action)])


def test_an_unregistered_topic_is_written_with_the_packaged_id_and_said_once(
    registry: SchemaRegistry, names: TopicNames, caplog: pytest.LogCaptureFixture
) -> None:
    codec = Codec.with_registry(registry.url)
    with caplog.at_level(logging.WARNING):
        payloads = [codec.encode(names.actions, ACTION) for _ in range(3)]
    assert {id_in(payload) for payload in payloads} == {FOLDER.latest("action").id}
    assert len([entry for entry in caplog.records if "schemas register" in entry.getMessage()]) == 1
    assert codec.decode(payloads[0]) == ACTION
    assert Codec.packaged().decode(payloads[0]) == ACTION


def test_registering_later_is_noticed(registry: SchemaRegistry, names: TopicNames) -> None:
    clock = Clock()
    codec = Codec(FOLDER, Registry(registry.url, clock=clock))
    assert id_in(codec.encode(names.actions, ACTION)) == FOLDER.latest("action").id
    schema_id = register(registry.url, names.actions)
    assert id_in(codec.encode(names.actions, ACTION)) == FOLDER.latest("action").id
    clock.now += RETRY_AFTER_S + 1
    assert id_in(codec.encode(names.actions, ACTION)) == schema_id


def test_an_id_that_the_registry_has_not_is_asked_for_once_in_a_while(
    registry: SchemaRegistry, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    client = Registry(registry.url, clock=clock)
    asked = []
    get_schema = client._client.get_schema
    monkeypatch.setattr(
        client._client, "get_schema", lambda schema_id: asked.append(schema_id) or get_schema(schema_id)
    )
    codec = Codec(FOLDER, client)
    for _ in range(3):
        with pytest.raises(DecodeError, match="the schema id 999999 is unknown here and to the registry"):
            codec.decode(schema_header(999_999) + b"\0")
    assert asked == [999_999]
    clock.now += RETRY_AFTER_S + 1
    with pytest.raises(DecodeError):
        codec.decode(schema_header(999_999) + b"\0")
    assert asked == [999_999] * 2


def test_known_schemas_work_while_the_registry_is_down(
    stoppable: SchemaRegistry, names: TopicNames, tmp_path: Path
) -> None:
    schema_id = register(stoppable.url, names.actions)
    cache = tmp_path / "data" / "registry.json"
    codec = Codec.with_registry(stoppable.url, cache_file=cache)
    payload = codec.encode(names.actions, ACTION)
    stoppable.stop()
    try:
        # This process knows the id in both directions.
        assert id_in(codec.encode(names.actions, ACTION)) == schema_id
        assert codec.decode(payload) == ACTION
        # So does one that starts now, with the cache file.
        restarted = Codec.with_registry(stoppable.url, cache_file=cache)
        assert restarted.decode(payload) == ACTION
        assert restarted.encode(names.actions, ACTION) == payload
        restarted.prepare([(names.actions, Action)])
        # One without it can't read the id and says that this may pass; it writes packaged ids, which all read.
        new = Codec.with_registry(stoppable.url)
        with pytest.raises(RegistryDownError):
            new.decode(payload)
        packaged = new.encode(names.actions, ACTION)
        assert id_in(packaged) == FOLDER.latest("action").id
        assert [each.decode(packaged) for each in (new, codec, restarted, Codec.packaged())] == [ACTION] * 4
        new.prepare([(names.actions, Action)])
    finally:
        stoppable.start()


def test_a_registry_that_is_down_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch, names: TopicNames) -> None:
    clock = Clock()
    client = Registry(f"http://127.0.0.1:{free_port()}", clock=clock)
    asked = counted(monkeypatch, client, "lookup_schema")
    codec = Codec(FOLDER, client)
    for topic in (names.actions, names.actions, names.outcomes):
        codec.encode(topic, ACTION)
    assert asked == [subject_of(names.actions)]
    clock.now += RETRY_AFTER_S + 1
    codec.encode(names.actions, ACTION)
    assert asked == [subject_of(names.actions)] * 2


def test_a_cache_file_of_another_registry_or_broken_is_not_believed(
    registry: SchemaRegistry, names: TopicNames, tmp_path: Path
) -> None:
    schema_id = register(registry.url, names.actions)
    cache = tmp_path / "registry.json"
    down = f"http://127.0.0.1:{free_port()}"
    Codec.with_registry(registry.url, cache_file=cache).encode(names.actions, ACTION)
    assert json.loads(cache.read_text())["url"] == registry.url
    other = Codec.with_registry(down, cache_file=cache)
    assert id_in(other.encode(names.actions, ACTION)) == FOLDER.latest("action").id
    cache.write_text("{")
    again = Codec.with_registry(registry.url, cache_file=cache)
    assert id_in(again.encode(names.actions, ACTION)) == schema_id
    assert json.loads(cache.read_text())["url"] == registry.url


def test_an_id_in_the_packaged_range_is_refused(
    registry: SchemaRegistry, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Registry(registry.url)
    reserved = FOLDER.latest("alert").id
    monkeypatch.setattr(client._client, "lookup_schema", lambda *_: type("Found", (), {"schema_id": reserved}))
    codec = Codec(FOLDER, client)
    with pytest.raises(RegistryError, match="range of packaged ids"):
        codec.prepare([(names.actions, Action)])
    assert id_in(codec.encode(names.actions, ACTION)) == FOLDER.latest("action").id


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8081", ""])
def test_an_address_that_is_none_is_an_error_at_once(url: str) -> None:
    with pytest.raises(RegistryError, match="the settings of the schema registry can't be used"):
        Codec.with_registry(url)


def test_registering_without_a_registry_is_an_error() -> None:
    with pytest.raises(RegistryError, match=r"can't be reached.*is it running"):
        Registry(f"http://127.0.0.1:{free_port()}").register("a-value", FOLDER.versions["alert"])
