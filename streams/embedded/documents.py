"""Where the embedded billing service keeps its documents: in memory, or in an SQLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.targets.sql.sqlite_connection import SqliteConnection
from reconciler.values.instant import Instant
from reconciler.values.json_value import Json, canonical, parse


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document. No two writes of a store have the same revision, so that a revision is never seen twice."""

    id: str
    body: dict[str, Json]
    revision: int
    updated_at: Instant
    updated_by: str


class Documents(Protocol):
    """A store, for one writer at a time."""

    async def get(self, collection: str, id: str) -> Document | None:
        """One document."""
        ...

    async def page(self, collection: str, after: str, size: int) -> list[Document]:
        """The next documents in the order of their ids."""
        ...

    async def put(self, collection: str, id: str, body: dict[str, Json], by: str, now: Instant) -> Document:
        """Writes a document with the next revision."""
        ...

    async def delete(self, collection: str, id: str) -> None:
        """Takes a document away."""
        ...

    async def close(self) -> None:
        """Gives back what it holds."""
        ...


class MemoryDocuments:
    """In memory."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, Document]] = {}
        self._revision = 0

    async def get(self, collection: str, id: str) -> Document | None:
        return self._collections.get(collection, {}).get(id)

    async def page(self, collection: str, after: str, size: int) -> list[Document]:
        held = self._collections.get(collection, {})
        return [held[id_] for id_ in sorted(id_ for id_ in held if id_ > after)[:size]]

    async def put(self, collection: str, id: str, body: dict[str, Json], by: str, now: Instant) -> Document:
        self._revision += 1
        document = Document(id=id, body=body, revision=self._revision, updated_at=now, updated_by=by)
        self._collections.setdefault(collection, {})[id] = document
        return document

    async def delete(self, collection: str, id: str) -> None:
        self._collections.get(collection, {}).pop(id, None)

    async def close(self) -> None:
        """Nothing is held open."""


class SqliteDocuments:
    """In an SQLite file, which is made if it isn't there."""

    def __init__(self, path: Path) -> None:
        self._connection = SqliteConnection(path, busy_timeout_s=10, mode="rwc")

    async def open(self) -> None:
        """Makes the table. Raises sqlite3.Error."""
        await self._connection.execute(
            # AUTOINCREMENT: a revision is never given again, also after its document was deleted.
            "CREATE TABLE IF NOT EXISTS documents (revision INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, "
            "id TEXT NOT NULL, body TEXT NOT NULL, updated_at INTEGER NOT NULL, updated_by TEXT NOT NULL, "
            "UNIQUE (collection, id))"
        )

    async def get(self, collection: str, id: str) -> Document | None:
        rows = await self._connection.fetch(f"{_SELECT} WHERE collection = ?1 AND id = ?2", [collection, id])
        return _document(rows[0]) if rows else None

    async def page(self, collection: str, after: str, size: int) -> list[Document]:
        sql = f"{_SELECT} WHERE collection = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
        return [_document(row) for row in await self._connection.fetch(sql, [collection, after, size])]

    async def put(self, collection: str, id: str, body: dict[str, Json], by: str, now: Instant) -> Document:
        # REPLACE makes a new row, and with it a new revision.
        await self._connection.execute(
            "INSERT OR REPLACE INTO documents (collection, id, body, updated_at, updated_by) VALUES (?1, ?2, ?3, ?4, ?5)",
            [collection, id, canonical(body).decode(), now, by],
        )
        document = await self.get(collection, id)
        assert document is not None, "it was just written"
        return document

    async def delete(self, collection: str, id: str) -> None:
        await self._connection.execute("DELETE FROM documents WHERE collection = ?1 AND id = ?2", [collection, id])

    async def close(self) -> None:
        await self._connection.close()


_SELECT = "SELECT id, body, revision, updated_at, updated_by FROM documents"


def _document(row: tuple[object, ...]) -> Document:
    id_, body, revision, updated_at, updated_by = row
    return Document(
        id=str(id_),
        body=parse(str(body)),
        revision=int(str(revision)),
        updated_at=int(str(updated_at)),
        updated_by=str(updated_by),
    )
