"""How rows become resources, as the targets file says it: shared by all SQL targets."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from reconciler.targets.first_outcome import KEPT_S
from reconciler.targets.settings import Strict
from reconciler.values.pointer import tokens_of

ColumnKind: TypeAlias = Literal["auto", "json", "boolean", "bytes"]

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL's NAMEDATALEN - 1: it would cut longer names short without a word."""


def _identifier(name: str) -> str:
    if not name or "\x00" in name or len(name.encode()) > MAX_IDENTIFIER_BYTES:
        raise ValueError(f"{name[:80]!r} is no name of a table or column (1 to {MAX_IDENTIFIER_BYTES} bytes)")
    return name


Identifier: TypeAlias = Annotated[str, AfterValidator(_identifier)]


def _null_said(value: Any) -> Any:
    """YAML reads a bare `null` as no text."""
    return "null" if value is None else value


class ColumnConfig(Strict):
    """One column that holds the value at one path."""

    column: Identifier
    kind: ColumnKind = "auto"
    null_means: Annotated[Literal["null", "absent"], BeforeValidator(_null_said)] = "null"
    """What a NULL in the column means."""


class VersionConfig(Strict):
    """The column that changes with every write of the row."""

    column: Identifier
    increment: bool = True
    """Whether a write of ours adds 1, as it must where the writers do it and no trigger does."""

    @model_validator(mode="after")
    def _system_column(self) -> VersionConfig:
        if self.column == "xmin" and "increment" not in self.model_fields_set:
            return self.model_copy(update={"increment": False})
        return self


def _named(name: str) -> Any:
    def expanded(value: Any) -> Any:
        return {name: value} if isinstance(value, str) else value

    return BeforeValidator(expanded)


class ResourceConfig(Strict):
    """One resource type: a table, and which column holds what."""

    table: Identifier
    schema_name: Identifier | None = Field(default=None, alias="schema")
    id: Identifier
    fields: dict[str, Annotated[ColumnConfig, _named("column")]] = Field(min_length=1)
    version: Annotated[VersionConfig, _named("column")] | None = None
    modified_at: Identifier | None = None
    modified_by: Identifier | None = None
    modified_by_kind: str = "user"
    written_by: str | None = None
    """What a write of ours puts into `modified_by`, with the instant in `modified_at`; left out, both stay as they are."""
    origin_field: Identifier | None = None
    """The column, of texts, into which a write of ours puts the command's origin mark. It is no field of the resource."""

    @field_validator("fields")
    @classmethod
    def _apart(cls, fields: dict[str, ColumnConfig]) -> dict[str, ColumnConfig]:
        paths = sorted((tokens_of(path), path) for path in fields)
        for (above, above_path), (below, below_path) in pairwise(paths):
            if below[: len(above)] == above:
                raise ValueError(f"{above_path!r} and {below_path!r} overlap; a place belongs to one column")
        columns = [config.column for config in fields.values()]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"the column {column!r} stands at two paths")
        return fields

    @model_validator(mode="after")
    def _stamped(self) -> ResourceConfig:
        version = None if self.version is None else self.version.column
        taken = [
            self.id,
            version,
            self.modified_at,
            self.modified_by,
            *(config.column for config in self.fields.values()),
        ]
        if self.origin_field is not None and self.origin_field in taken:
            raise ValueError("`origin_field` must be a column of its own: everybody's writes are told by it from ours")
        if self.written_by is not None and self.modified_at is None and self.modified_by is None:
            raise ValueError("`written_by` needs `modified_at` or `modified_by`, the columns to write to")
        return self


class InboxConfig(Strict):
    """The table that remembers which commands were carried out."""

    table: Identifier = "reconciler_inbox"
    schema_name: Identifier | None = Field(default=None, alias="schema")
    create: bool = True
    """Whether to create it where it isn't there; docs/targets.md has the statement for those who may not."""
    keep_s: int = Field(default=KEPT_S, ge=3600)


class SqlConfig(Strict):
    """What all SQL targets are told."""

    resources: dict[str, ResourceConfig] = Field(min_length=1)
    inbox: InboxConfig = InboxConfig()
    bulk_size: int = Field(default=500, ge=1, le=10_000)
    timeout_s: float = Field(default=10.0, gt=0)
