"""The table that remembers which commands were decided, in the same transaction as their writes.

command_id   text, primary key
resource     text
status       text      the first outcome
attempt      integer
error        text, or NULL
recorded_at  bigint    microseconds since 1970
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.records import Command, OutcomeStatus
from reconciler.targets.first_outcome import FirstOutcome
from reconciler.targets.sql.config import InboxConfig
from reconciler.targets.sql.database import Transaction
from reconciler.targets.sql.table import Statement, quoted
from reconciler.values.instant import SECOND, Instant


class Inbox:
    """The inbox of one target."""

    def __init__(self, config: InboxConfig, parameter: Callable[[int], str]) -> None:
        self._keep = config.keep_s * SECOND
        self._name = quoted(config.schema_name, config.table)
        self._parameter = parameter

    def ddl(self) -> str:
        """The statement that creates it."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._name} (command_id text PRIMARY KEY, resource text NOT NULL, "
            "status text NOT NULL, attempt integer NOT NULL, error text, recorded_at bigint NOT NULL)"
        )

    async def claim(self, transaction: Transaction, command: Command, now: Instant) -> FirstOutcome | None:
        """Writes the command down as applied, which holds if nothing else is said before the commit; or how it was decided before.

        While another transaction claims the same command, this waits for its end.
        """
        sql = (
            f"INSERT INTO {self._name} (command_id, resource, status, attempt, recorded_at) "
            f"VALUES ({self._places(5)}) ON CONFLICT (command_id) DO NOTHING"
        )
        arguments = [command.command_id, command.resource, "applied", command.attempt, now]
        if await transaction.execute(sql, arguments) == 1:
            return None
        rows = await transaction.fetch(
            f"SELECT status, attempt, error FROM {self._name} WHERE command_id = {self._parameter(1)}",
            [command.command_id],
        )
        if not rows:  # forgotten between the two statements
            return await self.claim(transaction, command, now)
        status, attempt, error = rows[0]
        return FirstOutcome(
            status=_status(status), attempt=int(str(attempt)), error=None if error is None else str(error)
        )

    async def remember(
        self, transaction: Transaction, command: Command, status: OutcomeStatus, error: str | None, now: Instant
    ) -> None:
        """Writes down what became of a claimed command."""
        places = [self._parameter(number) for number in range(1, 6)]
        sql = (
            f"UPDATE {self._name} SET status = {places[1]}, attempt = {places[2]}, error = {places[3]}, "
            f"recorded_at = {places[4]} WHERE command_id = {places[0]}"
        )
        await transaction.execute(sql, [command.command_id, status, command.attempt, error, now])

    def prune(self, now: Instant) -> Statement:
        """Forgets commands older than any that can still be delivered."""
        return f"DELETE FROM {self._name} WHERE recorded_at < {self._parameter(1)}", [now - self._keep]

    def _places(self, count: int) -> str:
        return ", ".join(self._parameter(number) for number in range(1, count + 1))


def _status(stored: object) -> OutcomeStatus:
    match stored:
        case "applied" | "already_applied" | "conflict" | "permanent" | "rejected":
            return stored
    raise ValueError(f"the inbox holds the unknown status {stored!r}")
