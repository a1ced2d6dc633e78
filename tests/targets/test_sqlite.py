"""SQLite: the suite on a table of documents and on a table of columns, and what is SQLite's own."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.records import Change
from reconciler.targets.port import ApplyingTarget
from reconciler.targets.sql.config import ResourceConfig
from reconciler.targets.sql.sqlite import SqliteConfig, SqliteTarget
from reconciler.values.json_value import ABSENT, Absent, canonical, parse
from tests.targets import tables
from tests.targets.shapes import Documents, Fields
from tests.targets.suite import SYSTEM, TYPE, Store, TargetSuite, command, create, key, set_

SCHEMA = '''
    CREATE TABLE docs (id TEXT PRIMARY KEY, "the ""doc""" TEXT NOT NULL);
    CREATE TABLE things (
        id INTEGER PRIMARY KEY, name TEXT, phone TEXT, count INTEGER, active INTEGER, data BLOB, tags TEXT, prefs TEXT,
        city TEXT, zip TEXT, version INTEGER NOT NULL DEFAULT 1, updated_at TEXT, updated_by TEXT, other TEXT DEFAULT 'kept'
    );
'''


class SqliteStore(Store):
    """What both tables share."""

    def __init__(self, path: Path, resources: dict[str, ResourceConfig], **more: Any) -> None:
        self.path = path
        self._hands = sqlite3.connect(path, isolation_level=None)
        self._hands.executescript(SCHEMA)
        self._config = SqliteConfig(path=path, resources=resources, bulk_size=4, **more)
        self.target: SqliteTarget = SqliteTarget(SYSTEM, self._config)
        self._others: list[SqliteTarget] = []

    def write(self, sql: str, *arguments: object) -> None:
        self._hands.execute(sql, arguments)

    def read(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self._hands.execute(sql, arguments).fetchall()

    async def another(self) -> ApplyingTarget:
        self._others.append(SqliteTarget(SYSTEM, self._config))
        return self._others[-1]

    async def break_(self) -> None:
        await self.target.close()
        self.path.unlink()

    async def close(self) -> None:
        for target in (self.target, *self._others):
            await target.close()
        self._hands.close()


class DocumentStore(SqliteStore):
    shape = Documents()

    async def put(self, id_: str, fields: Fields) -> None:
        self.write("INSERT OR REPLACE INTO docs VALUES (?, ?)", id_, canonical(fields).decode())

    async def get(self, id_: str) -> Fields | Absent:
        rows = self.read('SELECT "the ""doc""" FROM docs WHERE id = ?', id_)
        held: Fields | Absent = parse(rows[0][0]) if rows else ABSENT
        return held

    async def remove(self, id_: str) -> None:
        self.write("DELETE FROM docs WHERE id = ?", id_)


class ColumnStore(SqliteStore):
    shape = tables.columns()

    def whole(self, fields: Fields) -> Fields:
        return tables.whole(fields)

    async def put(self, id_: str, fields: Fields) -> None:
        address = fields["address"]
        self.write(
            "INSERT INTO things (id, name, phone, count, active, data, tags, prefs, city, zip) VALUES (?,?,?,?,?,?,?,?,?,?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, phone = excluded.phone, count = excluded.count, "
            "active = excluded.active, data = excluded.data, tags = excluded.tags, prefs = excluded.prefs, "
            "city = excluded.city, zip = excluded.zip, version = version + 1",
            int(id_),
            fields["name"],
            fields.get("phone"),
            fields["count"],
            fields["active"],
            None if fields["data"] is None else base64.b64decode(fields["data"]),
            None if fields["tags"] is None else canonical(fields["tags"]).decode(),
            canonical(fields["prefs"]).decode() if "prefs" in fields else None,
            address["city"],
            address["geo"].get("zip"),
        )

    async def get(self, id_: str) -> Fields | Absent:
        rows = self.read(
            "SELECT name, phone, count, active, data, tags, prefs, city, zip FROM things WHERE id = ?", int(id_)
        )
        if not rows:
            return ABSENT
        name, phone, count, active, data, tags, prefs, city, zip_ = rows[0]
        fields: Fields = {"name": name, "count": count, "active": None if active is None else bool(active)}
        fields["data"] = None if data is None else base64.b64encode(data).decode()
        fields["tags"] = None if tags is None else parse(tags)
        fields["address"] = {"city": city, "geo": {} if zip_ is None else {"zip": zip_}}
        return fields | ({} if phone is None else {"phone": phone}) | ({} if prefs is None else {"prefs": parse(prefs)})

    async def remove(self, id_: str) -> None:
        self.write("DELETE FROM things WHERE id = ?", int(id_))


class TestDocuments(TargetSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._path = tmp_path / "a b%20#?.db"

    async def opened(self) -> Store:
        return DocumentStore(self._path, tables.DOCUMENTS)


class TestColumns(TargetSuite):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self._path = tmp_path / "shop.db"

    async def opened(self) -> Store:
        return ColumnStore(self._path, tables.COLUMNS)


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    opened = ColumnStore(tmp_path / "shop.db", tables.COLUMNS)
    yield opened
    await opened.close()


async def test_columns_that_are_not_mapped_are_left_alone(store: ColumnStore) -> None:
    await store.put("1", store.whole({"name": "a"}))
    store.write("UPDATE things SET other = 'mine'")
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    assert store.read("SELECT other, version, updated_by FROM things") == [("mine", 2, "reconciler")]


async def test_who_and_when_are_told(store: ColumnStore) -> None:
    await store.put("1", store.whole({}))
    store.write("UPDATE things SET updated_at = '2026-05-03T10:00:00Z', updated_by = 'ana'")
    (seen,) = await store.target.observe([key("1")])
    assert seen.modified_at == 1_777_802_400_000_000
    assert seen.modified_by is not None
    assert (seen.modified_by.id, seen.modified_by.kind) == ("ana", "user")
    store.write("UPDATE things SET updated_at = 'yesterday'")
    (seen,) = await store.target.observe([key("1")])
    assert seen.exists is None
    assert "updated_at" in str(seen.reason)


@pytest.mark.parametrize(
    ("column", "sql", "reason"),
    [
        ("name", "x'00'", "holds bytes"),
        ("name", "CAST(x'ff' AS TEXT)", "is no JSON value"),
        ("count", "9e999", "is no JSON number"),
        ("active", "2", "something else than 0 and 1"),
        ("data", "'text'", "something else than bytes"),
        ("tags", "'[1'", "is not JSON"),
        ("tags", "'[NaN]'", "is not JSON"),
        ("tags", "'[123456789012345678901]'", "beyond 64 bits"),
        ("tags", "x'31'", "holds no JSON text"),
    ],
)
async def test_what_cannot_be_read_is_unknown_and_spoils_nothing_else(
    store: ColumnStore, column: str, sql: str, reason: str
) -> None:
    for id_ in "123":
        await store.put(id_, store.whole({"name": "a"}))
    store.write(f"UPDATE things SET {column} = {sql} WHERE id = 2")
    first, second, third = await store.target.observe([key("1"), key("2"), key("3")])
    assert (first.exists, second.exists, third.exists) == (True, None, True)
    assert reason in str(second.reason)
    outcome = await store.target.apply(command("2", set_("/phone", "1")))
    assert outcome.status == "permanent"
    assert outcome.error == second.reason


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (Change(path="/name", op="unset", expect="a"), "/name"),
        (set_("/phone", None, "1"), "/phone"),
        (set_("/name", True, "a"), "/name"),
        (set_("/name", {"a": 1}, "a"), "/name"),
        (set_("/name", 7, "a"), "/name"),
        (set_("/count", 2**63, 1), "/count"),
        (set_("/active", 1, None), "/active"),
        (set_("/data", "no base64", None), "/data"),
        (set_("/data", "AB==", None), "/data"),
        (set_("/unknown", 1), "/unknown"),
        (set_("/address/unknown", 1), "/address/unknown"),
        (Change(path="/address/geo", op="unset", expect={}), "/address/geo"),
        (set_("/address", None, {"city": None, "geo": {}}), "/address"),
    ],
    ids=lambda value: value.path if isinstance(value, Change) else "",
)
async def test_what_the_table_cannot_hold_is_rejected(store: ColumnStore, change: Change, path: str) -> None:
    fields = store.whole({"name": "a", "phone": "1", "count": 1})
    await store.put("1", fields)
    outcome = await store.target.apply(command("1", set_("/tags", ["x"], None), change))
    assert outcome.status == "rejected", outcome
    assert str(outcome.error).startswith(f"{path}: ")
    assert await store.get("1") == fields


async def test_a_number_is_kept_by_its_value(store: ColumnStore) -> None:
    await store.put("1", store.whole({"count": 1}))
    assert (await store.target.apply(command("1", set_("/count", 2.0, 1)))).status == "applied"
    held = await store.get("1")
    assert isinstance(held, dict) and held["count"] == 2


async def test_what_a_trigger_makes_of_a_value_is_not_passed_off_as_done(store: ColumnStore) -> None:
    store.write(
        "CREATE TRIGGER upper AFTER UPDATE OF name ON things BEGIN "
        "UPDATE things SET name = upper(new.name) WHERE id = new.id; END"
    )
    await store.put("1", store.whole({"name": "A"}))
    outcome = await store.target.apply(command("1", set_("/name", "b", "A")))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/name: the table turned the value into another one")
    assert await store.get("1") == store.whole({"name": "A"})
    assert (await store.target.apply(command("1", set_("/name", "B", "A")))).status == "applied"


async def test_a_constraint_that_says_no_is_permanent_and_stays_so(store: ColumnStore) -> None:
    store.write("CREATE UNIQUE INDEX one_phone ON things (phone)")
    await store.put("1", store.whole({"phone": "1"}))
    await store.put("2", store.whole({"phone": "2"}))
    one = command("2", set_("/phone", "1", "2"))
    outcome = await store.target.apply(one)
    assert outcome.status == "permanent"
    assert outcome.error == "SQLite: SQLITE_CONSTRAINT_UNIQUE: UNIQUE constraint failed: things.phone"
    await store.remove("1")
    again = await store.target.apply(one)
    assert (again.status, again.error) == ("permanent", outcome.error)


async def test_a_locked_database_is_transient(tmp_path: Path) -> None:
    store = ColumnStore(tmp_path / "shop.db", tables.COLUMNS, timeout_s=0.05)
    await store.put("1", store.whole({"name": "a"}))
    store.write("BEGIN IMMEDIATE")
    outcome = await store.target.apply(command("1", set_("/name", "b", "a"), command_id="again"))
    assert outcome.status == "transient"
    store.write("ROLLBACK")
    assert (await store.target.apply(command("1", set_("/name", "b", "a"), command_id="again"))).status == "applied"
    await store.close()


async def test_a_missing_table_or_column_is_unknown(store: ColumnStore) -> None:
    await store.put("1", store.whole({}))
    store.write("ALTER TABLE things RENAME COLUMN phone TO telephone")
    (seen,) = await store.target.observe([key("1")])
    assert seen.exists is None
    assert "phone" in str(seen.reason)
    assert (await store.target.apply(command("1", set_("/name", "b")))).status == "permanent"
    store.write("ALTER TABLE things RENAME COLUMN telephone TO phone")
    (seen,) = await store.target.observe([key("1")])
    assert seen.exists is True


async def test_a_file_that_is_not_there_is_no_empty_database(tmp_path: Path) -> None:
    target = SqliteTarget(SYSTEM, SqliteConfig(path=tmp_path / "none.db", resources=tables.COLUMNS))
    (seen,) = await target.observe([key("1")])
    assert seen.exists is None
    assert not (tmp_path / "none.db").exists()
    await target.close()


@pytest.mark.parametrize("declared", ["INTEGER PRIMARY KEY", "TEXT PRIMARY KEY", "", "NUMERIC", "BLOB"])
async def test_ids_are_never_taken_for_one_another(tmp_path: Path, declared: str) -> None:
    path = tmp_path / "ids.db"
    with sqlite3.connect(path) as hands:
        hands.execute(f"CREATE TABLE t (id {declared}, name TEXT)")
        hands.executemany("INSERT INTO t VALUES (?, ?)", [(number, f"name {number}") for number in (7, 10, 42)])
    resources = {TYPE: ResourceConfig.model_validate({"table": "t", "id": "id", "fields": {"/name": "name"}})}
    target = SqliteTarget(SYSTEM, SqliteConfig(path=path, resources=resources, bulk_size=2))
    seven, zeros, plus, none = await target.observe([key("7"), key("007"), key("+7"), key("x'1")])
    assert (seven.exists, seven.fields) == (True, {"name": "name 7"})
    assert zeros.exists is not True
    assert plus.exists is not True
    assert none.exists is False
    outcome = await target.apply(command("007", set_("/name", "x", "name 7")))
    assert outcome.status in ("conflict", "rejected")
    assert (await target.apply(command("7", set_("/name", "seven", "name 7")))).status == "applied"
    found, cursor = [], None
    while True:
        page = await target.scan(cursor)
        found += [observation.resource for observation in page.observations]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(found) == sorted([key("7"), key("10"), key("42")])
    await target.close()


async def test_ids_that_the_table_finds_alike_prove_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ids.db"
    with sqlite3.connect(path) as hands:
        hands.execute("CREATE TABLE t (id TEXT COLLATE NOCASE, name TEXT)")
        hands.executemany("INSERT INTO t VALUES (?, ?)", [("Ana", "a"), ("bob", "1"), ("bob", "2")])
    resources = {TYPE: ResourceConfig.model_validate({"table": "t", "id": "id", "fields": {"/name": "name"}})}
    target = SqliteTarget(SYSTEM, SqliteConfig(path=path, resources=resources))
    upper, twice = await target.observe([key("ANA"), key("bob")])
    assert upper.exists is None
    assert twice.exists is None
    assert "more than one row" in str(twice.reason)
    assert (await target.apply(command("bob", set_("/name", "x", "1")))).status == "permanent"
    assert (await target.apply(create("ANA", {"name": "x"}))).status == "permanent"
    await target.close()


async def test_the_inbox_forgets_what_cannot_come_again(tmp_path: Path) -> None:
    store = ColumnStore(tmp_path / "shop.db", tables.COLUMNS)
    now = [1_000_000_000_000_000]
    target = SqliteTarget(SYSTEM, store._config, clock=lambda: now[0])
    await store.put("1", store.whole({"count": 0}))
    one = command("1", Change(path="/count", op="increment", value=1))
    assert (await target.apply(one)).status == "applied"
    now[0] += 31 * 24 * 3600 * 1_000_000
    assert (await target.apply(command("1", Change(path="/count", op="increment", value=1)))).status == "applied"
    assert len(store.read("SELECT * FROM reconciler_inbox")) == 1
    await target.close()
    await store.close()


async def test_a_writer_that_stops_before_the_commit_leaves_nothing(store: ColumnStore) -> None:
    await store.put("1", store.whole({"count": 1}))
    one = command("1", Change(path="/count", op="increment", value=1))
    await tables.stop_before_commit(store.target, one)
    assert await store.get("1") == store.whole({"count": 1})
    assert (await store.target.apply(one)).status == "applied"
    assert await store.get("1") == store.whole({"count": 2})


def test_a_schema_is_an_error(tmp_path: Path) -> None:
    resource = ResourceConfig.model_validate({"table": "t", "schema": "s", "id": "id", "fields": {"/a": "a"}})
    with pytest.raises(ValidationError, match="SQLite knows no `schema`"):
        SqliteConfig(path=tmp_path / "x.db", resources={TYPE: resource})


async def test_a_cancelled_command_leaves_the_connection_clean(store: ColumnStore) -> None:
    await store.put("1", store.whole({"count": 0}))
    for number in range(20):
        applying = asyncio.create_task(store.target.apply(command("1", Change(path="/count", op="increment", value=1))))
        await asyncio.sleep(number * 0.0005)  # each time at another place
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
    held = await store.get("1")
    assert isinstance(held, dict)
    before = held["count"]
    (seen,) = await store.target.observe([key("1")])
    assert seen.fields["count"] == before
    assert (await store.target.apply(command("1", set_("/name", "b", None)))).status == "applied"
    assert await store.get("1") == store.whole({"count": before, "name": "b"})


async def test_a_number_that_we_would_change_is_not_written_back(store: ColumnStore) -> None:
    await store.put("1", store.whole({"name": "a", "tags": {}}))
    store.write("""UPDATE things SET tags = '{"price": 0.12345678901234567890, "n": 1}'""")
    outcome = await store.target.apply(command("1", set_("/tags/n", 2, 1)))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/tags: ")
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    held = store.read("SELECT tags FROM things")
    assert "0.12345678901234567890" in held[0][0]


async def test_a_mark_can_be_left_in_the_row(store: ColumnStore) -> None:
    resources = {TYPE: store._config.resources[TYPE].model_copy(update={"origin_field": "other"})}
    target = SqliteTarget(SYSTEM, store._config.model_copy(update={"resources": resources}))
    await store.put("1", store.whole({"name": "a"}))
    one = command("1", set_("/name", "b", "a"))
    outcome = await target.apply(one)
    assert outcome.status == "applied"
    assert outcome.observed is not None and outcome.observed.fields == store.whole({"name": "b"})
    assert store.read("SELECT other FROM things") == [(one.command_id,)]
    await target.close()
