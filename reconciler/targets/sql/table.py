"""One resource type as a table: its statements, and its rows as observations. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.records import Actor, Observation
from reconciler.targets.answers import found, unknown
from reconciler.targets.apply import Fields
from reconciler.targets.numbers import keeps_numbers
from reconciler.targets.sql.config import ResourceConfig
from reconciler.targets.sql.form import Form
from reconciler.targets.sql.mapping import TableMapping
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant, format_instant, parse_instant
from reconciler.values.json_value import Absent, Json
from reconciler.values.pointer import value_at

Row: TypeAlias = Sequence[object]
Statement: TypeAlias = tuple[str, list[object]]

_ID, _VERSION, _MODIFIED_AT, _MODIFIED_BY, _FIRST_COLUMN = range(5)


def quoted(*names: str | None) -> str:
    """An identifier with its schema, as SQL writes it whatever it holds."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name is not None)


@dataclass(frozen=True, kw_only=True)
class IdForm:
    """How a table is asked for its rows by their ids.

    ``problem`` is why a text can't be an id of this table (None: it can): what isn't an id must never be taken for the
    id of another row, and a row that can't be asked for isn't known to be missing.
    """

    text: str
    problem: Callable[[str], str | None]
    where_one: str
    one: Callable[[str], list[object]]
    where_many: Callable[[int], str]
    many: Callable[[Sequence[str]], list[object]]
    place: Callable[[int], str]
    after: str
    order: str


class Table:
    """The statements and rows of one resource type. Parameters are numbered from 1, as `parameter` writes them."""

    def __init__(
        self,
        config: ResourceConfig,
        forms: Sequence[Form],
        id_form: IdForm,
        *,
        as_text: Callable[[str], str],
        parameter: Callable[[int], str],
        modified_at: Form | None,
        row_lock: str = "",
    ) -> None:
        self.config = config
        self.mapping = TableMapping(config.fields)
        self.id_form = id_form
        self._forms = tuple(forms)
        self._modified_at = modified_at
        self._parameter = parameter
        self._name = quoted(config.schema_name, config.table)
        self._row_lock = row_lock
        version = "NULL" if config.version is None else as_text(quoted(config.table, config.version.column))
        changed_at = "NULL" if modified_at is None else modified_at.select
        changed_by = "NULL" if config.modified_by is None else as_text(quoted(config.table, config.modified_by))
        self._columns = ", ".join((id_form.text, version, changed_at, changed_by, *(form.select for form in forms)))

    # ── statements ───────────────────────────────────────────────────────────────────────────────────────────────

    def select_many(self, ids: Sequence[str]) -> Statement:
        """All rows with these ids."""
        where = self.id_form.where_many(len(ids))
        return f"SELECT {self._columns} FROM {self._name} WHERE {where}", self.id_form.many(ids)

    def select_one(self, id_: str, *, lock: bool = False) -> Statement:
        """The rows with one id: two, where the table's id isn't unique."""
        lock_clause = self._row_lock if lock else ""
        return (
            f"SELECT {self._columns} FROM {self._name} WHERE {self.id_form.where_one} LIMIT 2{lock_clause}",
            self.id_form.one(id_),
        )

    def select_page(self, after: str | None, size: int) -> Statement:
        """The next rows in the order of their ids."""
        where = "" if after is None else f" WHERE {self.id_form.after}"
        arguments: list[object] = [] if after is None else [after]
        sql = f"SELECT {self._columns} FROM {self._name}{where} ORDER BY {self.id_form.order} LIMIT {int(size)}"
        return sql, arguments

    def select_kept(self, id_: str, values: Mapping[int, Json | Absent]) -> Statement | None:
        """Whether the columns with more than one text for a value hold these: one boolean each, in `asked` order.

        None where no such column is among them.
        """
        arguments = self.id_form.one(id_)
        checks = []
        for position in self.asked(values):
            form = self._forms[position]
            assert form.kept is not None
            arguments.append(form.parameter_of(self.mapping.columns[position], values[position]))
            checks.append(form.kept(len(arguments)))
        if not checks:
            return None
        return f"SELECT {', '.join(checks)} FROM {self._name} WHERE {self.id_form.where_one}", arguments

    def update(self, id_: str, values: Mapping[int, Json | Absent], now: Instant, origin: str) -> Statement:
        """Writes columns of one row. Raises InputError naming what a column can't hold."""
        arguments = self.id_form.one(id_)
        assignments = self._assignments(values, now, origin, arguments)
        version = self.config.version
        if version is not None and version.increment:
            column = quoted(version.column)
            assignments.append((column, f"{column} + 1"))
        sets = ", ".join(f"{column} = {value}" for column, value in assignments)
        return f"UPDATE {self._name} SET {sets} WHERE {self.id_form.where_one}", arguments

    def insert(self, id_: str, values: Mapping[int, Json], now: Instant, origin: str) -> Statement:
        """A new row. Raises InputError naming what a column can't hold."""
        arguments: list[object] = [id_]
        named = {
            position: value
            for position, value in values.items()
            if self.mapping.columns[position].column != self.config.id
        }
        assignments = self._assignments(named, now, origin, arguments)
        columns = ", ".join([quoted(self.config.id), *(column for column, _ in assignments)])
        places = ", ".join([self.id_form.place(1), *(value for _, value in assignments)])
        return f"INSERT INTO {self._name} ({columns}) VALUES ({places})", arguments

    def delete(self, id_: str) -> Statement:
        """Takes one row away."""
        return f"DELETE FROM {self._name} WHERE {self.id_form.where_one}", self.id_form.one(id_)

    def _assignments(
        self, values: Mapping[int, Json | Absent], now: Instant, origin: str, arguments: list[object]
    ) -> list[tuple[str, str]]:
        """Column and SQL value of each write; their parameters are appended to the arguments."""
        assignments = []
        for position, value in values.items():
            form, column = self._forms[position], self.mapping.columns[position]
            arguments.append(form.parameter_of(column, value))
            assignments.append((quoted(column.column), form.place(len(arguments))))
        written = {self.mapping.columns[position].column for position in values}
        config = self.config
        if config.origin_field is not None:
            arguments.append(origin)
            assignments.append((quoted(config.origin_field), self._parameter(len(arguments))))
        if config.written_by is None:
            return assignments
        if config.modified_at is not None and self._modified_at is not None and config.modified_at not in written:
            arguments.append(format_instant(now))
            assignments.append((quoted(config.modified_at), self._modified_at.place(len(arguments))))
        if config.modified_by is not None and config.modified_by not in written:
            arguments.append(config.written_by)
            assignments.append((quoted(config.modified_by), self._parameter(len(arguments))))
        return assignments

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def id_of(self, row: Row) -> str:
        """The id of a row as text."""
        return str(row[_ID])

    def observation(self, resource: str, row: Row, observed_at: Instant) -> Observation:
        """A row as an observation; unknown where a column holds what can't be read."""
        try:
            fields = self.mapping.fields_of(
                [
                    form.value_of(column, stored)
                    for form, column, stored in zip(self._forms, self.mapping.columns, row[_FIRST_COLUMN:], strict=True)
                ]
            )
            modified_at = self._instant_of(row[_MODIFIED_AT])
        except InputError as error:
            return unknown(resource, str(error), observed_at)
        version, modified_by = row[_VERSION], row[_MODIFIED_BY]
        return found(
            resource,
            fields,
            observed_at,
            version=None if version is None else str(version),
            modified_at=modified_at,
            modified_by=None if modified_by is None else Actor(id=str(modified_by), kind=self.config.modified_by_kind),
        )

    def _instant_of(self, stored: object) -> Instant | None:
        if stored is None or self._modified_at is None:
            return None
        text = self._modified_at.read(stored)
        if not isinstance(text, str):
            raise InputError(f"the column {self.config.modified_at!r} holds no instant as text")
        try:
            return parse_instant(text)
        except InputError as error:
            raise InputError(f"the column {self.config.modified_at!r}: {error.message}") from None

    def check_rewritable(self, row: Row, values: Mapping[int, Json | Absent]) -> None:
        """Raises InputError where JSON that is only changed in part holds a number that we couldn't write back as it is."""
        for position in values:
            stored = row[_FIRST_COLUMN + position]
            if self._forms[position].is_json and isinstance(stored, str) and not keeps_numbers(stored):
                column = self.mapping.columns[position]
                raise InputError(
                    f"the column {column.column!r} holds a number with more digits than we can give back",
                    field=column.path,
                )

    # ── what a command writes ────────────────────────────────────────────────────────────────────────────────────

    def changed(self, old: Fields, new: Fields) -> dict[int, Json | Absent]:
        """What to write for new fields. Raises InputError naming what the table can't hold or mustn't change."""
        values = self.mapping.changed(old, new)
        version = None if self.config.version is None else self.config.version.column
        for position in values:
            column = self.mapping.columns[position]
            if column.column == self.config.id:
                raise InputError("the id of a row never changes", field=column.path)
            if column.column == version:
                raise InputError("the version of a row is never set", field=column.path)
        return values

    def asked(self, values: Mapping[int, Json | Absent]) -> list[int]:
        """The positions of which the database must say whether they were kept."""
        return [position for position in values if self._forms[position].kept is not None]

    def first_not_kept(
        self, values: Mapping[int, Json | Absent], fields: Json, answers: Mapping[int, bool]
    ) -> str | None:
        """The path of the first value that the row doesn't hold as it was written."""
        for position, wanted in values.items():
            column = self.mapping.columns[position]
            kept = answers.get(position)
            if kept is None:
                kept = self._forms[position].kept_value(wanted, value_at(fields, column.tokens))
            if not kept:
                return column.path
        return None
