"""A target whose resources are rows: everything but the differences between databases.

A command is carried out in one transaction: the inbox is claimed, the row read and locked, the decision made by
`reconciler.targets.apply.decide`, the row written, and read again to see that it now holds what was asked; a value that
the table turned into another one (by its type or a trigger) undoes the write. So the guard is the lock, the deduplication
shares the fate of the effect, and what is reported is what stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.records import Command, Observation, Outcome
from reconciler.targets.answers import Clock, logger, missing, origin_of, outcome, sentence, system_clock, unknown
from reconciler.targets.apply import Fields, Refusal, decide
from reconciler.targets.first_outcome import REMEMBERED, repeated
from reconciler.targets.port import ScanPage, TargetDescription, TargetUnavailable
from reconciler.targets.routing import addressed, by_type, chunks, read_cursor, write_cursor
from reconciler.targets.sql.config import SqlConfig
from reconciler.targets.sql.database import Database, Transaction
from reconciler.targets.sql.inbox import Inbox
from reconciler.targets.sql.table import Row, Table
from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.resource_key import ResourceKey, resource_key

PRUNE_EVERY = 3_600 * SECOND


class _Undone(Exception):
    """Leaves a savepoint, so that what was written in it is undone. Carries why the command is refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A row as it was read."""

    observation: Observation
    rows: Sequence[Row]


class SqlTarget:
    """Observes and applies over a `Database`."""

    def __init__(
        self, system: str, kind: str, config: SqlConfig, database: Database, *, clock: Clock = system_clock
    ) -> None:
        self._system = system
        self._kind = kind
        self._config = config
        self._database = database
        self._clock = clock
        self._inbox = Inbox(config.inbox, database.parameter)
        self._pruned_at: Instant | None = None

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self._system,
            kind=self._kind,
            can_apply=True,
            can_scan=True,
            compare_and_set=True,
            deduplicates=True,
            bulk_size=self._config.bulk_size,
        )

    async def close(self) -> None:
        await self._database.close()

    # ── observing ────────────────────────────────────────────────────────────────────────────────────────────────

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        wanted, answered = by_type(resources, self._system, self._config.resources, self._clock())
        for type_, ids in wanted.items():
            for chunk in chunks(list(ids), self._config.bulk_size):
                answered.update(await self._observed(type_, {id_: ids[id_] for id_ in chunk}))
        return [answered[resource] for resource in resources]

    async def _observed(self, type_: str, ids: dict[str, str]) -> dict[str, Observation]:
        now = self._clock()
        try:
            table = await self._database.table(type_)
            problems = {id_: problem for id_ in ids if (problem := table.id_form.problem(id_)) is not None}
            asked = [id_ for id_ in ids if id_ not in problems]
            rows = await self._database.fetch(*table.select_many(asked)) if asked else []
        except self._database.errors as error:
            reason = self._reason(error)
            return {resource: unknown(resource, reason, now) for resource in ids.values()}
        answered = {ids[id_]: unknown(ids[id_], problem, now) for id_, problem in problems.items()}
        answered.update(_matched(table, {id_: ids[id_] for id_ in asked}, rows, now))
        return answered

    def _reason(self, error: Exception) -> str:
        """The sentence for the driver's trouble, after which nothing that was learnt about the tables is taken for granted."""
        self._database.forget_tables()
        return self._database.trouble(error).sentence

    async def scan(self, cursor: str | None) -> ScanPage:
        types = list(self._config.resources)
        type_, after = (types[0], None) if cursor is None else read_cursor(cursor, 2)
        if type_ not in types:
            raise InputError(f"the cursor names the type {type_!r}, which is no longer configured; begin again")
        now = self._clock()
        size = self._config.bulk_size
        try:
            table = await self._database.table(type_)
            rows = await self._database.fetch(*table.select_page(after or None, size))
        except self._database.errors as error:
            raise TargetUnavailable(self._reason(error)) from error
        observations = [
            table.observation(resource_key(self._system, type_, table.id_of(row)), row, now) for row in rows
        ]
        if len(rows) == size:
            return ScanPage(observations=observations, cursor=write_cursor(type_, table.id_of(rows[-1])))
        following = types[types.index(type_) + 1 :]
        return ScanPage(observations=observations, cursor=write_cursor(following[0], "") if following else None)

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, command: Command) -> Outcome:
        key = addressed(command.resource, self._system, self._config.resources)
        if isinstance(key, str):
            return outcome(command, "rejected", self._clock(), error=key)
        if command.action == "compensate":
            return outcome(command, "rejected", self._clock(), error="a database runs no compensations")
        try:
            table = await self._database.table(key.type)
            problem = table.id_form.problem(key.id)
            if problem is not None:
                return outcome(command, "rejected", self._clock(), error=problem)
            async with self._database.transaction(command.resource, origin_of(command), command.audit) as transaction:
                result = await self._once(transaction, table, key, command)
        except self._database.errors as error:
            trouble = self._database.trouble(error)
            self._database.forget_tables()
            return outcome(command, trouble.kind, self._clock(), error=trouble.sentence)
        await self._prune()
        return result

    async def _once(self, transaction: Transaction, table: Table, key: ResourceKey, command: Command) -> Outcome:
        first = await self._inbox.claim(transaction, command, self._clock())
        status = repeated(first, command)
        if status is not None and first is not None:
            seen = await self._row(transaction, table, key, command)
            return outcome(command, status, self._clock(), observed=seen.observation, error=first.error)
        result = await self._judged(transaction, table, key, command)
        assert result.status in REMEMBERED
        if first is not None or result.status != "applied":
            await self._inbox.remember(transaction, command, result.status, result.error, self._clock())
        return result

    async def _judged(self, transaction: Transaction, table: Table, key: ResourceKey, command: Command) -> Outcome:
        """The decision on what stands now, carried out; and again, where it can't be carried out, on what stands then."""
        error = None
        for _ in range(2):
            seen = await self._row(transaction, table, key, command, lock=True)
            before = seen.observation
            if before.exists is None:
                return outcome(command, "permanent", self._clock(), observed=before, error=before.reason)
            current = before.fields if before.exists else ABSENT
            result = decide(current, before.version, command)
            if isinstance(result, Refusal):
                return outcome(command, result.status, self._clock(), observed=before, error=sentence(result))
            if result is current:
                return outcome(command, "already_applied", self._clock(), observed=before)
            if error is not None:
                return outcome(command, "permanent", self._clock(), observed=before, error=error)
            try:
                async with transaction.savepoint():
                    await self._write(transaction, table, key, seen, result, origin_of(command))
                    after = (await self._row(transaction, table, key, command)).observation
                    await self._check_kept(transaction, table, key, before, result, after)
                    return outcome(command, "applied", self._clock(), observed=after)
            except InputError as refused:
                return outcome(command, "rejected", self._clock(), observed=before, error=str(refused))
            except _Undone as undone:
                return outcome(command, "rejected", self._clock(), observed=before, error=undone.reason)
            except self._database.errors as failure:
                trouble = self._database.trouble(failure)
                if trouble.kind == "transient":
                    raise
                error = trouble.sentence
        raise AssertionError("the second round always decides")

    async def _row(
        self, transaction: Transaction, table: Table, key: ResourceKey, command: Command, *, lock: bool = False
    ) -> _Seen:
        now = self._clock()
        rows = await transaction.fetch(*table.select_one(key.id, lock=lock))
        observation = _matched(table, {key.id: command.resource}, rows, now)[command.resource]
        return _Seen(observation=observation, rows=rows)

    async def _write(
        self,
        transaction: Transaction,
        table: Table,
        key: ResourceKey,
        seen: _Seen,
        result: Fields | Absent,
        origin: str,
    ) -> None:
        now = self._clock()
        before = seen.observation
        if isinstance(result, Absent):
            statement = table.delete(key.id)
        elif before.exists:
            self._check_version(table, before)
            values = table.changed(before.fields, result)
            table.check_rewritable(seen.rows[0], values)
            statement = table.update(key.id, values, now, origin)
        else:
            statement = table.insert(key.id, table.mapping.created(result), now, origin)
        touched = await transaction.execute(*statement)
        if touched != 1:
            raise _Undone(f"the write would have touched {touched} rows of the table, not 1")

    def _check_version(self, table: Table, before: Observation) -> None:
        version = table.config.version
        if version is None or not version.increment:
            return
        if before.version is None or not before.version.lstrip("-").isdecimal():
            raise _Undone(
                f"the version column {version.column!r} holds no whole number to add 1 to; "
                "configure `increment: false` if the database changes it"
            )

    async def _check_kept(
        self,
        transaction: Transaction,
        table: Table,
        key: ResourceKey,
        before: Observation,
        result: Fields | Absent,
        after: Observation,
    ) -> None:
        """Raises _Undone unless the row is now as it was asked to be."""
        if isinstance(result, Absent):
            if after.exists is not False:
                raise _Undone("the row is still there after its deletion")
            return
        if not after.exists:
            raise _Undone(after.reason or "the row isn't there after its write")
        values: dict[int, Json | Absent] = (
            table.changed(before.fields, result) if before.exists else {**table.mapping.created(result)}
        )
        answers: dict[int, bool] = {}
        query = table.select_kept(key.id, values)
        if query is not None:
            rows = await transaction.fetch(*query)
            answers = {position: bool(kept) for position, kept in zip(table.asked(values), rows[0], strict=True)}
        path = table.first_not_kept(values, after.fields, answers)
        if path is not None:
            raise _Undone(f"{path}: the table turned the value into another one, so the write was undone")

    async def _prune(self) -> None:
        """Now and then, forgets what can't be delivered again. It may fail: the next hour tries again."""
        now = self._clock()
        if self._pruned_at is not None and now - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = now
        try:
            await self._database.fetch(*self._inbox.prune(now))
        except self._database.errors as error:
            logger.warning("the inbox of %r could not be pruned: %s", self._system, self._reason(error))


def _matched(table: Table, ids: dict[str, str], rows: Iterable[Row], now: Instant) -> dict[str, Observation]:
    """Resource -> observation, for all that was asked. An id with two rows, or a row that nobody asked for, proves nothing."""
    observations: dict[str, Observation] = {}
    strangers = False
    for row in rows:
        resource = ids.get(table.id_of(row))
        if resource is None:
            strangers = True
        elif resource in observations:
            observations[resource] = unknown(resource, "the table has more than one row with this id", now)
        else:
            observations[resource] = table.observation(resource, row, now)
    for resource in ids.values():
        if resource not in observations:
            observations[resource] = (
                unknown(resource, "the table compares ids loosely, and answered with another one", now)
                if strangers
                else missing(resource, now)
            )
    return observations
