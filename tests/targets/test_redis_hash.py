"""Redis hashes: the suite on a real server, and what is Redis's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Lost

from reconciler.records import Change
from reconciler.targets.port import ApplyingTarget, TargetUnavailable
from reconciler.targets.redis_hash.config import HashConfig, RedisConfig
from reconciler.targets.redis_hash.scripts import command_key
from reconciler.targets.redis_hash.target import RedisTarget
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, canonical, parse
from streams.embedded.redis import EmbeddedRedis
from tests.support.redis_server import RedisServer
from tests.targets.shapes import Documents, Fields
from tests.targets.suite import SYSTEM, TYPE, Store, TargetSuite, command, create, delete, key, set_

PLAIN = HashConfig(key="shop:[thing]*:{id}:x")
COUNTED = HashConfig(
    key="thing:{id}", version="_version", modified_at="_at", modified_by="_by", written_by="reconciler"
)


class RedisStore(Store):
    def __init__(self, url: str, config: HashConfig) -> None:
        self.config = config
        self.shape = Documents(empty=config.version is not None)
        self.hands: Any = Redis.from_url(url)
        self.settings = RedisConfig(url=SecretStr(url), resources={TYPE: config}, bulk_size=4, timeout_s=2)
        self.target: RedisTarget = RedisTarget(SYSTEM, self.settings)
        self._others: list[RedisTarget] = []
        self._versions = 0

    async def put(self, id_: str, fields: Fields) -> None:
        name = self.config.key_of(id_)
        self._versions += 1
        held = {name: canonical(value) for name, value in fields.items()}
        if self.config.version is not None:
            held[self.config.version] = str(self._versions).encode()
        async with self.hands.pipeline() as pipeline:
            pipeline.delete(name)
            pipeline.hset(name, mapping=held)
            await pipeline.execute()

    async def get(self, id_: str) -> Fields | Absent:
        held = await self.hands.hgetall(self.config.key_of(id_))
        if not held:
            return ABSENT
        own = self.config.own_fields
        return {name.decode(): parse(text) for name, text in held.items() if name.decode() not in own}

    def can_hold(self, fields: Fields) -> bool:
        return bool(fields) or self.config.version is not None

    async def remove(self, id_: str) -> None:
        await self.hands.delete(self.config.key_of(id_))

    async def another(self) -> ApplyingTarget:
        self._others.append(RedisTarget(SYSTEM, self.settings))
        return self._others[-1]

    async def break_(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        for target in (self.target, *self._others):
            await target.close()
        await self.hands.aclose()


class BreakableStore(RedisStore):
    """The store on a server that this test alone may stop."""

    def __init__(self, server: RedisServer, config: HashConfig) -> None:
        super().__init__(server.url, config)
        self._server = server

    async def break_(self) -> None:
        self._server.kill()


@pytest.fixture(scope="module")
def server_of_my_own() -> Any:
    with RedisServer() as server:
        yield server


class OnRealRedis(TargetSuite):
    config: HashConfig

    @pytest.fixture(autouse=True)
    def _place(self, server_of_my_own: RedisServer) -> Any:
        self._server = server_of_my_own
        self._server.flush()
        yield
        if not self._server._answers():
            self._server.start()

    async def opened(self) -> Store:
        return BreakableStore(self._server, self.config)


class TestPlain(OnRealRedis):
    config = PLAIN


class TestCounted(OnRealRedis):
    config = COUNTED


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_server.url, COUNTED)
    yield opened
    await opened.close()


async def test_who_when_and_which_version_are_told(store: RedisStore) -> None:
    await store.put("1", {"name": "a"})
    await store.hands.hset("thing:1", mapping={"_at": "2026-05-03T10:00:00Z", "_by": "ana"})
    (seen,) = await store.target.observe([key("1")])
    assert (seen.version, seen.modified_at) == ("1", 1_777_802_400_000_000)
    assert seen.modified_by is not None
    assert (seen.modified_by.id, seen.modified_by.kind) == ("ana", "user")
    assert seen.fields == {"name": "a"}
    outcome = await store.target.apply(command("1", set_("/name", "b", "a")))
    assert outcome.observed is not None
    assert outcome.observed.version == "2"
    assert outcome.observed.modified_by is not None
    assert outcome.observed.modified_by.id == "reconciler"


@pytest.mark.parametrize(
    "text", [b"", b"text", b"NaN", b"1e999", b"123456789012345678901", b"[1", b"\xff", b'"\\ud800"']
)
async def test_what_is_no_json_is_unknown(store: RedisStore, text: bytes) -> None:
    await store.put("1", {"name": "a"})
    await store.put("2", {"name": "a"})
    await store.hands.hset("thing:1", "name", text)
    one, beside = await store.target.observe([key("1"), key("2")])
    assert (one.exists, beside.exists) == (None, True)
    assert one.reason == "the hash field 'name' holds no JSON text that we can keep exactly"
    assert (await store.target.apply(command("1", set_("/phone", "1")))).status == "permanent"
    assert await store.hands.hget("thing:1", "name") == text


async def test_a_key_of_another_type_is_unknown(store: RedisStore) -> None:
    await store.hands.set("thing:1", "text")
    await store.put("2", {"name": "a"})
    one, beside = await store.target.observe([key("1"), key("2")])
    assert (one.exists, one.reason, beside.exists) == (None, "Redis: WRONGTYPE", True)
    outcome = await store.target.apply(create("1", {"name": "a"}))
    assert (outcome.status, outcome.error) == ("permanent", "Redis: WRONGTYPE")
    page = await store.target.scan(None)
    assert {seen.resource: seen.exists for seen in page.observations} == {key("1"): None, key("2"): True}


async def test_a_hash_that_would_vanish_is_not_emptied(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, PLAIN)
    await store.put("1", {"name": "a"})
    emptying = Change(path="/name", op="unset", expect="a")
    outcome = await store.target.apply(command("1", emptying))
    assert outcome.status == "rejected"
    assert "vanishes" in str(outcome.error)
    assert await store.get("1") == {"name": "a"}
    assert (await store.target.apply(create("2", {}))).status == "rejected"
    await store.close()


async def test_the_fields_of_the_store_itself_are_not_written(store: RedisStore) -> None:
    await store.put("1", {"name": "a"})
    outcome = await store.target.apply(command("1", set_("/_version", 7)))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/_version: ")
    await store.hands.hset("thing:1", "_version", "seven")
    outcome = await store.target.apply(command("1", set_("/name", "b", "a")))
    assert outcome.status == "rejected"
    assert "no whole number" in str(outcome.error)


async def test_a_write_between_reading_and_writing_is_noticed(store: RedisStore) -> None:
    """The hands come in right after every read of the target: it must judge again, and never write over them."""
    await store.put("1", {"name": "a", "count": 0})
    read = store.target._client.hgetall
    edits: Iterator[Fields] = iter([{"count": 1}, {"count": 2}, {"name": "mine"}])

    async def read_and_be_overtaken(name: bytes) -> Any:
        held = await read(name)
        edit = next(edits, None)
        if edit is not None:
            await store.hands.hset(name, mapping={field: canonical(value) for field, value in edit.items()})
        return held

    store.target._client.hgetall = read_and_be_overtaken
    increment = command("1", Change(path="/count", op="increment", value=10))
    assert (await store.target.apply(increment)).status == "applied"
    assert await store.get("1") == {"name": "mine", "count": 12}
    edits = iter([{"name": "x"}])
    assert (await store.target.apply(command("1", set_("/name", "b", "mine")))).status == "conflict"
    edits = iter([{"other": 1}])
    held = await store.get("1")
    assert isinstance(held, dict)
    assert (await store.target.apply(delete("1", held))).status == "conflict"
    edits = iter([{"name": "first"}])
    assert (await store.target.apply(create("2", {"name": "second"}))).status == "conflict"
    edits = iter([{"_version": 99}])
    (seen,) = await store.target.observe([key("1")])
    versioned = command("1", set_("/name", "b", "x"), expect_version=seen.version)
    assert (await store.target.apply(versioned)).status == "conflict"
    assert await store.get("1") == {"name": "x", "count": 12, "other": 1}


async def test_a_field_that_nobody_wrote_in_between_is_no_conflict(store: RedisStore) -> None:
    await store.put("1", {"name": "a", "count": 0})
    read = store.target._client.hgetall
    reads = 0

    async def read_and_be_overtaken(name: bytes) -> Any:
        nonlocal reads
        reads += 1
        held = await read(name)
        await store.hands.hset(name, "other", str(reads))
        return held

    store.target._client.hgetall = read_and_be_overtaken
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    assert reads == 1


async def test_a_lost_answer_is_no_second_application(store: RedisStore) -> None:
    """The server did it, and the connection broke before the answer came: the same command is tried again."""
    await store.put("1", {"count": 0})
    one = command("1", Change(path="/count", op="increment", value=1))
    target: Any = store.target
    write = target._write

    async def write_and_lose_the_answer(**given: Any) -> Any:
        await write(**given)
        raise Lost

    target._write = write_and_lose_the_answer
    assert (await store.target.apply(one)).status == "transient"
    target._write = write
    assert (await store.target.apply(one)).status == "already_applied"
    assert await store.get("1") == {"count": 1}


async def test_commands_are_remembered_for_their_time(store: RedisStore) -> None:
    await store.put("1", {"count": 0})
    one = command("1", Change(path="/count", op="increment", value=1))
    assert (await store.target.apply(one)).status == "applied"
    (name,) = [name async for name in store.hands.scan_iter(match="reconciler:command:*")]
    assert name == b"reconciler:command:{thing:1}:" + one.command_id.encode()
    assert 29 * 24 * 3600 < await store.hands.ttl(name) <= 30 * 24 * 3600


async def test_a_scan_leaves_out_what_is_no_resource(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, PLAIN)
    await store.put("1", {"name": "a"})
    await store.put("x:y", {"name": "b"})
    for name in (b"shop:t:1:x", b"shop:[thing]*:2:y", b"shop:[thing]x:2:x", b"shop:[thing]*:\xff:x"):
        await store.hands.hset(name, "a", "1")
    found, cursor = [], None
    while True:
        page = await store.target.scan(cursor)
        found += page.observations
        cursor = page.cursor
        if cursor is None:
            break
    assert {seen.resource: seen.fields for seen in found} == {key("1"): {"name": "a"}, key("x:y"): {"name": "b"}}
    with pytest.raises(InputError):
        await store.target.scan("nonsense")
    await store.close()


async def test_a_scan_that_is_cut_off_is_no_empty_scan(store: RedisStore) -> None:
    await store.put("1", {"name": "a"})

    def no_pipeline(**given: Any) -> Any:
        raise Lost

    store.target._client.pipeline = no_pipeline
    with pytest.raises(TargetUnavailable):
        await store.target.scan(None)


async def test_works_on_the_embedded_server_too() -> None:
    with EmbeddedRedis() as server:
        store = RedisStore(server.url, COUNTED)
        await store.put("1", {"count": 0})
        one = command("1", Change(path="/count", op="increment", value=1))
        outcomes = await asyncio.gather(*(store.target.apply(one) for _ in range(3)))
        assert sorted(outcome.status for outcome in outcomes) == ["already_applied", "already_applied", "applied"]
        assert await store.get("1") == {"count": 1}
        await store.close()


@pytest.mark.parametrize(
    ("hash_key", "tag"),
    [(b"a:1", b"a:1"), (b"a:{1}:b", b"1"), (b"{}a", b"{}a"), (b"a{1", b"a{1"), (b"{a}{b}", b"a")],
)
def test_a_command_lives_in_the_slot_of_its_hash(hash_key: bytes, tag: bytes) -> None:
    assert command_key("p:", hash_key, "c") == b"p:{" + tag + b"}:c"


@pytest.mark.parametrize("template", ["thing", "{id}:{id}"])
def test_a_key_holds_the_id_once(template: str) -> None:
    with pytest.raises(ValueError, match="once"):
        HashConfig(key=template)


async def test_a_number_that_we_would_change_is_not_written_back(store: RedisStore) -> None:
    await store.put("1", {"name": "a", "tags": {}})
    precise = b'{"price": 0.12345678901234567890, "n": 1}'
    await store.hands.hset("thing:1", "tags", precise)
    outcome = await store.target.apply(command("1", set_("/tags/n", 2, 1)))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/tags: ")
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    assert await store.hands.hget("thing:1", "tags") == precise


async def test_a_mark_can_be_left_in_the_hash(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, HashConfig(key="marked:{id}", origin_field="_origin"))
    await store.put("1", {"a": 1})
    one, two = command("1", set_("/a", 2, 1)), command("1", set_("/a", 3, 2), origin="rollback-7")
    for each, mark in ((one, one.command_id), (two, "rollback-7")):
        outcome = await store.target.apply(each)
        assert outcome.status == "applied"
        assert outcome.observed is not None and outcome.observed.fields.keys() == {"a"}
        assert await store.hands.hget("marked:1", "_origin") == mark.encode()
    await store.close()
