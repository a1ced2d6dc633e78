"""PostgreSQL: the suite on a real server, and what is PostgreSQL's own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from reconciler.records import Change
from reconciler.targets.port import ApplyingTarget
from reconciler.targets.sql.config import ResourceConfig
from reconciler.targets.sql.postgresql import PostgresqlConfig, PostgresqlTarget
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, parse
from reconciler.values.resource_key import resource_key
from tests.support.postgresql import PostgresqlServer
from tests.targets import tables
from tests.targets.shapes import Documents, Fields
from tests.targets.suite import SYSTEM, TYPE, Store, TargetSuite, command, create, delete, key, set_

SCHEMA = '''
    CREATE TABLE docs (id text PRIMARY KEY, "the ""doc""" jsonb NOT NULL);
    CREATE TABLE things (
        id bigint PRIMARY KEY, name text, phone text, count bigint, active boolean, data bytea, tags jsonb, prefs jsonb,
        city varchar(20), zip text, version integer NOT NULL DEFAULT 1, updated_at timestamptz, updated_by text,
        other text DEFAULT 'kept'
    );
'''


class PostgresqlStore(Store):
    """What both tables share. Its hands are a connection of their own."""

    def __init__(self, dsn: str, resources: dict[str, ResourceConfig], hands: Any, **more: Any) -> None:
        self._dsn = dsn
        self._hands = hands
        self._config = PostgresqlConfig(dsn=SecretStr(dsn), resources=resources, bulk_size=4, pool_size=3, **more)
        self.target: PostgresqlTarget = PostgresqlTarget(SYSTEM, self._config)
        self._others: list[PostgresqlTarget] = []
        self._broken = False

    async def write(self, sql: str, *arguments: object) -> None:
        await self._hands.execute(sql, *arguments)

    async def read(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._hands.fetch(sql, *arguments)]

    async def another(self) -> ApplyingTarget:
        self._others.append(PostgresqlTarget(SYSTEM, self._config))
        return self._others[-1]

    async def break_(self) -> None:
        """An operator closes the database to everybody, and ends the connections that there are."""
        self._broken = True
        await self._allow_connections(False)

    async def _allow_connections(self, allowed: bool) -> None:
        server, _, name = self._dsn.rpartition("/")
        admin = await asyncpg.connect(f"{server}/postgres")
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}')
        if not allowed:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await admin.close()

    async def close(self) -> None:
        for target in (self.target, *self._others):
            await target.close()
        await self._hands.close()
        if self._broken:
            await self._allow_connections(True)


class DocumentStore(PostgresqlStore):
    # jsonb keeps numbers as decimals, so it can't tell every float from every integer.
    shape = Documents(floats=False)

    async def put(self, id_: str, fields: Fields) -> None:
        sql = 'INSERT INTO docs VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET "the ""doc""" = $2'
        await self.write(sql, id_, canonical(fields).decode())

    async def get(self, id_: str) -> Fields | Absent:
        rows = await self.read('SELECT "the ""doc"""::text FROM docs WHERE id = $1', id_)
        held: Fields | Absent = parse(rows[0][0]) if rows else ABSENT
        return held

    async def remove(self, id_: str) -> None:
        await self.write("DELETE FROM docs WHERE id = $1", id_)


class ColumnStore(PostgresqlStore):
    shape = tables.columns(floats=False)

    def whole(self, fields: Fields) -> Fields:
        return tables.whole(fields)

    async def put(self, id_: str, fields: Fields) -> None:
        address = fields["address"]
        await self.write(
            "INSERT INTO things (id, name, phone, count, active, data, tags, prefs, city, zip) "
            "VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, phone = excluded.phone, count = excluded.count, "
            "active = excluded.active, data = excluded.data, tags = excluded.tags, prefs = excluded.prefs, "
            "city = excluded.city, zip = excluded.zip, version = things.version + 1",
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
        sql = "SELECT name, phone, count, active, data, tags::text, prefs::text, city, zip FROM things WHERE id = $1"
        rows = await self.read(sql, int(id_))
        if not rows:
            return ABSENT
        name, phone, count, active, data, tags, prefs, city, zip_ = rows[0]
        fields: Fields = {"name": name, "count": count, "active": active}
        fields["data"] = None if data is None else base64.b64encode(data).decode()
        fields["tags"] = None if tags is None else parse(tags)
        fields["address"] = {"city": city, "geo": {} if zip_ is None else {"zip": zip_}}
        return fields | ({} if phone is None else {"phone": phone}) | ({} if prefs is None else {"prefs": parse(prefs)})

    async def remove(self, id_: str) -> None:
        await self.write("DELETE FROM things WHERE id = $1", int(id_))


@pytest.fixture(scope="module")
def database(postgresql: PostgresqlServer) -> str:
    """One database for all tests here: making and removing hundreds takes minutes."""
    return postgresql.new_database()


@pytest.fixture
def postgresql_dsn(database: str) -> str:
    """The database, which `opened_hands` empties."""
    return database


async def opened_hands(dsn: str, schema: str = SCHEMA) -> Any:
    hands = await asyncpg.connect(dsn)
    await hands.execute('DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS "my ""schema" CASCADE')
    await hands.execute(schema)
    return hands


class TestDocuments(TargetSuite):
    @pytest.fixture(autouse=True)
    def _place(self, postgresql_dsn: str) -> None:
        self._dsn = postgresql_dsn

    async def opened(self) -> Store:
        return DocumentStore(self._dsn, tables.DOCUMENTS, await opened_hands(self._dsn))


class TestColumns(TargetSuite):
    @pytest.fixture(autouse=True)
    def _place(self, postgresql_dsn: str) -> None:
        self._dsn = postgresql_dsn

    async def opened(self) -> Store:
        return ColumnStore(self._dsn, tables.COLUMNS, await opened_hands(self._dsn))


@pytest.fixture
async def store(postgresql_dsn: str) -> AsyncIterator[ColumnStore]:
    opened = ColumnStore(postgresql_dsn, tables.COLUMNS, await opened_hands(postgresql_dsn), timeout_s=5)
    yield opened
    await opened.close()


async def test_columns_that_are_not_mapped_are_left_alone(store: ColumnStore) -> None:
    await store.put("1", store.whole({"name": "a"}))
    await store.write("UPDATE things SET other = 'mine'")
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    assert await store.read("SELECT other, version, updated_by FROM things") == [("mine", 2, "reconciler")]


async def test_who_and_when_are_told(store: ColumnStore) -> None:
    await store.put("1", store.whole({}))
    await store.write("UPDATE things SET updated_at = '2026-05-03T12:00:00.5+02', updated_by = 'ana'")
    (seen,) = await store.target.observe([key("1")])
    assert seen.modified_at == 1_777_802_400_500_000
    assert seen.modified_by is not None
    assert (seen.modified_by.id, seen.modified_by.kind) == ("ana", "user")


async def test_a_float_that_jsonb_would_change_is_rejected(store: ColumnStore) -> None:
    await store.put("1", store.whole({"tags": 1}))
    for value in (1e300, 1e16, -0.0, {"a": [1e22]}):
        outcome = await store.target.apply(command("1", set_("/tags", value, 1)))
        assert outcome.status == "rejected", (value, outcome)
        assert await store.get("1") == store.whole({"tags": 1})
    for value in (1.5, 2.0, 1e-7):
        await store.put("1", store.whole({"tags": 1}))
        outcome = await store.target.apply(command("1", set_("/tags", value, 1)))
        assert outcome.status == "applied", (value, outcome)
        assert outcome.observed is not None
        assert canonical(outcome.observed.fields["tags"]) == canonical(value)


async def test_triggers_know_what_caused_a_write(store: ColumnStore) -> None:
    await store.write(
        """
        CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN new.other := current_setting('reconciler.origin', true); RETURN new; END $$;
        CREATE TRIGGER mark BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION mark();
        """
    )
    await store.put("1", store.whole({"name": "a"}))
    one = command("1", set_("/name", "b", "a"))
    assert (await store.target.apply(one)).status == "applied"
    assert await store.read("SELECT other FROM things") == [(one.command_id,)]
    await store.write("UPDATE things SET name = 'c'")
    assert (await store.read("SELECT other FROM things"))[0][0] in (None, "")


async def test_triggers_know_what_is_to_become_of_audit_entries(store: ColumnStore) -> None:
    await store.write(
        """
        CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN new.other := current_setting('reconciler.audit', true); RETURN new; END $$;
        CREATE TRIGGER mark BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION mark();
        """
    )
    await store.put("1", store.whole({"name": "a"}))
    for before, after, audit in (("a", "b", "archive"), ("b", "c", None)):
        assert (await store.target.apply(command("1", set_("/name", after, before), audit=audit))).status == "applied"
        assert await store.read("SELECT other FROM things") == [(audit or "",)]


async def test_what_a_trigger_makes_of_a_value_is_not_passed_off_as_done(store: ColumnStore) -> None:
    await store.write(
        """
        CREATE FUNCTION upper_name() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN new.name := upper(new.name); RETURN new; END $$;
        CREATE TRIGGER upper_name BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION upper_name();
        """
    )
    await store.put("1", store.whole({"name": "A"}))
    outcome = await store.target.apply(command("1", set_("/name", "b", "A")))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/name: the table turned the value into another one")
    assert await store.get("1") == store.whole({"name": "A"})


async def test_a_constraint_that_says_no_is_permanent_and_stays_so(store: ColumnStore) -> None:
    await store.write("ALTER TABLE things ADD CONSTRAINT one_phone UNIQUE (phone)")
    await store.put("1", store.whole({"phone": "1"}))
    await store.put("2", store.whole({"phone": "2"}))
    one = command("2", set_("/phone", "1", "2"))
    outcome = await store.target.apply(one)
    assert outcome.status == "permanent"
    assert outcome.error == "PostgreSQL: UniqueViolationError (23505): constraint 'one_phone', table 'things'"
    await store.remove("1")
    again = await store.target.apply(one)
    assert (again.status, again.error) == ("permanent", outcome.error)
    held = await store.get("2")
    assert isinstance(held, dict)
    assert held["phone"] == "2"


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        ("/name", "nul \x00", "permanent"),
        ("/city", "x" * 21, "permanent"),
        ("/count", 2**63, "rejected"),
        ("/count", "1", "rejected"),
        ("/name", 1, "rejected"),
        ("/active", 1, "rejected"),
        ("/data", "no base64", "rejected"),
        ("/tags", ["nul \x00"], "permanent"),
    ],
)
async def test_what_a_column_cannot_hold_is_refused(store: ColumnStore, path: str, value: Json, status: str) -> None:
    await store.put("1", store.whole({}))
    path = "/address/city" if path == "/city" else path
    outcome = await store.target.apply(command("1", set_("/prefs", ["x"]), set_(path, value, None)))
    assert outcome.status == status, outcome
    assert outcome.error
    assert "nul" not in outcome.error
    assert await store.get("1") == store.whole({})


async def test_a_locked_row_is_transient(postgresql_dsn: str) -> None:
    store = ColumnStore(postgresql_dsn, tables.COLUMNS, await opened_hands(postgresql_dsn), timeout_s=2)
    await store.put("1", store.whole({"name": "a"}))
    one = command("1", set_("/name", "b", "a"))
    await store.target.observe([key("1")])
    await store.write("BEGIN; UPDATE things SET name = 'a'")
    assert (await store.target.apply(one)).status == "transient"
    await store.write("ROLLBACK")
    assert (await store.target.apply(one)).status == "applied"
    await store.close()


async def test_an_edit_that_comes_in_between_is_seen(store: ColumnStore) -> None:
    """Somebody holds the row while the command waits for it: the command is judged on what they leave."""
    await store.put("1", store.whole({"name": "a"}))
    for left, status in (("mine", "conflict"), ("a", "applied")):
        await store.put("1", store.whole({"name": "a"}))
        await store.write(f"BEGIN; UPDATE things SET name = '{left}', phone = 'p'")
        one = command("1", set_("/name", "b", "a"))
        applying = asyncio.create_task(store.target.apply(one))
        await _waiting_for_a_lock(store)
        await store.write("COMMIT")
        assert (await applying).status == status
        held = await store.get("1")
        assert isinstance(held, dict)
        assert held["phone"] == "p"


async def _waiting_for_a_lock(store: ColumnStore) -> None:
    for _ in range(6_000):
        if await store.read("SELECT 1 FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody came to wait for the row")


async def test_a_writer_that_stops_before_the_commit_leaves_nothing(store: ColumnStore) -> None:
    await store.put("1", store.whole({"count": 1}))
    one = command("1", Change(path="/count", op="increment", value=1))
    await store.target.apply(command("1", set_("/tags", 1, None)))  # the inbox is there
    await tables.stop_before_commit(store.target, one)
    assert await store.get("1") == store.whole({"count": 1, "tags": 1})
    assert (await store.target.apply(one)).status == "applied"
    assert await store.get("1") == store.whole({"count": 2, "tags": 1})


async def test_a_migration_is_noticed(store: ColumnStore) -> None:
    await store.put("1", store.whole({"count": 1}))
    assert (await store.target.observe([key("1")]))[0].fields["count"] == 1
    await store.write("ALTER TABLE things RENAME COLUMN count TO number")
    (seen,) = await store.target.observe([key("1")])
    assert seen.exists is None
    assert "column things.count does not exist" in str(seen.reason) or '"count"' in str(seen.reason)
    await store.write("ALTER TABLE things RENAME COLUMN number TO count")
    await store.write("ALTER TABLE things ALTER COLUMN count TYPE numeric")
    await store.target.observe([key("1")])
    (seen,) = await store.target.observe([key("1")])
    assert seen.fields["count"] == "1"


async def test_a_server_that_restarts_comes_back(postgresql_server_of_my_own: PostgresqlServer) -> None:
    server = postgresql_server_of_my_own
    dsn = server.new_database()
    store = ColumnStore(dsn, tables.COLUMNS, await opened_hands(dsn), timeout_s=5)
    await store.put("1", store.whole({"name": "a"}))
    one = command("1", set_("/name", "b", "a"))
    assert (await store.target.observe([key("1")]))[0].exists is True
    await store.write("CHECKPOINT")  # the test's server doesn't wait for its disk by itself
    server.kill()
    (seen,) = await store.target.observe([key("1")])
    assert seen.exists is None
    assert (await store.target.apply(one)).status == "transient"
    server.start()
    outcome = await store.target.apply(one)
    assert outcome.status == "applied", outcome
    await store.target.close()


@pytest.fixture
def postgresql_server_of_my_own() -> Any:
    with PostgresqlServer() as server:
        yield server


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES: list[tuple[str, str, Json]] = [
    ("smallint", "-32768", -32768),
    ("bigint", "9223372036854775807", 2**63 - 1),
    ("numeric", "'1.50'", "1.50"),
    ("numeric(10,2)", "1", "1.00"),
    ("numeric", "123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    ("real", "0.1", 0.1),
    ("double precision", "0.1", 0.1),
    ("double precision", "1e300", 1e300),
    ("double precision", "'-0'", -0.0),
    ("boolean", "true", True),
    ("text", "''", ""),
    ("varchar(5)", "'é\"x'", 'é"x'),
    ("char(3)", "'ab'", "ab"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", r"'\x00ff'", "AP8="),
    ("bytea", "''", ""),
    ("timestamptz", "'2026-05-03 12:00:00.120+02'", "2026-05-03T10:00:00.12Z"),
    ("timestamptz", "'infinity'", "infinity"),
    ("timestamptz", "'0044-03-15 10:00:00+00 BC'", "0044-03-15 10:00:00+00 BC"),
    ("timestamptz", "'12026-05-03 12:00:00+00'", "12026-05-03T12:00:00Z"),
    ("timestamp", "'2026-05-03 12:00:00'", "2026-05-03T12:00:00"),
    ("date", "'2026-05-03'", "2026-05-03"),
    ("time", "'12:30'", "12:30:00"),
    ("interval", "'1 day 2 hours'", "P1DT2H"),
    ("jsonb", """'{"b": [1, 1.5, null, {}], "a": "x"}'""", {"a": "x", "b": [1, 1.5, None, {}]}),
    ("json", """'{"b":1.0}'""", {"b": 1.0}),
    ("inet", "'10.0.0.1'", "10.0.0.1/32"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("point", "'(1,2)'", "(1,2)"),
    ("bit(4)", "B'0101'", "0101"),
    ("xml", "'<a/>'", "<a/>"),
    ("money", "'1.50'", "$1.50"),
    ("mood", "'so so'", "so so"),
    ("address", "ROW('a b', NULL)", '("a b",)'),
    ("positive", "5", 5),
    ("text[]", "ARRAY['a', NULL, 'b,\"c']", ["a", None, 'b,"c']),
    ("text[]", "'{}'", []),
    ("integer[]", "'{1,2}'", [1, 2]),
    ("numeric[]", "'{1.50,2}'", ["1.50", "2"]),
    ("boolean[]", "'{t,f}'", [True, False]),
    ("real[]", "'{0.1}'", [0.1]),
    ("jsonb[]", """ARRAY['{"a": 1}'::jsonb, '2'::jsonb]""", [{"a": 1}, 2]),
    ("bytea[]", r"ARRAY['\x00'::bytea]", ["AA=="]),
    ("timestamptz[]", "ARRAY['2026-05-03 12:00:00+00'::timestamptz]", ["2026-05-03T12:00:00Z"]),
    ("mood[]", "ARRAY['so so'::mood]", ["so so"]),
    ("uuid[]", "'{}'", []),
]
TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
    CREATE TYPE address AS (street text, city text);
    CREATE DOMAIN positive AS integer CHECK (value > 0);
"""


def one_column(type_: str) -> dict[str, ResourceConfig]:
    config = {
        "table": "t",
        "id": "id",
        "fields": {"/value": {"column": "value", "null_means": "absent"}},
        "version": "xmin",
    }
    return {TYPE: ResourceConfig.model_validate(config)}


@pytest.mark.parametrize(("type_", "sql", "value"), VALUES, ids=[f"{case[0]} {case[1][:20]}" for case in VALUES])
async def test_every_type_goes_there_and_back_without_loss(
    types_database: tuple[str, Any], type_: str, sql: str, value: Json
) -> None:
    dsn, hands = types_database
    await hands.execute("DROP TABLE IF EXISTS t")
    await hands.execute(f"CREATE TABLE t (id text PRIMARY KEY, value {type_})")
    await hands.execute(f"INSERT INTO t VALUES ('1', {sql}), ('2', NULL), ('4', {sql})")
    target = PostgresqlTarget(SYSTEM, PostgresqlConfig(dsn=SecretStr(dsn), resources=one_column(type_), pool_size=1))
    try:
        one, null, none = await target.observe([key("1"), key("2"), key("3")])
        assert (one.exists, null.exists, none.exists) == (True, True, False), one
        assert canonical(one.fields) == canonical({"value": value})
        assert null.fields == {}
        # What was read can be written, as a change and as a new row, and is the same to the database.
        assert (await target.apply(command("2", set_("/value", value)))).status == "applied"
        outcome = await target.apply(create("3", {"value": value}))
        assert outcome.status == "applied", outcome
        texts = await hands.fetch("SELECT value::text FROM t ORDER BY id")
        assert len({row[0] for row in texts}) == 1, texts
        # What was read is what a command may expect.
        unset = Change(path="/value", op="unset", expect=value)
        assert (await target.apply(command("4", unset))).status == "applied"
        assert (await target.apply(delete("1", {"value": value}))).status == "applied"
        assert await hands.fetchval("SELECT value::text FROM t WHERE id = '4'") is None
    finally:
        await target.close()


@pytest.fixture
async def types_database(postgresql_dsn: str) -> AsyncIterator[tuple[str, Any]]:
    hands = await opened_hands(postgresql_dsn, TYPES)
    yield postgresql_dsn, hands
    await hands.close()


@pytest.mark.parametrize(
    ("type_", "sql"),
    [
        ("double precision", "'NaN'"),
        ("real", "'-infinity'"),
        ("numeric", "'NaN'"),
        ("numeric", "'Infinity'"),
        ("jsonb", "'123456789012345678901'"),
        ("jsonb", "'1e300'"),
        ("json", "'1e999'"),
        ("integer[]", "'{{1,2},{3,4}}'"),
        ("real[]", "'{NaN}'"),
    ],
)
async def test_what_json_cannot_say_is_unknown(types_database: tuple[str, Any], type_: str, sql: str) -> None:
    dsn, hands = types_database
    await hands.execute(
        f"CREATE TABLE t (id text PRIMARY KEY, value {type_}); INSERT INTO t VALUES ('1', {sql}), ('2', NULL)"
    )
    target = PostgresqlTarget(SYSTEM, PostgresqlConfig(dsn=SecretStr(dsn), resources=one_column(type_), pool_size=1))
    one, beside = await target.observe([key("1"), key("2")])
    assert (one.exists, beside.exists) == (None, True)
    assert str(one.reason).startswith("the column 'value' ")
    await target.close()


@pytest.mark.parametrize(
    ("type_", "value", "kept"),
    [
        ("numeric(10,2)", "1.5", "1.50"),
        ("numeric(10,2)", 1.5, "1.50"),
        ("numeric(10,2)", 3, "3.00"),
        ("numeric(10,2)", "1.555", None),
        ("numeric", "NaN", None),
        ("numeric", "x", None),
        ("integer", 2.0, 2),
        ("integer", 2.5, None),
        ("integer", True, None),
        ("double precision", 2, 2.0),
        ("double precision", 2**53 + 1, None),
        ("real", 0.123456789, None),
        ("timestamptz", "2026-05-03T12:00:00+02:00", "2026-05-03T10:00:00Z"),
        ("timestamptz(0)", "2026-05-03T12:00:00.5Z", None),
        ("timestamptz", "yesterday, I think", None),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("mood", "angry", None),
        ("positive", -1, None),
        ("text[]", [["a"]], None),
        ("text[]", "a", None),
        ("integer[]", [1, "x"], None),
    ],
)
async def test_a_value_is_kept_by_its_meaning_or_refused(
    types_database: tuple[str, Any], type_: str, value: Json, kept: Json
) -> None:
    dsn, hands = types_database
    await hands.execute(f"CREATE TABLE t (id text PRIMARY KEY, value {type_}); INSERT INTO t VALUES ('1')")
    target = PostgresqlTarget(SYSTEM, PostgresqlConfig(dsn=SecretStr(dsn), resources=one_column(type_), pool_size=1))
    outcome = await target.apply(command("1", set_("/value", value)))
    (seen,) = await target.observe([key("1")])
    if kept is None:
        assert outcome.status in ("rejected", "permanent"), outcome
        assert seen.fields == {}
    else:
        assert outcome.status == "applied", outcome
        assert canonical(seen.fields) == canonical({"value": kept})
    await target.close()


async def test_the_configured_kind_must_fit_the_type(types_database: tuple[str, Any]) -> None:
    dsn, hands = types_database
    await hands.execute("CREATE TABLE t (id text PRIMARY KEY, value integer)")
    resource = {"table": "t", "id": "id", "fields": {"/value": {"column": "value", "kind": "bytes"}}}
    config = PostgresqlConfig(dsn=SecretStr(dsn), resources={TYPE: ResourceConfig.model_validate(resource)})
    target = PostgresqlTarget(SYSTEM, config)
    with pytest.raises(InputError, match="kind: bytes"):
        await target.observe([key("1")])
    await target.close()


async def test_json_text_in_a_text_column(types_database: tuple[str, Any]) -> None:
    dsn, hands = types_database
    await hands.execute("CREATE TABLE t (id text PRIMARY KEY, value text)")
    await hands.execute("""INSERT INTO t VALUES ('1', '{"a": 1e300}'), ('2', '{'), ('3', 'null')""")
    resource = {
        "table": "t",
        "id": "id",
        "fields": {"/value": {"column": "value", "kind": "json", "null_means": "absent"}},
    }
    config = PostgresqlConfig(dsn=SecretStr(dsn), resources={TYPE: ResourceConfig.model_validate(resource)})
    target = PostgresqlTarget(SYSTEM, config)
    first, second, third = await target.observe([key("1"), key("2"), key("3")])
    assert first.fields == {"value": {"a": 1e300}}
    assert second.exists is None
    assert third.fields == {"value": None}
    assert (await target.apply(command("1", set_("/value", {"a": -0.0}, {"a": 1e300})))).status == "applied"
    assert await hands.fetchval("SELECT value FROM t WHERE id = '1'") == '{"a":-0.0}'
    await target.close()


@pytest.mark.parametrize(
    ("type_", "sql", "id_", "others"),
    [
        ("integer", "7", "7", ["007", "+7", "7.0", "seven", "99999999999", "-0"]),
        (
            "uuid",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "x"],
        ),
        ("text", "'a/b%'", "a/b%", ["A/B%", "nul\x00"]),
        ("char(5)", "'ab'", "ab", ["ab ", "AB"]),
        ("date", "'2026-05-03'", "2026-05-03", ["2026-5-3", "x"]),
        ("numeric", "1.50", "1.50", ["1.5"]),
    ],
)
async def test_ids_are_never_taken_for_one_another(
    types_database: tuple[str, Any], type_: str, sql: str, id_: str, others: list[str]
) -> None:
    dsn, hands = types_database
    await hands.execute(f"CREATE TABLE t (id {type_} PRIMARY KEY, value text); INSERT INTO t VALUES ({sql}, 'x')")
    target = PostgresqlTarget(SYSTEM, PostgresqlConfig(dsn=SecretStr(dsn), resources=one_column("text")))
    one, *rest = await target.observe([resource_key(SYSTEM, TYPE, each) for each in [id_, *others]])
    assert (one.exists, one.fields) == (True, {"value": "x"})
    assert all(seen.exists is not True for seen in rest)
    for other in others:
        outcome = await target.apply(command(other, set_("/value", "y", "x")))
        assert outcome.status in ("conflict", "rejected"), outcome
    assert (await target.apply(command(id_, set_("/value", "y", "x")))).status == "applied"
    page = await target.scan(None)
    assert [seen.resource for seen in page.observations] == [key(id_)]
    await target.close()


async def test_the_bulk_is_one_query_by_the_index(store: ColumnStore) -> None:
    for id_ in range(1, 4):
        await store.put(str(id_), store.whole({}))
    table = await store.target._database.table(TYPE)
    sql, arguments = table.select_many(["1", "2"])
    await store.write("SET enable_seqscan = off")
    plan = "\n".join(row[0] for row in await store.read(f"EXPLAIN {sql}", *arguments))
    assert "Index Cond" in plan


async def test_tables_in_another_schema_with_names_that_need_quotes(types_database: tuple[str, Any]) -> None:
    dsn, hands = types_database
    await hands.execute(
        'CREATE SCHEMA "my ""schema"; CREATE TABLE "my ""schema"."select" ("from" text PRIMARY KEY, "a;b" text)'
    )
    await hands.execute('INSERT INTO "my ""schema"."select" VALUES (\'1\', \'x\')')
    resource = {"table": "select", "schema": 'my "schema', "id": "from", "fields": {"/value": "a;b"}}
    config = PostgresqlConfig.model_validate(
        {"dsn": dsn, "resources": {TYPE: resource}, "inbox": {"schema": 'my "schema', "table": "in box"}}
    )
    target = PostgresqlTarget(SYSTEM, config)
    assert (await target.apply(command("1", set_("/value", "y", "x")))).status == "applied"
    assert await hands.fetchval('SELECT count(*) FROM "my ""schema"."in box"') == 1
    await target.close()


async def test_two_targets_make_the_inbox_at_once(postgresql_dsn: str) -> None:
    store = ColumnStore(postgresql_dsn, tables.COLUMNS, await opened_hands(postgresql_dsn))
    for _ in range(10):
        await store.write("DROP TABLE IF EXISTS reconciler_inbox")
        targets = [await store.another() for _ in range(5)]
        for number, target in enumerate(targets):
            await store.put(str(number), store.whole({"name": "a"}))
            await target.observe([key(str(number))])  # connected, so that they come at the same moment
        outcomes = await asyncio.gather(
            *(target.apply(command(str(number), set_("/name", "b", "a"))) for number, target in enumerate(targets))
        )
        assert [outcome.status for outcome in outcomes] == ["applied"] * 5, outcomes
        for target in targets:
            await target.close()
    await store.close()


async def test_a_number_that_we_would_change_is_not_written_back(store: ColumnStore) -> None:
    await store.put("1", store.whole({"name": "a", "tags": {}}))
    await store.write("""UPDATE things SET tags = '{"price": 0.12345678901234567890, "n": 1}'""")
    outcome = await store.target.apply(command("1", set_("/tags/n", 2, 1)))
    assert outcome.status == "rejected"
    assert str(outcome.error).startswith("/tags: ")
    assert (await store.target.apply(command("1", set_("/name", "b", "a")))).status == "applied"
    held = await store.read("SELECT tags FROM things")
    assert "0.12345678901234567890" in held[0][0]


async def test_an_automation_of_the_database_leaves_our_writes_alone(store: ColumnStore) -> None:
    """A trigger that answers every change of a name, unless it is a correction of ours, by the statement of docs/targets.md."""
    await store.write(
        """
        CREATE FUNCTION welcome() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('reconciler.origin', true) <> '' THEN RETURN NEW; END IF;
            NEW.other := 'sent a letter to ' || NEW.name;
            RETURN NEW;
        END $$;
        CREATE TRIGGER welcome BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION welcome();
        """
    )
    await store.put("1", store.whole({"name": "Ana"}))
    await store.write("UPDATE things SET other = 'nothing yet'")
    assert (await store.target.apply(command("1", set_("/name", "Bea", "Ana")))).status == "applied"
    marked = command("1", set_("/name", "Eva", "Bea"), origin="rollback-7")
    assert (await store.target.apply(marked)).status == "applied"
    assert (await store.read("SELECT other FROM things WHERE id = 1"))[0][0] == "sent a letter to Ana"
    # One connection's setting ends with its transaction: what others write on it afterwards is theirs.
    await store.write("UPDATE things SET name = 'Ida'")
    assert (await store.read("SELECT other FROM things"))[0][0] == "sent a letter to Ida"


async def test_a_mark_can_be_left_in_the_row(store: ColumnStore) -> None:
    resources = {TYPE: store._config.resources[TYPE].model_copy(update={"origin_field": "other"})}
    target = PostgresqlTarget(SYSTEM, store._config.model_copy(update={"resources": resources}))
    await store.put("1", store.whole({"name": "Ana"}))
    one = command("1", set_("/name", "Bea", "Ana"))
    two = command("1", set_("/name", "Eva", "Bea"), origin="rollback-7")
    new = create("2", store.whole({"name": "Ida"}))
    for each, mark in ((one, one.command_id), (two, "rollback-7"), (new, new.command_id)):
        outcome = await target.apply(each)
        assert outcome.status == "applied"
        assert outcome.observed is not None and "other" not in outcome.observed.fields
        id_ = 2 if each is new else 1
        assert await store.read("SELECT other FROM things WHERE id = $1", id_) == [(mark,)]
    await target.close()


def test_a_mark_needs_a_column_of_its_own() -> None:
    for column in ("id", "name", "updated_by", "version"):
        with pytest.raises(ValueError, match="column of its own"):
            ResourceConfig.model_validate(
                {
                    "table": "things",
                    "id": "id",
                    "fields": {"/name": "name"},
                    "version": "version",
                    "modified_by": "updated_by",
                    "origin_field": column,
                }
            )
