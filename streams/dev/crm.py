"""The CRM of the embedded estate: an SQLite file, used by the workflow and by people as any application would."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

COLUMNS = ("name", "email", "phone", "owner", "stage", "note")

_SCHEMA = """
CREATE TABLE contact (
    id TEXT PRIMARY KEY, name TEXT, email TEXT, phone TEXT, owner TEXT, stage TEXT,
    note TEXT NOT NULL DEFAULT 'new', version INTEGER NOT NULL DEFAULT 1
);
CREATE TRIGGER contact_version AFTER UPDATE OF name, email, phone, owner, stage, note ON contact
BEGIN UPDATE contact SET version = OLD.version + 1 WHERE id = NEW.id; END;
"""


class Crm:
    """The CRM's own view of its contacts."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def create(self) -> None:
        """Makes the tables."""
        self._write(_SCHEMA)

    def insert(self, contact_id: str, fields: dict[str, Any]) -> None:
        """A new contact."""
        names = ", ".join(["id", *fields])
        marks = ", ".join("?" * (len(fields) + 1))
        with closing(self._connect()) as database, database:
            database.execute(f"INSERT INTO contact ({names}) VALUES ({marks})", [contact_id, *fields.values()])

    def update(self, contact_id: str, fields: dict[str, Any]) -> None:
        """Some fields of a contact."""
        pairs = ", ".join(f"{name} = ?" for name in fields)
        with closing(self._connect()) as database, database:
            database.execute(f"UPDATE contact SET {pairs} WHERE id = ?", [*fields.values(), contact_id])

    def delete(self, contact_id: str) -> None:
        """Takes a contact away."""
        with closing(self._connect()) as database, database:
            database.execute("DELETE FROM contact WHERE id = ?", [contact_id])

    def contacts(self) -> dict[str, dict[str, Any]]:
        """All contacts as they are."""
        with closing(self._connect()) as database:
            rows = database.execute(f"SELECT id, {', '.join(COLUMNS)} FROM contact").fetchall()
        return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}

    def _write(self, script: str) -> None:
        with closing(self._connect()) as database:
            database.executescript(script)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=10)
