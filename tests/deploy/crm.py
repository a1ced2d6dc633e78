"""The CRM of docker-compose.yml, made on a test's PostgreSQL by the script that makes it there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.support.needs import need_program
from tests.support.postgresql import PostgresqlServer

DEPLOY = Path(__file__).parents[2] / "deploy"
_PASSWORD = 'it\'s a "password" with $dollars'


def make_crm(postgresql: PostgresqlServer) -> str:
    """Runs the script, and says how the crm account reaches its database."""
    need_program("psql", package="postgresql-client")
    address = urlsplit(postgresql.dsn)
    environment = {
        "PGHOST": str(address.hostname),
        "PGPORT": str(address.port),
        "PGDATABASE": "postgres",
        "POSTGRES_USER": str(address.username),
        "CRM_PASSWORD": _PASSWORD,
    }
    script = DEPLOY / "postgresql" / "01-crm.sh"
    done = subprocess.run([script], env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return f"postgresql://crm:{quote(_PASSWORD)}@{address.hostname}:{address.port}/crm"
