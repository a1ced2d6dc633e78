"""What a database must offer so that `SqlTarget` can stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from reconciler.records import Record
from reconciler.targets.sql.table import Row, Table


class Trouble(Record, frozen=True, kw_only=True):
    """What went wrong at the database: ``transient`` may pass, ``permanent`` won't by itself. No values in the sentence."""

    kind: Literal["transient", "permanent"]
    sentence: str


class Transaction(Protocol):
    """One open transaction."""

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        """The rows of a query."""
        ...

    async def execute(self, sql: str, arguments: Sequence[object]) -> int:
        """How many rows a statement touched."""
        ...

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """What happens inside is undone if an exception leaves it."""
        ...


class Database(Protocol):
    """A database with the tables of one target."""

    async def table(self, type_: str) -> Table:
        """The table of a configured type, asking the database for its columns' types the first time."""
        ...

    def forget_tables(self) -> None:
        """The tables may have changed: ask again."""
        ...

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        """The rows of a query outside of a transaction."""
        ...

    def transaction(
        self, resource: str, origin: str, audit: str | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """A transaction in which no other writer of ours touches this resource, marked with the command that causes it, and
        with what is to become of audit entries.

        It commits at its end, and rolls back on an exception.
        """
        ...

    def parameter(self, number: int) -> str:
        """The SQL of the n-th parameter."""
        ...

    errors: tuple[type[Exception], ...]
    """The driver's exceptions: what can go wrong at the target."""

    def trouble(self, error: Exception) -> Trouble:
        """What one of `errors` means."""
        ...

    async def close(self) -> None:
        """Gives back connections."""
        ...
