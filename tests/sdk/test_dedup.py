"""One suite for all stores: memory, a real Redis, SQLite; and the statements on a real PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.records import Command
from reconciler.sdk.consumer.dedup import DedupStore, MemoryDedup, RedisDedup, SqlDedup
from reconciler.targets.first_outcome import FirstOutcome
from reconciler.values.errors import InputError
from tests.support.redis_server import RedisServer

APPLIED = FirstOutcome(status="applied", attempt=1)
CONFLICT = FirstOutcome(status="conflict", attempt=2, error='it\'s "changed" — ä')


@pytest.fixture(params=["memory", "redis", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DedupStore]:
    if request.param == "memory":
        yield MemoryDedup()
    elif request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        redis = RedisDedup(server.url)
        yield redis
        await redis.close()
    else:
        sql = SqlDedup(lambda: sqlite3.connect(tmp_path / "inbox.db"))
        sql.create_table()
        sql.create_table()
        yield sql


async def test_what_is_remembered_is_found(store: DedupStore) -> None:
    assert await store.first("c1") is None
    await store.remember("c1", APPLIED)
    await store.remember("c2", CONFLICT)
    assert await store.first("c1") == APPLIED
    assert await store.first("c2") == CONFLICT
    assert await store.first("c3") is None


async def test_a_later_decision_takes_the_place_of_an_earlier_one(store: DedupStore) -> None:
    await store.remember("c1", CONFLICT)
    await store.remember("c1", APPLIED)
    assert await store.first("c1") == APPLIED


async def test_memory_forgets_the_oldest_first() -> None:
    store = MemoryDedup(2)
    for command_id in ("a", "b", "a", "c"):
        await store.remember(command_id, APPLIED)
    assert [await store.first(command_id) for command_id in "abc"] == [APPLIED, None, APPLIED]


async def test_redis_keeps_for_a_time(redis_server: RedisServer) -> None:
    store = RedisDedup(redis_server.url, keep_s=1000)
    await store.remember("c1", APPLIED)
    assert 0 < await store._redis.ttl("reconciler:applied:c1") <= 1000
    await store.close()


async def test_effect_and_memory_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    store = SqlDedup(lambda: sqlite3.connect(path))
    store.create_table()
    command = Command(command_id="c1", resource="crm/contact/42", action="patch", attempt=3)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE contact (phone TEXT)")

    def apply() -> None:
        connection = sqlite3.connect(path)
        try:
            with connection:
                connection.execute("INSERT INTO contact VALUES ('1')")
                store.remember_in(connection, command)
        finally:
            connection.close()

    apply()
    with pytest.raises(sqlite3.IntegrityError):
        apply()
    assert await store.first("c1") == FirstOutcome(status="applied", attempt=3)
    await store.remember("c1", FirstOutcome(status="applied", attempt=3))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM contact").fetchone() == (1,)
    connection.close()


async def test_postgresql_takes_the_same_statements(postgresql_dsn: str) -> None:
    import asyncpg

    store = SqlDedup(lambda: None, parameters="format")
    upsert, select = (statement.replace("%s", "${}").format(1, 2) for statement in (store._upsert, store._select))
    connection = await asyncpg.connect(postgresql_dsn)
    try:
        await connection.execute(store._create)
        await connection.execute(store._create)
        await connection.execute(upsert, "c1", "first")
        await connection.execute(upsert, "c1", "second")
        assert await connection.fetchval(select, "c1") == "second"
    finally:
        await connection.close()


def test_a_table_name_cant_smuggle_sql() -> None:
    for name in ("inbox; DROP TABLE x", "in box", "", 'a"b'):
        with pytest.raises(InputError, match="table"):
            SqlDedup(lambda: None, table=name)
    SqlDedup(lambda: None, table="my_schema.inbox", parameters="format")
