"""A service that owns its data carries out the reconciler's commands, in its own transactions. Ctrl-C ends it.

$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/consumer_handler.py crm.db
$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/send_command.py crm/contact/42 /phone '"2"' '"3"'
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from functools import partial

from reconciler.sdk import (
    ABSENT,
    Command,
    ConflictError,
    ConsumerSettings,
    Entitlement,
    HandlerResult,
    KafkaSettings,
    Observation,
    PermanentError,
    ReversalConsumer,
    SqlDedup,
)

COLUMNS = {"/phone": "phone", "/name": "name"}


class ContactService:
    """Contacts in SQLite."""

    def __init__(self, path: str) -> None:
        self.connect = partial(sqlite3.connect, path, timeout=5)
        self.dedup = SqlDedup(self.connect)
        self.dedup.create_table()
        with closing(self.connect()) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS contact (id TEXT PRIMARY KEY, phone TEXT, name TEXT)")
            connection.execute("INSERT OR IGNORE INTO contact VALUES ('42', '3', 'Ana')")

    def apply(self, command: Command) -> HandlerResult:
        """Every change, or none; each only if the field still holds what the command expects."""
        contact = command.resource.rpartition("/")[2]
        with closing(self.connect()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            for change in command.changes:
                column = COLUMNS.get(change.path)
                if column is None or change.op not in ("set", "unset"):
                    raise PermanentError(f"{change.path}: this service knows no such change")
                value = None if change.value is ABSENT else change.value
                expected = None if change.expect is ABSENT else change.expect
                done = connection.execute(
                    f"UPDATE contact SET {column} = ? WHERE id = ? AND {column} IS ?",  # noqa: S608 — from the table above
                    (value, contact, expected),
                )
                if done.rowcount == 0:
                    raise ConflictError(
                        f"{change.path}: somebody else changed it", observed=self.observe(connection, command.resource)
                    )
            # In the same transaction: whatever crashes now, the command is applied and remembered, or neither.
            self.dedup.remember_in(connection, command)
            return HandlerResult(observed=self.observe(connection, command.resource))

    def observe(self, connection: sqlite3.Connection, resource: str) -> Observation:
        """What the contact holds now."""
        row = connection.execute(
            "SELECT phone, name FROM contact WHERE id = ?", (resource.rpartition("/")[2],)
        ).fetchone()
        if row is None:
            return Observation(resource=resource, exists=False)
        fields = {name: value for name, value in zip(("phone", "name"), row, strict=True) if value is not None}
        return Observation(resource=resource, exists=True, fields=fields)


def main() -> None:
    service = ContactService(sys.argv[1])
    settings = ConsumerSettings(
        kafka=KafkaSettings(
            bootstrap_servers=os.environ["RECONCILER_BOOTSTRAP_SERVERS"],
            topic_prefix=os.environ.get("RECONCILER_TOPIC_PREFIX", ""),
        ),
        system="crm",
        entitlement=Entitlement(actions=frozenset({"patch"}), types=frozenset({"contact"})),
    )
    consumer = ReversalConsumer(settings, service.apply, dedup=service.dedup)
    print("carrying out commands for crm; Ctrl-C ends it", flush=True)
    consumer.run(stop_on_signals=True)
    print("ended in order")


if __name__ == "__main__":
    main()
