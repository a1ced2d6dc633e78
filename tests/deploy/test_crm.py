"""The script that makes the CRM of docker-compose.yml works on a real PostgreSQL, and gives away no more than it should."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import asyncpg

from tests.support.needs import need_program
from tests.support.postgresql import PostgresqlServer

_SCRIPT = Path(__file__).parents[2] / "deploy" / "postgresql" / "01-crm.sh"
_PASSWORD = 'it\'s a "password" with $dollars'


def _make_crm(address: SplitResult) -> None:
    environment = {
        "PGHOST": str(address.hostname),
        "PGPORT": str(address.port),
        "PGDATABASE": "postgres",
        "POSTGRES_USER": str(address.username),
        "CRM_PASSWORD": _PASSWORD,
    }
    done = subprocess.run([_SCRIPT], env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_the_account_owns_its_tables_and_rows_are_stamped(postgresql: PostgresqlServer) -> None:
    need_program("psql", package="postgresql-client")
    address = urlsplit(postgresql.dsn)
    _make_crm(address)
    connection = await asyncpg.connect(
        host=address.hostname, port=address.port, user="crm", password=_PASSWORD, database="crm"
    )
    try:
        before = await connection.fetchrow("SELECT version, modified_at FROM contact WHERE id = 'c-2'")
        await connection.execute("UPDATE contact SET phone = '1' WHERE id = 'c-2'")
        after = await connection.fetchrow("SELECT version, modified_at FROM contact WHERE id = 'c-2'")
        assert before is not None and after is not None
        assert after["version"] == before["version"] + 1
        assert after["modified_at"] > before["modified_at"]
        powers = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = 'crm'"
        assert await connection.fetchval(powers) is False
        # The adapter makes its inbox table itself.
        await connection.execute("CREATE TABLE inbox_probe (id text)")
    finally:
        await connection.close()
